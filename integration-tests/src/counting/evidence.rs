//! Whether a kill hit anything: a kill between two transactions, or right after a commit, proves nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Guarantee, Launch};
use crate::{Failure, Isolation, Judge, eventually};

/// Time for a trace of a kill to show: a process that starts again aborts what its last run left open.
const TRACE: Duration = Duration::from_secs(5);

/// The topics that are written, and where each of their partitions ended.
pub(super) type Marks = Vec<(String, Vec<i64>)>;

impl Launch {
    /// Where the topics that are written end now.
    pub(super) fn marks(&self, judge: &Judge) -> Result<Marks, Failure> {
        let topics = [self.repartition(), self.changelog(), self.output.clone()];
        let mark = |topic: String| {
            let ends = judge.ends(&topic, Isolation::Committed)?;
            Ok((topic, ends.into_iter().map(|(_, end)| end).collect()))
        };
        topics.into_iter().map(mark).collect()
    }

    /// Records behind the marks that were undone or doubled, as soon as there are any; 0 where there are none in time.
    pub(super) fn await_undone(&self, judge: &Judge, marks: &Marks) -> Result<usize, Failure> {
        let seen = eventually(TRACE, "traces of a kill", || match self.undone(judge, marks) {
            Ok(0) => Err("none"),
            seen => Ok(seen),
        });
        seen.unwrap_or(Ok(0))
    }

    fn undone(&self, judge: &Judge, marks: &Marks) -> Result<usize, Failure> {
        let mut undone = 0_usize;
        for (topic, from) in marks {
            undone += match self.guarantee {
                Guarantee::ExactlyOnce => judge.aborted_from(topic, from)?.len(),
                // A value is the number of an input record, so a value met again is a record processed again.
                Guarantee::AtLeastOnce if *topic == self.repartition() => {
                    let read = judge.read_from(topic, from, Isolation::Uncommitted)?;
                    let values: Vec<_> = read.into_iter().flatten().map(|record| record.value).collect();
                    values.len() - values.iter().collect::<BTreeSet<_>>().len()
                }
                Guarantee::AtLeastOnce => 0,
            };
        }
        Ok(undone)
    }
}
