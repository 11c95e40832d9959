//! Writes to the log: gathers records per partition, hands them over at `poll`, and ends transactions.

use std::sync::Arc;

use super::chunk::{Chunk, Kind, Stamp};
use super::outbound::Outbound;
use super::state::{Shared, State};
use super::transaction::{Holder, Status};
use crate::broker::{
    BrokerError, ErrorClass, GroupError, Lease, OffsetAndMetadata, OutRecord, Producer, ProducerOptions, Result,
    TopicHandle, TransactionCall,
};
use crate::record::TopicPartition;
use crate::wake::Waker;

/// Kafka's default of `transaction.max.timeout.ms`.
const MAX_TRANSACTION_TIMEOUT_MS: i64 = 900_000;

#[derive(Debug)]
struct Transactional {
    id: String,
    timeout: i64,
    holder: Holder,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Before `Init`.
    New,
    /// Between transactions.
    Ready,
    /// In one.
    Open,
    /// In one that can only be aborted.
    Failed(BrokerError),
    /// For good.
    Fenced(BrokerError),
}

#[derive(Debug)]
pub(super) struct EmbeddedProducer {
    shared: Arc<Shared>,
    waker: Waker,
    producer_id: i64,
    transactional: Option<Transactional>,
    outbound: Outbound,
    failure: Option<BrokerError>,
    call: Option<TransactionCall>,
    outcome: Option<Result<()>>,
}

impl EmbeddedProducer {
    pub(super) fn new(shared: Arc<Shared>, options: &ProducerOptions, waker: Waker) -> Result<Self> {
        let timeout = i64::try_from(options.transaction_timeout.as_millis()).unwrap_or(i64::MAX);
        if options.transactional_id.is_some() && !(1..=MAX_TRANSACTION_TIMEOUT_MS).contains(&timeout) {
            return Err(BrokerError::new(
                ErrorClass::Configuration,
                format!("transaction timeout {timeout} ms: 1 to {MAX_TRANSACTION_TIMEOUT_MS} ms are accepted"),
            ));
        }
        let producer_id = match options.transactional_id {
            Some(_) => -1,
            None => shared.lock().transactions.producer_id(),
        };
        Ok(Self {
            shared,
            waker,
            producer_id,
            transactional: options.transactional_id.clone().map(|id| Transactional {
                id,
                timeout,
                holder: Holder { producer_id: -1, epoch: -1 },
                phase: Phase::New,
            }),
            outbound: Outbound::default(),
            failure: None,
            call: None,
            outcome: None,
        })
    }

    /// Why nothing may be sent now.
    fn check_phase(&self) -> Result<()> {
        match self.transactional.as_ref().map(|own| &own.phase) {
            None | Some(Phase::Open) => Ok(()),
            Some(Phase::Fenced(error) | Phase::Failed(error)) => Err(error.clone()),
            Some(Phase::New | Phase::Ready) => Err(wrong_order("send", "no transaction is open")),
        }
    }

