//! Migrations as libvirt 9.0 tells them, from both sides, and those it does not tell.

use super::*;

fn vm() -> Domain {
    Domain { name: "web-1".to_owned(), uuid: [7; 16], id: 3 }
}

/// A follower with a clock, and what came of everything so far.
struct Told {
    follower: Follower,
    now: Instant,
    work: Vec<Do>,
}

impl Told {
    fn new() -> Self {
        Self { follower: Follower::default(), now: Instant::now(), work: Vec::new() }
    }

    fn says(&mut self, change: Change) -> &mut Self {
        let notice = Notice::Lifecycle(vm(), change);
        self.work.extend(self.follower.notice(&notice, self.now));
        self
    }

    fn pass(&mut self, number: i32) -> &mut Self {
        self.work.extend(self.follower.notice(&Notice::Iteration(vm(), number), self.now));
        self
    }

    fn completed(&mut self, operation: Operation, well: bool) -> &mut Self {
        self.work.extend(self.follower.notice(&Notice::Job(vm(), operation, well), self.now));
        self
    }

    fn answers(&mut self, job: Option<Operation>) -> &mut Self {
        self.work.extend(self.follower.job(&vm(), job, self.now));
        self
    }

    fn later(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self.work.extend(self.follower.tick(self.now));
        self
    }

    /// What was told, and how often was asked, since the last time.
    fn takes(&mut self) -> (Vec<What>, usize) {
        let work = std::mem::take(&mut self.work);
        let asks = work.iter().filter(|one| !matches!(one, Do::Tell(..))).count();
        let told = work.iter().filter_map(|one| match one {
            Do::Tell(domain, what) if *domain == vm() => Some(*what),
            _ => None,
        });
        (told.collect(), asks)
    }
}

const OUT: Option<Operation> = Some(Operation::MigrationOut);
const THERE: Place = Place::There;
const HERE: Place = Place::Here;

#[test]
fn the_source_of_a_migration() {
    let mut told = Told::new();
    assert_eq!(told.pass(1).takes(), (vec![], 1));
    assert_eq!(told.answers(OUT).takes(), (vec![What::Transferring], 0));
    assert_eq!(told.pass(2).takes(), (vec![What::Transferring], 0));
    assert_eq!(told.later(300).takes(), (vec![], 1));
    assert_eq!(told.later(300).takes(), (vec![], 0), "one question at a time");
    assert_eq!(told.answers(OUT).says(Change::Suspended(Why::Migrated)).takes(), (vec![What::Stopped], 0));
    assert_eq!(told.pass(3).takes(), (vec![], 0), "what was left is told of after the stop");
    let end = told.completed(Operation::MigrationOut, true).says(Change::Stopped(Why::Migrated)).takes();
    assert_eq!(end, (vec![What::Resumed(THERE), What::Done(THERE)], 0));
    assert!(!told.follower.is_busy() && told.later(5000).takes() == (vec![], 0));
}

#[test]
fn the_destination_of_a_migration() {
    let mut told = Told::new();
    assert_eq!(told.says(Change::Started(Why::Migrated)).takes(), (vec![What::Expected], 0));
    assert_eq!(told.says(Change::Resumed(Why::Migrated)).takes().0, [What::Resumed(HERE), What::Done(HERE)]);
    assert!(!told.follower.is_busy());

    // `--suspend`: it is to be there, and to stand still.
    told.says(Change::Started(Why::Migrated)).says(Change::Suspended(Why::Other(0)));
    assert_eq!(told.takes().0, [What::Expected, What::Done(HERE)]);
    // It did not come.
    told.says(Change::Started(Why::Migrated)).says(Change::Stopped(Why::Failed));
    assert_eq!(told.takes().0, [What::Expected, What::Failed]);
}

#[test]
fn post_copy_runs_there_before_it_is_done() {
    let mut source = Told::new();
    source.pass(1).answers(OUT).says(Change::Suspended(Why::Postcopy));
    source.completed(Operation::MigrationOut, true).says(Change::Stopped(Why::Migrated));
    let expected = [What::Transferring, What::Stopped, What::Resumed(THERE), What::Done(THERE)];
    assert_eq!(source.takes().0, expected);
    let mut destination = Told::new();
    destination.says(Change::Started(Why::Migrated)).says(Change::Resumed(Why::Postcopy));
    assert_eq!(destination.takes().0, [What::Expected, What::Resumed(HERE)]);
    assert_eq!(destination.says(Change::Resumed(Why::Migrated)).takes().0.last(), Some(&What::Done(HERE)));
}

