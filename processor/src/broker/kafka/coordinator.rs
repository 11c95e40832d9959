//! The group connection of a process: one per group, shared by everybody who asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lane::{Answers, Job, Lane, Route};
use crate::broker::{BrokerError, Coordinator, GroupAnswer, GroupError, GroupRequest, Ticket};
use crate::wake::Waker;

/// Two connections to a group's coordinator. The broker parks JoinGroup and SyncGroup until all members have come,
/// and a connection is answered in order, so they have one of their own.
#[derive(Debug)]
pub(super) struct GroupClient {
    parked: Lane,
    fast: Lane,
    request_timeout: Duration,
    // Of the last join, ms: as long may a SyncGroup be parked.
    rebalance_timeout: AtomicU64,
}

impl GroupClient {
    pub(super) fn new(route: Route, request_timeout: Duration) -> Result<Self, BrokerError> {
        Ok(Self {
            parked: Lane::spawn("join", route.clone())?,
            fast: Lane::spawn("group", route)?,
            request_timeout,
            rebalance_timeout: AtomicU64::new(0),
        })
    }

    fn send(&self, request: GroupRequest, ticket: Ticket, answers: &Arc<Answers>) {
        let (lane, parked) = match &request {
            GroupRequest::Join { rebalance_timeout_ms, .. } => {
                let parked = u64::try_from(*rebalance_timeout_ms).unwrap_or(0);
                self.rebalance_timeout.store(parked, Ordering::Relaxed);
                (&self.parked, parked)
            }
            GroupRequest::Sync { .. } => (&self.parked, self.rebalance_timeout.load(Ordering::Relaxed)),
            _ => (&self.fast, 0),
        };
        lane.send(Job {
            request,
            deadline: Instant::now() + self.request_timeout + Duration::from_millis(parked),
            ticket,
            answers: Arc::clone(answers),
        });
    }
}

/// One user of a group connection.
pub(super) struct KafkaCoordinator {
    group: Arc<GroupClient>,
    answers: Arc<Answers>,
    next: u64,
}

impl KafkaCoordinator {
    pub(super) fn new(group: Arc<GroupClient>, waker: Waker) -> Self {
        Self { group, answers: Arc::new(Answers::new(waker)), next: 0 }
    }
}

impl Coordinator for KafkaCoordinator {
    fn request(&mut self, request: GroupRequest) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.group.send(request, ticket, &self.answers);
        ticket
    }

    fn answer(&mut self) -> Option<(Ticket, Result<GroupAnswer, GroupError>)> {
        self.answers.take()
    }
}