    /// Hands over what is gathered. False: the transaction before has still to end, and everything stays.
    fn hand_over(&mut self) -> bool {
        if self.outbound.is_empty() {
            return true;
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if let Some(own) = &mut self.transactional {
            match state.transactions.status(&own.id, own.holder) {
                Ok(Status::Ending { .. }) => return false,
                Ok(Status::Idle | Status::Ongoing { .. }) => {}
                Err(error) => {
                    own.phase = Phase::Fenced(error.clone());
                    self.failure.get_or_insert(error);
                    drop(state);
                    self.outbound.discard();
                    return true;
                }
            }
        }
        while let Some(parcel) = self.outbound.take() {
            match write(&mut state, self.producer_id, self.transactional.as_ref(), &parcel.at, parcel.chunk) {
                Ok(end) => self.outbound.taken(parcel.place, end),
                Err(error) => {
                    if let Some(own) = &mut self.transactional {
                        own.phase = Phase::Failed(BrokerError::new(
                            ErrorClass::Abortable,
                            format!("the transaction lost a record: {error}"),
                        ));
                    }
                    self.failure.get_or_insert(error);
                }
            }
        }
        true
    }

    /// Makes a transactional call. `None`: it has to wait for the end of a transaction before.
    fn run(&mut self, call: &TransactionCall) -> Option<Result<()>> {
        let result = match call {
            TransactionCall::Init => self.init()?,
            TransactionCall::Begin => self.begin(),
            TransactionCall::SendOffsets { group, lease, offsets } => self.send_offsets(group, lease, offsets)?,
            TransactionCall::Commit => self.commit()?,
            TransactionCall::Abort => self.abort(),
        };
        if let (Err(error), Some(own)) = (&result, &mut self.transactional) {
            match error.class {
                ErrorClass::Fenced => own.phase = Phase::Fenced(error.clone()),
                ErrorClass::Abortable | ErrorClass::LeaseVoid => own.phase = Phase::Failed(error.clone()),
                _ => {}
            }
        }
        Some(result)
    }

    fn init(&mut self) -> Option<Result<()>> {
        let Some(own) = &mut self.transactional else {
            return Some(Err(not_transactional()));
        };
        if let Phase::Fenced(error) = &own.phase {
            return Some(Err(error.clone()));
        }
        let holder = self.shared.lock().init_transactions(&own.id, own.timeout, &self.waker)?;
        own.holder = holder;
        own.phase = Phase::Ready;
        self.producer_id = holder.producer_id;
        self.outbound.discard();
        Some(Ok(()))
    }

    fn begin(&mut self) -> Result<()> {
        let own = self.transactional.as_mut().ok_or_else(not_transactional)?;
        match &own.phase {
            Phase::Ready => {
                // The client of a real cluster would notice a fencing at the first record only.
                self.shared.lock().transactions.status(&own.id, own.holder)?;
                own.phase = Phase::Open;
                Ok(())
            }
            Phase::Fenced(error) => Err(error.clone()),
            Phase::New => Err(wrong_order("Begin", "Init has not been called")),
            Phase::Open | Phase::Failed(_) => Err(wrong_order("Begin", "a transaction is open")),
        }
    }

    fn send_offsets(
        &mut self,
        group: &str,
        lease: &Lease,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Option<Result<()>> {
        let own = match self.in_transaction("SendOffsets") {
            Ok(own) => own,
            Err(error) => return Some(Err(error)),
        };
        let (id, holder) = (own.id.clone(), own.holder);
        let mut state = self.shared.lock();
        match state.transactions.status(&id, holder) {
            Ok(Status::Ending { .. }) => return None,
            Ok(Status::Idle | Status::Ongoing { .. }) => {}
            Err(error) => return Some(Err(error)),
        }
        if let Err(error) = state.add_group(&id, holder, group) {
            return Some(Err(error));
        }
        if let Err(error) = state.check_commit(group, lease, true) {
            return Some(Err(void_lease(group, lease, &error)));
        }
        state.group(group).offsets.hold(holder.producer_id, offsets.to_vec());
        Some(Ok(()))
    }

    fn commit(&mut self) -> Option<Result<()>> {
        if let Err(error) = self.in_transaction("Commit") {
            return Some(Err(error));
        }
        if !self.hand_over() {
            return None;
        }
        // Handing over may have shown that the transaction is lost.
        let ended = match self.in_transaction("Commit") {
            Ok(own) => {
                let (id, holder) = (&own.id, own.holder);
                self.shared.lock().end_held_transaction(id, holder, true)
            }
            Err(error) => Err(error),
        };
        self.outbound.settle();
        Some(ended.map(|()| self.enter(Phase::Ready)))
    }

    fn abort(&mut self) -> Result<()> {
        let own = self.transactional.as_ref().ok_or_else(not_transactional)?;
        match &own.phase {
            Phase::Open | Phase::Failed(_) => {}
            Phase::Fenced(error) => return Err(error.clone()),
            Phase::New | Phase::Ready => return Err(wrong_order("Abort", "no transaction is open")),
        }
        self.shared.lock().end_held_transaction(&own.id, own.holder, false)?;
        self.outbound.discard();
        self.outbound.settle();
        self.failure = None;
        self.enter(Phase::Ready);
        Ok(())
    }

    fn in_transaction(&self, call: &str) -> Result<&Transactional> {
        let own = self.transactional.as_ref().ok_or_else(not_transactional)?;
        match &own.phase {
            Phase::Open => Ok(own),
            Phase::Fenced(error) | Phase::Failed(error) => Err(error.clone()),
            Phase::New | Phase::Ready => Err(wrong_order(call, "no transaction is open")),
        }
    }

    fn enter(&mut self, phase: Phase) {
        if let Some(own) = &mut self.transactional {
            own.phase = phase;
        }
    }
}

impl Producer for EmbeddedProducer {
    fn topic(&mut self, name: &str) -> Result<TopicHandle> {
        self.outbound.topic(&self.shared, name)
    }

    fn send(&mut self, topic: TopicHandle, partition: i32, record: &OutRecord<'_>) -> Result<()> {
        self.check_phase()?;
        let full = self.outbound.push(&self.shared, topic, partition, record)?;
        if self.outbound.backlog() == 1 {
            // There is an acknowledgement to be had.
            self.waker.wake();
        }
        if full {
            self.hand_over();
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<()> {
        self.hand_over();
        self.outbound.settle();
        match (self.failure.take(), &self.transactional) {
            (Some(error), _) => Err(error),
            // Told again and again: this producer is of no more use.
            (None, Some(Transactional { phase: Phase::Fenced(error), .. })) => Err(error.clone()),
            (None, _) => Ok(()),
        }
    }

    fn backlog(&self) -> usize {
        self.outbound.backlog()
    }

    fn acknowledged(&self, topic: TopicHandle, partition: i32) -> Option<i64> {
        self.outbound.acknowledged(topic, partition)
    }

    fn start(&mut self, call: TransactionCall) {
        if self.call.is_some() {
            self.outcome = Some(Err(wrong_order("start", "another transactional call is under way")));
        } else if let Some(result) = self.run(&call) {
            self.outcome = Some(result);
        } else {
            self.call = Some(call);
            return;
        }
        self.waker.wake();
    }

    fn outcome(&mut self) -> Option<Result<()>> {
        if self.outcome.is_none()
            && let Some(call) = self.call.take()
        {
            self.outcome = self.run(&call);
            if self.outcome.is_none() {
                self.call = Some(call);
            }
        }
        self.outcome.take()
    }

    fn tainted(&self) -> bool {
        // Calls take effect inside `start`: none is ever on its way.
        false
    }
}

/// Writes one partition's records, in the transaction if there is one.
fn write(
    state: &mut State,
    producer_id: i64,
    transactional: Option<&Transactional>,
    at: &TopicPartition,
    chunk: Chunk,
) -> Result<i64> {
    // Before the transaction learns of it: a partition that is not there gets no marker.
    state.partition(at)?;
    let stamp = match transactional {
        None => Stamp { producer_id, epoch: 0, kind: Kind::Plain },
        Some(own) => {
            state.add_partition(&own.id, own.holder, at.clone())?;
            Stamp { producer_id, epoch: own.holder.epoch, kind: Kind::Transactional }
        }
    };
    state.append(at, chunk, stamp)
}

/// The group does not accept offsets under this lease: the transaction can only be aborted.
fn void_lease(group: &str, lease: &Lease, error: &GroupError) -> BrokerError {
    BrokerError::new(
        ErrorClass::LeaseVoid,
        format!(
            "group {group:?} refuses offsets of member {:?} in generation {}: {error}",
            lease.member_id, lease.generation
        ),
    )
}

fn not_transactional() -> BrokerError {
    BrokerError::new(ErrorClass::Configuration, "a transactional call needs a producer with a transactional id")
}

fn wrong_order(call: &str, why: &str) -> BrokerError {
    BrokerError::new(ErrorClass::Fatal, format!("{call} is out of order: {why}"))
}
