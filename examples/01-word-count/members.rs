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
pub struct Members {
    topology: Topology,
    config: StreamsConfig,
    broker: Arc<dyn Broker>,
    running: Vec<Option<KafkaStreams>>,
    processed_before: u64,
    started: Instant,
}

impl Members {
    pub fn start(
        topology: &Topology,
        config: StreamsConfig,
        broker: &Arc<dyn Broker>,
        count: usize,
        state_dir: Option<&Path>,
    ) -> Result<Self> {
        let mut members = Self {
            topology: topology.clone(),
            // Members of one process would have to share a state directory on disk.
            config: if count > 1 { config.store(StoreKind::Memory) } else { config },
            broker: Arc::clone(broker),
            running: Vec::new(),
            processed_before: 0,
            started: Instant::now(),
        };
        for index in 0..count {
            let started = match (count, state_dir) {
                (1, Some(directory)) => members.start_in(directory.to_owned())?,
                (1, None) => members.start_in_first_unlocked()?,
                _ => members.start_one(index)?,
            };
            members.running.push(Some(started));
        }
        Ok(members)
    }

    fn start_in(&self, directory: PathBuf) -> Result<KafkaStreams> {
        let config = self.config.clone().state_dir(directory);
        KafkaStreams::start_on(&self.topology, config, Arc::clone(&self.broker))
    }

    /// A member beside others in this process: its state, all in memory, needs only a directory for its identity.
    fn start_one(&self, index: usize) -> Result<KafkaStreams> {
        let directory = std::env::temp_dir().join(format!("headwater-word-count-{}-{index}", std::process::id()));
        self.start_in(directory)
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
    pub fn play(&mut self) -> Result<()> {
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
                let member = self.start_one(1)?;
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
    pub fn check(&self) -> Result<()> {
        let failed = self.running.iter().flatten().find(|member| member.state() == StreamsState::Error);
        failed.map_or(Ok(()), |_| Err(Error::Engine("a member has failed: see the log".to_owned())))
    }

    /// Records processed by all members.
    pub fn processed(&self) -> u64 {
        self.running.iter().flatten().map(|member| member.figures().processed).sum::<u64>() + self.processed_before
    }

    /// Who runs what.
    pub fn describe(&self, separator: &str) -> String {
        let members = self.running.iter().zip(1..).map(|(member, number)| match member {
            None => format!("member {number}: stopped"),
            Some(member) => {
                let tasks = member.tasks();
                let names: Vec<_> = tasks.keys().map(ToString::to_string).collect();
                format!("member {number}: {} tasks ({})", tasks.len(), names.join(" "))
            }
        });
        members.collect::<Vec<_>>().join(separator)
    }

    /// Commits and stops all.
    pub fn shutdown(self) -> Result<()> {
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
        ended.collect()
    }
}

/// Becomes true when SIGTERM or ctrl-c comes.
pub fn signalled() -> Result<Arc<AtomicBool>> {
    let signalled = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&signalled);
    std::thread::spawn(move || {
        if let Err(error) = headwater::wait_for_signal() {
            eprintln!("signals cannot be heard: {error}");
        }
        told.store(true, Ordering::SeqCst);
    });
    Ok(signalled)
}
