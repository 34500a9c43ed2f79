//! `lbx bypass`: one word in a map, with or without the daemon.

use super::args::{Bypass, OnOff};
use super::session::Session;
use super::{Done, output};
use crate::api::client::Error;
use crate::api::model::{self, Changed};
use crate::datapath::Maps;
use lbx_common::control::flags;

pub(super) fn bypass(session: &Session, options: Bypass) -> Done {
    let on = options.state == OnOff::On;
    // The maps first: nothing between the operator and the word that lets packets pass.
    let answer = match Maps::open_pinned_writable(&session.paths.instance) {
        Ok(maps) => {
            let before = maps.control()?.flags & flags::BYPASS != 0;
            maps.set_bypass(on)?;
            Changed { target: None, changed: before != on, now: sentence(on).to_owned() }
        }
        // Not root: the daemon does it for the group.
        Err(error) => match session.post("/v1/bypass", &model::Bypass { on }) {
            Ok(answer) => answer,
            Err(Error::NotRunning(_)) => return Err(error.into()),
            Err(other) => return Err(other.into()),
        },
    };
    output::show(session, &answer, super::change::changed)
}

/// What holds then.
fn sentence(on: bool) -> &'static str {
    if on {
        "the bypass is on: every packet passes as on a plain bridge, flows are kept"
    } else {
        "the bypass is off: packets are steered"
    }
}
