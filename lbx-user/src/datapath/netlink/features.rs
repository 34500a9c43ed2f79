//! What XDP can do with an interface, from the kernel's own list (generic netlink family `netdev`, Linux 6.3;
//! include/uapi/linux/netdev.h, Documentation/netlink/specs/netdev.yaml).

use super::{NLM_F_ACK, Request, find, transact_by};
use crate::datapath::error::{Error, Result};
use nix::sys::socket::SockProtocol;
use std::io;

/// `GENL_ID_CTRL`, whose commands find the other families.
const CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// `NETDEV_XDP_ACT_NDO_XMIT`: frames can be redirected into it. A veth has it only while its other end runs NAPI
/// (`veth_set_xdp_features`, drivers/net/veth.c).
const NDO_XMIT: u64 = 4;

/// `struct genlmsghdr`: command, version 1, reserved.
const fn header(command: u8) -> [u8; 4] {
    [command, 1, 0, 0]
}

/// Whether XDP can redirect frames into an interface of the caller's network namespace; `None` where the kernel does
/// not tell (before 6.3).
pub fn takes_redirects(ifindex: u32) -> Result<Option<bool>> {
    let ask = || -> io::Result<Option<bool>> {
        let mut request = Request::new(CTRL, NLM_F_ACK, &header(CTRL_CMD_GETFAMILY));
        request.attr(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
        let family = match transact_by(SockProtocol::NetlinkGeneric, request) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            answers => answers?,
        };
        let Some(family) = family.first().and_then(|body| family_id(body)) else { return Ok(None) };
        let mut request = Request::new(family, NLM_F_ACK, &header(NETDEV_CMD_DEV_GET));
        request.attr(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
        let answers = transact_by(SockProtocol::NetlinkGeneric, request)?;
        Ok(answers.first().and_then(|body| features(body)).map(|features| features & NDO_XMIT != 0))
    };
    ask().map_err(Error::io(format!("asking what XDP can do with interface {ifindex}")))
}

fn family_id(body: &[u8]) -> Option<u16> {
    find(body.get(4..)?, CTRL_ATTR_FAMILY_ID)?.first_chunk().map(|id| u16::from_ne_bytes(*id))
}

fn features(body: &[u8]) -> Option<u64> {
    find(body.get(4..)?, NETDEV_A_DEV_XDP_FEATURES)?.first_chunk().map(|bits| u64::from_ne_bytes(*bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_takes_no_redirects_and_a_stranger_is_an_error() {
        // Every namespace has `lo` with index 1, and nothing can be redirected into it.
        assert_ne!(takes_redirects(1).unwrap(), Some(true));
        if takes_redirects(1).unwrap().is_some() {
            assert!(takes_redirects(u32::MAX >> 1).is_err());
        }
    }

    #[test]
    fn answers_are_read_behind_their_header() {
        let mut request = Request(header(1).to_vec());
        request.attr(NETDEV_A_DEV_IFINDEX, &7u32.to_ne_bytes());
        request.attr(NETDEV_A_DEV_XDP_FEATURES, &5u64.to_ne_bytes());
        assert_eq!(features(&request.0), Some(5));
        assert_eq!(family_id(&[1, 1, 0]), None);
    }
}
