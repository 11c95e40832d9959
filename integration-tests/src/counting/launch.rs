use std::path::{Path, PathBuf};

use crate::{Failure, Isolation, Judge, Program};

/// What the application is asked to guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Nothing is lost.
    AtLeastOnce,
    /// Nothing is lost or doubled.
    ExactlyOnce,
}

/// How a process of the application is started, and the names of its topics.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program's path.
    pub program: PathBuf,
    /// The cluster.
    pub bootstrap: String,
    /// The application's id.
    pub application: String,
    /// The topic that is counted.
    pub input: String,
    /// The topic that takes the counts.
    pub output: String,
    /// What is guaranteed.
    pub guarantee: Guarantee,
    /// Time between two commits.
    pub commit_interval_ms: u32,
}

impl Launch {
    /// A process with two workers and this state directory.
    #[must_use]
    pub fn program(&self, state: &Path) -> Program {
        let guarantee = match self.guarantee {
            Guarantee::AtLeastOnce => "at_least_once",
            Guarantee::ExactlyOnce => "exactly_once_v2",
        };
        let settings = [
            format!("processing.guarantee={guarantee}"),
            format!("commit.interval.ms={}", self.commit_interval_ms),
            "num.stream.threads=2".to_owned(),
            "session.timeout.ms=6000".to_owned(),
            "heartbeat.interval.ms=1000".to_owned(),
        ];
        Program::new(&self.program)
            .args(["run", "--bootstrap", &self.bootstrap, "--application", &self.application])
            .args(["--input", &self.input, "--output", &self.output])
            .args(["--state-dir".to_owned(), state.display().to_string()])
            .args(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]))
    }

    /// The topic between the two halves of the application.
    #[must_use]
    pub fn repartition(&self) -> String {
        format!("{}-counts-repartition", self.application)
    }

    /// The log of the store.
    #[must_use]
    pub fn changelog(&self) -> String {
        format!("{}-counts-changelog", self.application)
    }

    /// Fails, naming the first partition, unless each input, the repartition topic included, is committed up to its
    /// `read_committed` end.
    pub(super) fn lag(&self, judge: &Judge) -> Result<(), Failure> {
        for topic in [&self.input, &self.repartition()] {
            let ends = judge.ends(topic, Isolation::Committed)?;
            let committed = judge.committed(&self.application, topic)?;
            for (partition, (committed, (_, end))) in committed.into_iter().zip(ends).enumerate() {
                if committed.unwrap_or(0) != end {
                    return Err(Failure::new(format!("{topic}/{partition}: {committed:?} committed of {end}")));
                }
            }
        }
        Ok(())
    }
}
