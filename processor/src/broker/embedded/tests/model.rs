//! The log against the plainest model of it, in random histories.

use proptest::prelude::*;

use super::*;
use crate::broker::embedded::EntryKind;

/// What one of three producers does next.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Commit(usize),
    Abort(usize),
    /// The producer dies; its successor takes over the id.
    Replace(usize),
    /// Everybody falls silent past the transaction timeout.
    TimeOut,
    /// A reader takes a batch of at most so many records.
    Read(usize),
    /// Chunks that a reader holds do not grow: change which those are.
    Hold,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..4_usize).prop_map(|(who, count)| Step::Write(who, count)),
        2 => (0..3_usize).prop_map(Step::Commit),
        2 => (0..3_usize).prop_map(Step::Abort),
        1 => (0..3_usize).prop_map(Step::Replace),
        1 => Just(Step::TimeOut),
        4 => (1..5_usize).prop_map(Step::Read),
        1 => Just(Step::Hold),
    ]
}

/// A producer, and what is in its transaction.
struct Actor {
    id: String,
    writer: Writer,
    open: Option<Vec<String>>,
}

impl Actor {
    fn new(broker: &Embedded, id: String) -> Self {
        let writer = Writer::transactional(broker, &id);
        Self { id, writer, open: None }
    }
}

proptest! {
    #[test]
    fn committed_readers_see_each_committed_record_once_and_no_other(steps in prop::collection::vec(step(), 1..80)) {
        let (broker, clock) = broker_with_topic();
        let mut actors: Vec<_> = (0..3).map(|id| Actor::new(&broker, id.to_string())).collect();
        let mut tail = Tail::committed(&broker);
        let (mut committed, mut seen, mut held) = (Vec::new(), Vec::new(), None);
        let mut position = 0;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(who, count) => {
                    let actor = &mut actors[who];
                    if actor.open.is_none() {
                        actor.writer.call(TransactionCall::Begin).unwrap();
                    }
                    let values: Vec<_> = (0..count).map(|part| format!("{who}-{number}-{part}")).collect();
                    actor.writer.write(&values.iter().map(String::as_str).collect::<Vec<_>>());
                    actor.open.get_or_insert_default().extend(values);
                }
                Step::Commit(who) => {
                    if let Some(values) = actors[who].open.take() {
                        actors[who].writer.call(TransactionCall::Commit).unwrap();
                        committed.extend(values);
                    }
                }
                Step::Abort(who) => {
                    if actors[who].open.take().is_some() {
                        actors[who].writer.call(TransactionCall::Abort).unwrap();
                    }
                }
                Step::Replace(who) => actors[who] = Actor::new(&broker, actors[who].id.clone()),
                Step::TimeOut => {
                    clock.advance(10_000);
                    broker.tick();
                    for actor in &mut actors {
                        if actor.open.is_some() {
                            prop_assert_eq!(class(actor.writer.call(TransactionCall::Commit)), ErrorClass::Fenced);
                            *actor = Actor::new(&broker, actor.id.clone());
                        }
                    }
                }
                Step::Read(max) => {
                    if let Some(batch) = tail.fetch(max) {
                        prop_assert!(batch.len() <= max);
                        prop_assert!(batch.next_offset() >= position);
                        if batch.at_end() {
                            prop_assert_eq!(batch.next_offset(), edge(&broker, Edge::Stable));
                        }
                        position = batch.next_offset();
                        seen.extend(values(batch.as_ref()));
                    }
                }
                Step::Hold => held = Tail::new(&broker, Isolation::ReadUncommitted, 0).fetch(1_000),
            }
        }
        for actor in &mut actors {
            if actor.open.take().is_some() {
                actor.writer.call(TransactionCall::Abort).unwrap();
            }
        }
        drop(held);
        while let Some(batch) = tail.fetch(3) {
            position = batch.next_offset();
            seen.extend(values(batch.as_ref()));
        }
        prop_assert_eq!(position, edge(&broker, Edge::End));
        prop_assert_eq!(edge(&broker, Edge::Stable), edge(&broker, Edge::End));

        // In the log's order, each committed value and nothing else.
        let log = broker.log(&at(0)).unwrap();
        let offsets: Vec<_> = log.iter().map(|entry| entry.offset).collect();
        prop_assert_eq!(offsets, (0..edge(&broker, Edge::End)).collect::<Vec<_>>());
        let in_order: Vec<_> = log
            .iter()
            .filter(|entry| entry.kind == EntryKind::Transactional)
            .map(|entry| String::from_utf8_lossy(entry.value.as_deref().unwrap()).into_owned())
            .filter(|value| committed.contains(value))
            .collect();
        prop_assert_eq!(&seen, &in_order);
        committed.sort();
        seen.sort();
        prop_assert_eq!(seen, committed);
    }
}

#[test]
fn a_reader_on_another_thread_is_woken_for_every_record() {
    let (broker, _) = broker_with_topic();
    let mut tail = Tail::committed(&broker);
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while seen.len() < 1_000 {
            while let Some((values, _)) = tail.next() {
                seen.extend(values);
            }
            // Far longer than the test takes: a wake-up that is lost shows as missing records.
            if seen.len() < 1_000 && !tail.waker.wait(Duration::from_secs(30)) {
                break;
            }
        }
        seen
    });
    let mut writer = Writer::transactional(&broker, "x");
    let wanted: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    for value in &wanted {
        writer.transaction(&[value], TransactionCall::Commit);
    }
    assert_eq!(reader.join().unwrap(), wanted);
}
