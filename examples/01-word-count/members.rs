//! The processes of the application that live in this one: three on the embedded broker, one on Kafka.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater::broker::Broker;
use headwater::prelude::*;
use headwater::{StoreKind, StreamsState};

const DRAIN: Duration = Duration::from_secs(30);
/// The second member stops after this time, and comes back after as much again.
const ACT: Duration = Duration::from_secs(8);

/// Starts members and plays the coming and going of one.
pub(crate) struct Members {
    topology: Topology,
    config: StreamsConfig,
    broker: Arc<dyn Broker>,
    running: Vec<Option<KafkaStreams>>,
    processed_before: u64,
    started: Instant,
    // Where members that share a process keep what tells them apart; removed with them.
    home: Option<PathBuf>,
}

impl Members {
    /// This process is one member of many.
    pub(crate) fn one_of_many(
        topology: &Topology,
        config: StreamsConfig,
        broker: &Arc<dyn Broker>,
        state_dir: Option<&Path>,
    ) -> Result<Self> {
        let mut members = Self::none(topology, config, broker, None);
        let started = match state_dir {
            Some(directory) => members.start_in(directory.to_owned())?,
            None => members.start_in_first_unlocked()?,
        };
        members.running.push(Some(started));
        Ok(members)
    }

    /// All members are in this process. Their stores are in memory.
    pub(crate) fn in_one_process(
        topology: &Topology,
        config: StreamsConfig,
        broker: &Arc<dyn Broker>,
        count: usize,
    ) -> Result<Self> {
        let home = std::env::temp_dir().join(format!("headwater-word-count-{}", std::process::id()));
        let mut members = Self::none(topology, config.store(StoreKind::Memory), broker, Some(home));
        for index in 0..count {
            let started = members.start_numbered(index)?;
            members.running.push(Some(started));
        }
        Ok(members)
    }

    fn none(topology: &Topology, config: StreamsConfig, broker: &Arc<dyn Broker>, home: Option<PathBuf>) -> Self {
        Self {
            topology: topology.clone(),
            config,
            broker: Arc::clone(broker),
            running: Vec::new(),
            processed_before: 0,
            started: Instant::now(),
            home,
        }
    }

    fn start_in(&self, directory: PathBuf) -> Result<KafkaStreams> {
        let config = self.config.clone().state_dir(directory);
        KafkaStreams::start_on(&self.topology, config, Arc::clone(&self.broker))
    }

    fn start_numbered(&self, index: usize) -> Result<KafkaStreams> {
        self.start_in(self.home.as_deref().unwrap_or(Path::new("state")).join(index.to_string()))
    }

    fn start_in_first_unlocked(&self) -> Result<KafkaStreams> {
        for index in 0.. {
            match self.start_in(PathBuf::from(format!("state/word-count-{index}"))) {
                Err(Error::State(headwater::StateError::Locked { .. })) => {}
                started => return started,
            }
        }
        Err(Error::Configuration("no unlocked state directory was found".to_owned()))
    }

    /// Stops the second member for a while, if there are several.
    pub(crate) fn play(&mut self) -> Result<()> {
        if self.running.len() < 2 {
            return Ok(());
        }
        let act = self.started.elapsed().as_millis() / ACT.as_millis();
        let away = act % 2 == 1;
        let Some(second) = self.running.get_mut(1) else { return Ok(()) };
        match (second.take(), away) {
            (Some(member), true) => {
                self.processed_before += member.figures().processed;
                member.shutdown(DRAIN)
            }
            (None, false) => {
                let member = self.start_numbered(1)?;
                self.running[1] = Some(member);
                Ok(())
            }
            (member, _) => {
                self.running[1] = member;
                Ok(())
            }
        }
    }

    /// Fails if a member has.
    pub(crate) fn check(&self) -> Result<()> {
        let failed = self.running.iter().flatten().find(|member| member.state() == StreamsState::Error);
        failed.map_or(Ok(()), |_| Err(Error::Engine("a member has failed: see the log".to_owned())))
    }

    /// Records processed by all members.
    pub(crate) fn processed(&self) -> u64 {
        self.running.iter().flatten().map(|member| member.figures().processed).sum::<u64>() + self.processed_before
    }

    /// Who runs what.
    pub(crate) fn describe(&self, separator: &str) -> String {
        let members = self.running.iter().zip(1..).map(|(member, number)| {
            let name = match self.home {
                Some(_) => format!("member {number}"),
                None => format!("process {}", std::process::id()),
            };
            let Some(member) = member else { return format!("{name}: stopped") };
            let tasks = member.tasks();
            let names: Vec<_> = tasks.keys().map(ToString::to_string).collect();
            format!("{name}: {} tasks ({})", tasks.len(), names.join(" "))
        });
        members.collect::<Vec<_>>().join(separator)
    }

    /// Commits and stops all.
    pub(crate) fn shutdown(self) -> Result<()> {
        let home = self.home;
        // All at once: one after the other would hand tasks from the one to the next.
        let stopping: Vec<_> = self
            .running
            .into_iter()
            .flatten()
            .map(|member| std::thread::spawn(move || member.shutdown(DRAIN)))
            .collect();
        let ended = stopping.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::Engine("a member panicked while it stopped".to_owned())))
        });
        let ended = ended.collect();
        if let Some(home) = home {
            // Nothing in it is of use to anybody: what cannot be removed is left to the system.
            let _ = std::fs::remove_dir_all(home);
        }
        ended
    }
}

/// Becomes true when SIGTERM or ctrl-c comes.
pub(crate) fn signalled() -> Arc<AtomicBool> {
    let signalled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&signalled);
    std::thread::spawn(move || {
        if let Err(error) = headwater::wait_for_signal() {
            eprintln!("signals cannot be heard: {error}");
        }
        told.store(true, Ordering::SeqCst);
    });
    signalled
}
