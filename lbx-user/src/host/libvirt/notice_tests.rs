//! Bodies written by hand after the protocol file.

use proptest::prelude::*;

use super::*;

const UUID: [u8; 16] = [0xaa, 0xaa, 0xaa, 0xaa, 0xbb, 0xbb, 0xcc, 0xcc, 0xdd, 0xdd, 0, 0, 0, 0, 0, 1];

fn lv1() -> Domain {
    Domain { name: "lv1".to_owned(), uuid: UUID, id: 7 }
}

/// `callbackID`, then the domain: name, UUID, id.
const HEAD: &[u8] = b"\0\0\0\0\
    \0\0\0\x03lv1\0\
    \xaa\xaa\xaa\xaa\xbb\xbb\xcc\xcc\xdd\xdd\0\0\0\0\0\x01\
    \0\0\0\x07";

fn said(procedure: i32, rest: &[u8]) -> Result<Option<Notice>, Error> {
    event(procedure, &[HEAD, rest].concat())
}

#[test]
fn lifecycle() {
    let change = |rest: &[u8]| match said(318, rest) {
        Ok(Some(Notice::Lifecycle(domain, change))) if domain == lv1() => change,
        other => panic!("{other:?}"),
    };
    assert_eq!(change(b"\0\0\0\x02\0\0\0\x00"), Change::Started(Why::Other(0)));
    assert_eq!(change(b"\0\0\0\x02\0\0\0\x01"), Change::Started(Why::Migrated));
    assert_eq!(change(b"\0\0\0\x03\0\0\0\x01"), Change::Suspended(Why::Migrated));
    assert_eq!(change(b"\0\0\0\x03\0\0\0\x07"), Change::Suspended(Why::Postcopy));
    assert_eq!(change(b"\0\0\0\x04\0\0\0\x00"), Change::Resumed(Why::Other(0)));
    assert_eq!(change(b"\0\0\0\x04\0\0\0\x01"), Change::Resumed(Why::Migrated));
    assert_eq!(change(b"\0\0\0\x05\0\0\0\x03"), Change::Stopped(Why::Migrated));
    assert_eq!(change(b"\0\0\0\x05\0\0\0\x05"), Change::Stopped(Why::Failed));
    assert_eq!(change(b"\0\0\0\x08\0\0\0\x00"), Change::Other(8));
}

#[test]
fn iteration_and_what_is_not_asked_for() {
    assert_eq!(said(359, b"\0\0\0\x02"), Ok(Some(Notice::Iteration(lv1(), 2))));
    assert_eq!(said(359, b"\0\0\0"), Err(Error::Short));
    assert_eq!(said(319, b""), Ok(None), "a reboot");
}

#[test]
fn jobs_with_their_parameters() {
    let out = b"\0\0\0\x04\
        \0\0\0\x09operation\0\0\0\0\0\0\x01\0\0\0\x05\
        \0\0\0\x0ctime_elapsed\0\0\0\x04\0\0\0\0\0\0\x02\x2b\
        \0\0\0\x05ratio\0\0\0\0\0\0\x05\x40\0\0\0\0\0\0\0\
        \0\0\0\x07success\0\0\0\0\x06\0\0\0\x01";
    assert_eq!(said(363, out), Ok(Some(Notice::Job(lv1(), Operation::MigrationOut, true))));
    let mut failed = out.to_vec();
    *failed.last_mut().unwrap() = 0;
    assert_eq!(said(363, &failed), Ok(Some(Notice::Job(lv1(), Operation::MigrationOut, false))));
    let with_words = b"\0\0\0\x01\0\0\0\x06errmsg\0\0\0\0\0\x07\0\0\0\x04full";
    assert_eq!(said(363, with_words), Ok(Some(Notice::Job(lv1(), Operation::Other, false))));
    let unknown = b"\0\0\0\x01\0\0\0\x04what\0\0\0\x08\0\0\0\0";
    assert_eq!(said(363, unknown), Err(Error::Choice(8)));

    let running = |kind: u8| job(&[&[0, 0, 0, kind], out.as_slice()].concat());
    assert_eq!(running(2), Ok(Some(Operation::MigrationOut)));
    assert_eq!(running(3), Ok(None), "it is over");
    assert_eq!(job(b"\0\0\0\0\0\0\0\0"), Ok(None));
    assert_eq!(job(b"\0\0\0\x01\0\0\0\0"), Ok(Some(Operation::Other)));
}

#[test]
fn answers() {
    let two = [b"\0\0\0\x02".as_slice(), &HEAD[4..], &HEAD[4..], b"\0\0\0\x02"].concat();
    assert_eq!(domains(&two), Ok(vec![lv1(), lv1()]));
    assert_eq!(domains(b"\xff\xff\xff\xff"), Err(Error::TooLong { length: u32::MAX, limit: DOMAINS }));
    assert_eq!(ways(b"\0\0\0\x02\0\0\0\x02\0\0\0\0"), Ok(vec![2, 0]));
    assert_eq!(version(&9_000_000_u64.to_be_bytes()), Ok("9.0.0".to_owned()));
    assert_eq!(version(&10_002_013_u64.to_be_bytes()), Ok("10.2.13".to_owned()));
    assert_eq!((runs(b"\0\0\0\x01\0\0\0\x01"), runs(b"\0\0\0\x03\0\0\0\x02")), (Ok(true), Ok(false)));
    let no_domain = b"\0\0\0\x2a\0\0\0\x0a\0\0\0\x01\0\0\0\x04none\0\0\0\x02";
    assert_eq!(refusal(no_domain), Ok((42, "none".to_owned())));
    assert_eq!(refusal(b"\0\0\0\x2a\0\0\0\x0a\0\0\0\0"), Ok((42, String::new())));
}

#[test]
fn a_vm_as_text_and_as_an_argument() {
    assert_eq!(lv1().uuid_text(), "aaaaaaaa-bbbb-cccc-dddd-000000000001");
    assert_eq!(lv1().write(Writer::default()).done(), HEAD[4..]);
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(procedure in prop_oneof![Just(318), Just(359), Just(363)], rest: Vec<u8>, whole: bool) {
        let body = if whole { [HEAD, &rest].concat() } else { rest };
        let _ = event(procedure, &body);
        let _ = (job(&body), runs(&body), ways(&body), version(&body), refusal(&body));
        // Never more of them than there are bytes.
        prop_assert!(domains(&body).map_or(0, |list| list.len()) <= body.len());
    }

    #[test]
    fn what_is_cut_short_is_refused(cut in 0_usize..76) {
        let whole = [HEAD, b"\0\0\0\x01\0\0\0\x09operation\0\0\0\0\0\0\x01\0\0\0\x05"].concat();
        prop_assert!(event(363, &whole[..cut.min(whole.len() - 1)]).is_err());
    }

    #[test]
    fn any_vm_is_read_as_it_was_written(name in ".{0,60}", uuid: [u8; 16], id: i32) {
        let domain = Domain { name, uuid, id };
        let body = domain.write(Writer::default().u32(1)).done();
        prop_assert_eq!(domains(&body), Ok(vec![domain]));
    }
}
