//! A line to the coordinator on which requests and answers are late, lost or stray.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::{Dice, GROUP, REBALANCE_MS, Shared};
use crate::broker::{Broker, Coordinator, GroupAnswer, GroupError, GroupRequest, Ticket};
use crate::record::Timestamp;
use crate::wake::Waker;

/// After this time without an answer the client gives a request up, ms.
const GIVE_UP_MS: i64 = 400;

type Answer = Result<GroupAnswer, GroupError>;

pub(super) struct Wire {
    line: Box<dyn Coordinator>,
    shared: Shared,
    now: Timestamp,
    tickets: u64,
    /// On their way to the coordinator.
    outbound: Vec<(Timestamp, Ticket, GroupRequest)>,
    /// At the coordinator, by its ticket.
    parked: BTreeMap<Ticket, Ticket>,
    /// On their way back.
    inbound: Vec<(Timestamp, Ticket, Answer)>,
    /// Sent and not answered: when the client gives up.
    open: BTreeMap<Ticket, Timestamp>,
}

impl Wire {
    pub(super) fn new(shared: &Shared, now: Timestamp) -> Self {
        Self {
            line: shared.broker.coordinator(GROUP, Waker::new()).unwrap(),
            shared: shared.clone(),
            now,
            tickets: 0,
            outbound: Vec::new(),
            parked: BTreeMap::new(),
            inbound: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    /// How long something is on its way; `None`: it gets lost.
    fn delay(&self) -> Option<i64> {
        let dice: &Dice = &self.shared.dice;
        if !self.shared.rough.load(Ordering::Relaxed) {
            return Some(dice.ms(3));
        }
        match dice.roll(100) {
            0..2 => None,
            // Longer than the client waits: it takes effect as a stray, after later requests.
            2..8 => Some(dice.ms(5000)),
            _ => Some(dice.ms(6)),
        }
    }

    /// Moves on what is due. Also done for the dead: what they have sent arrives.
    pub(super) fn pump(&mut self, now: Timestamp) {
        self.now = now;
        self.outbound.sort_by_key(|(at, ticket, _)| (*at, *ticket));
        while self.outbound.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, ticket, request) = self.outbound.remove(0);
            let theirs = self.line.request(request);
            self.parked.insert(theirs, ticket);
        }
        while let Some((theirs, answer)) = self.line.answer() {
            if let (Some(ticket), Some(delay)) = (self.parked.remove(&theirs), self.delay()) {
                self.inbound.push((now + delay, ticket, answer));
            }
        }
    }

    /// When something moves next.
    pub(super) fn due(&self) -> Timestamp {
        let outbound = self.outbound.iter().map(|(at, ..)| *at);
        let inbound = self.inbound.iter().map(|(at, ..)| *at);
        outbound.chain(inbound).chain(self.open.values().copied()).min().unwrap_or(Timestamp::MAX)
    }

    /// The part of it that matters to a process that is gone.
    pub(super) fn due_outbound(&self) -> Timestamp {
        self.outbound.iter().map(|(at, ..)| *at).min().unwrap_or(Timestamp::MAX)
    }
}

impl Coordinator for Wire {
    fn request(&mut self, request: GroupRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let patience = match request {
            GroupRequest::Join { .. } | GroupRequest::Sync { .. } => REBALANCE_MS + GIVE_UP_MS,
            _ => GIVE_UP_MS,
        };
        self.open.insert(ticket, self.now + patience);
        if let Some(delay) = self.delay() {
            self.outbound.push((self.now + delay, ticket, request));
        }
        ticket
    }

    fn answer(&mut self) -> Option<(Ticket, Answer)> {
        self.inbound.sort_by_key(|(at, ticket, _)| (*at, *ticket));
        while self.inbound.first().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, ticket, answer) = self.inbound.remove(0);
            if self.open.remove(&ticket).is_some() {
                return Some((ticket, answer));
            }
        }
        let given_up = self.open.iter().find(|(_, at)| **at <= self.now).map(|(ticket, _)| *ticket)?;
        self.open.remove(&given_up);
        Some((given_up, Err(GroupError::Unavailable("given up".to_owned()))))
    }
}