#[test]
fn given_up_in_silence_is_found_by_asking() {
    let mut told = Told::new();
    told.pass(1).answers(OUT).takes();
    assert_eq!(told.later(260).answers(None).takes(), (vec![], 1), "its end may be told a moment later");
    assert_eq!(told.later(260).answers(None).takes(), (vec![What::Failed], 1));
    assert!(!told.follower.is_busy());
    // In between it was busy after all.
    told.pass(1).answers(OUT).later(260).answers(None).later(260).answers(OUT).later(260).answers(None);
    assert_eq!(told.takes().0, [What::Transferring]);
}

#[test]
fn a_failure_after_the_stop_is_told() {
    let mut told = Told::new();
    told.pass(1).answers(OUT).says(Change::Suspended(Why::Migrated)).says(Change::Resumed(Why::Migrated));
    assert_eq!(told.takes().0, [What::Transferring, What::Stopped, What::Failed]);
    told.pass(1).answers(OUT).completed(Operation::MigrationOut, false);
    assert_eq!(told.takes().0, [What::Transferring, What::Failed]);
    told.pass(1).answers(OUT).says(Change::Stopped(Why::Other(1)));
    assert_eq!(told.takes().0, [What::Transferring, What::Failed]);
}

#[test]
fn saving_and_dumping_are_no_migrations() {
    let mut told = Told::new();
    told.pass(1).answers(Some(Operation::Other)).pass(2).pass(3).later(1000);
    assert_eq!(told.takes(), (vec![], 1));
    assert_eq!(told.completed(Operation::Other, true).takes(), (vec![], 0));
    // The next one is asked for again; its job is over before the answer.
    assert_eq!(told.pass(1).answers(None).takes(), (vec![], 1));
    assert!(!told.follower.is_busy());
}

#[test]
fn a_libvirt_that_does_not_answer_is_not_waited_for() {
    let mut told = Told::new();
    told.pass(1).later(100);
    assert_eq!(told.takes(), (vec![], 1));
    assert_eq!(told.later(100).takes(), (vec![What::Transferring], 0));
    // Nor one that refuses, unless it is because the VM is gone.
    let mut refused = Told::new();
    refused.pass(1).takes();
    let said = refused.follower.refused(&vm(), false, refused.now);
    assert_eq!(said, [Do::Tell(vm(), What::Transferring)]);
    refused.says(Change::Stopped(Why::Other(0))).pass(1).takes();
    assert!(refused.follower.refused(&vm(), true, refused.now).is_empty() && !refused.follower.is_busy());
}

#[test]
fn the_stop_is_told_even_if_nothing_was_before() {
    let mut told = Told::new();
    assert_eq!(told.says(Change::Suspended(Why::Migrated)).takes().0, [What::Stopped]);
    assert_eq!(told.says(Change::Stopped(Why::Migrated)).takes().0, [What::Done(THERE)]);
    assert_eq!(told.says(Change::Resumed(Why::Migrated)).takes().0, [What::Resumed(HERE), What::Done(HERE)]);
}

#[test]
fn ordinary_life_is_no_migration() {
    let mut told = Told::new();
    let life = [
        Change::Other(0),
        Change::Started(Why::Other(0)),
        Change::Suspended(Why::Other(0)),
        Change::Resumed(Why::Other(0)),
        Change::Other(6),
        Change::Stopped(Why::Other(1)),
    ];
    for change in life {
        told.says(change);
    }
    assert_eq!(told.completed(Operation::Other, true).takes(), (vec![], 0));
}

#[test]
fn after_a_lost_connection_everything_is_looked_at_again() {
    // A migration that began before we came.
    let mut told = Told::new();
    let work = told.follower.connected(&[vm()], told.now);
    assert_eq!(work, [Do::AskJob(vm())]);
    assert_eq!(told.answers(OUT).takes().0, [What::Transferring]);
    // The connection is lost while a question is open; meanwhile it was given up.
    told.later(260).takes();
    assert!(told.follower.connected(&[vm()], told.now).is_empty());
    told.later(260).answers(None).later(260).answers(None);
    assert_eq!(told.takes(), (vec![What::Failed], 2));
    // Most VMs are in no job: nothing is kept of them.
    told.follower.connected(&[vm()], told.now);
    assert!(told.answers(None).takes().0.is_empty() && told.follower.vms.is_empty());
    // Awaited before, arrived or not meanwhile.
    told.says(Change::Started(Why::Migrated)).takes();
    assert_eq!(told.follower.connected(&[vm()], told.now), [Do::AskState(vm())]);
    assert!(told.follower.state(&vm(), false).is_empty());
    assert_eq!(told.follower.state(&vm(), true).len(), 2);
    told.says(Change::Started(Why::Migrated)).takes();
    assert_eq!(told.follower.connected(&[], told.now), [Do::Tell(vm(), What::Failed)]);
    // Sent away and gone: others know how it ended.
    told.pass(1).answers(OUT).takes();
    assert!(told.follower.connected(&[], told.now).is_empty() && !told.follower.is_busy());
}
