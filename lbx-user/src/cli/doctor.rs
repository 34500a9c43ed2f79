//! `lbx doctor`.

use super::Done;
use super::session::Session;

pub(super) fn doctor(_session: &Session) -> Done {
    Ok(())
}
