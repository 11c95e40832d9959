//! A thread with one connection to a group's coordinator, which makes the calls it is given one after the other.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;

use super::protocol::{self, Membership, Verdict};
use super::wire::{Connection, Versions};
use crate::broker::{BrokerError, ErrorClass, GroupAnswer, GroupError, GroupRequest, Ticket};
use crate::wake::Waker;

/// Pauses between attempts: doubled from the first up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Longest wait for one broker while the coordinator is looked for: the next address may be alive.
const LOOKUP: Duration = Duration::from_secs(3);

const FIND_COORDINATOR: Versions = Versions { floor: 4, ceiling: 4 };
const JOIN_GROUP: Versions = Versions { floor: 9, ceiling: 9 };
const SYNC_GROUP: Versions = Versions { floor: 5, ceiling: 5 };
const HEARTBEAT: Versions = Versions { floor: 4, ceiling: 4 };
const LEAVE_GROUP: Versions = Versions { floor: 4, ceiling: 5 };
const OFFSET_COMMIT: Versions = Versions { floor: 8, ceiling: 9 };
const OFFSET_FETCH: Versions = Versions { floor: 8, ceiling: 9 };

/// Where the answers of one coordinator handle go.
#[derive(Debug)]
pub(super) struct Answers {
    queue: Mutex<VecDeque<(Ticket, Result<GroupAnswer, GroupError>)>>,
    waker: Waker,
}

impl Answers {
    pub(super) fn new(waker: Waker) -> Self {
        Self { queue: Mutex::default(), waker }
    }

    pub(super) fn put(&self, ticket: Ticket, answer: Result<GroupAnswer, GroupError>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((ticket, answer));
        self.waker.wake();
    }

    pub(super) fn take(&self) -> Option<(Ticket, Result<GroupAnswer, GroupError>)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A request under way.
pub(super) struct Job {
    pub(super) request: GroupRequest,
    pub(super) deadline: Instant,
    pub(super) ticket: Ticket,
    pub(super) answers: Arc<Answers>,
}

/// How a group is reached.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) group: String,
    pub(super) client_id: String,
    pub(super) bootstrap: Vec<String>,
}

/// The lane's end that takes requests. Dropping it ends the thread, also out of a parked JoinGroup.
#[derive(Debug)]
pub(super) struct Lane {
    jobs: Sender<Job>,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    stopped: AtomicBool,
    socket: Mutex<Option<TcpStream>>,
}

impl Lane {
    pub(super) fn spawn(name: &str, route: Route) -> Result<Self, BrokerError> {
        let (jobs, received) = mpsc::channel();
        let control = Arc::new(Control::default());
        let mut driver = Driver { route, control: Arc::clone(&control), connection: None };
        std::thread::Builder::new().name(format!("headwater-{name}")).spawn(move || driver.serve(&received)).map_err(
            |error| BrokerError::new(ErrorClass::Fatal, format!("no thread for the group connection: {error}")),
        )?;
        Ok(Self { jobs, control })
    }

    pub(super) fn send(&self, job: Job) {
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            let ended = GroupError::Unavailable("the group connection has ended".into());
            job.answers.put(job.ticket, Err(ended));
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.control.stopped.store(true, Ordering::Release);
        if let Some(socket) = &*self.control.socket.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may be closed already; then there is nothing to interrupt.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The thread's side.
struct Driver {
    route: Route,
    control: Arc<Control>,
    // To the coordinator, as far as known.
    connection: Option<Connection>,
}

impl Driver {
    fn serve(&mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let answer = self.perform(&job.request, job.deadline);
            job.answers.put(job.ticket, answer);
        }
    }

    /// Makes a request until it is answered, refused or out of time. It is safe to repeat each of them where the
    /// connection broke and the outcome is unknown: all but Join and Leave change nothing the second time under the
    /// same lease; a repeated Join of a member rejoins it, one without a member id only reserves a name, and a
    /// member that is gone has left.
    fn perform(&mut self, request: &GroupRequest, deadline: Instant) -> Result<GroupAnswer, GroupError> {
        let mut pause = BACKOFF.0;
        let mut sent_before = false;
        loop {
            let cause = match self.attempt(request, deadline, &mut sent_before) {
                Ok(Verdict::Done(answer)) => return Ok(answer),
                Ok(Verdict::Refused(GroupError::UnknownMember))
                    if sent_before && matches!(request, GroupRequest::Leave { .. }) =>
                {
                    return Ok(GroupAnswer::Done);
                }
                Ok(Verdict::Refused(error)) => return Err(error),
                Ok(Verdict::Later(code)) => {
                    // 14: the right broker, still loading. 15 and 16: perhaps another one by now.
                    if code != 14 {
                        self.disconnect();
                    }
                    format!("code {code}")
                }
                Err(error) => {
                    self.disconnect();
                    if matches!(
                        error.kind(),
                        ErrorKind::Unsupported | ErrorKind::InvalidInput | ErrorKind::PermissionDenied
                    ) {
                        return Err(match error.kind() {
                            ErrorKind::PermissionDenied => GroupError::NotAuthorised,
                            _ => GroupError::Unavailable(error.to_string()),
                        });
                    }
                    error.to_string()
                }
            };
            if self.control.stopped.load(Ordering::Acquire) || Instant::now() + pause >= deadline {
                return Err(GroupError::Unavailable(format!("{cause}, group {:?}", self.route.group)));
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(BACKOFF.1);
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
        *self.control.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One attempt; `sent_before` is set once the request may have reached the coordinator.
    fn attempt(&mut self, request: &GroupRequest, deadline: Instant, sent_before: &mut bool) -> io::Result<Verdict> {
        let group = self.route.group.clone();
        let connection = self.connect(deadline)?;
        let repeated = std::mem::replace(sent_before, true);
        let verdict = match request {
            GroupRequest::Join {
                member_id,
                instance_id,
                session_timeout_ms,
                rebalance_timeout_ms,
                topics,
                user_data,
            } => {
                let member = Membership {
                    member_id,
                    instance_id: instance_id.as_deref(),
                    session_timeout_ms: *session_timeout_ms,
                    rebalance_timeout_ms: *rebalance_timeout_ms,
                    topics,
                    user_data,
                };
                match protocol::join(&group, member) {
                    Ok(request) => protocol::joined(&connection.call(&request, JOIN_GROUP, deadline)?),
                    Err(error) => Verdict::Refused(error),
                }
            }
            GroupRequest::Sync { lease, assignments } => match protocol::sync(&group, lease, assignments) {
                Ok(request) => protocol::synced(&connection.call(&request, SYNC_GROUP, deadline)?),
                Err(error) => Verdict::Refused(error),
            },
            GroupRequest::Heartbeat { lease } => {
                protocol::alive(&connection.call(&protocol::heartbeat(&group, lease), HEARTBEAT, deadline)?)
            }
            GroupRequest::Leave { member_id, instance_id } => {
                let request = protocol::leave(&group, member_id, instance_id.as_deref());
                protocol::left(&connection.call(&request, LEAVE_GROUP, deadline)?)
            }
            GroupRequest::CommitOffsets { lease, offsets } => protocol::committed(&connection.call(
                &protocol::commit(&group, lease, offsets),
                OFFSET_COMMIT,
                deadline,
            )?),
            GroupRequest::FetchOffsets { partitions } => {
                let answer = connection.call(&protocol::fetch(&group, partitions), OFFSET_FETCH, deadline)?;
                protocol::fetched(&answer, partitions)
            }
        };
        *sent_before = repeated;
        Ok(verdict)
    }

    /// The connection to the coordinator, found and opened if there is none.
    fn connect(&mut self, deadline: Instant) -> io::Result<&mut Connection> {
        if self.connection.is_none() {
            let connection = self.find(deadline)?;
            *self.control.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.handle()?);
            // The owner may have looked for a socket to shut down just before there was one.
            if self.control.stopped.load(Ordering::Acquire) {
                return Err(io::Error::new(ErrorKind::Interrupted, "the group connection is being closed"));
            }
            self.connection = Some(connection);
        }
        self.connection
            .as_mut()
            .ok_or_else(|| io::Error::new(ErrorKind::NotConnected, "no connection to the coordinator"))
    }

    /// Asks the bootstrap brokers in turn where the coordinator is, and connects to it.
    fn find(&self, deadline: Instant) -> io::Result<Connection> {
        let mut last = io::Error::new(ErrorKind::NotFound, "no bootstrap address");
        for address in &self.route.bootstrap {
            let until = deadline.min(Instant::now() + LOOKUP);
            match self.ask(address, until) {
                Ok(coordinator) => {
                    return Connection::open(&coordinator, &self.route.client_id, deadline)
                        .map_err(|error| io::Error::new(error.kind(), format!("coordinator {coordinator}: {error}")));
                }
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                    return Err(error);
                }
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(last)
    }

    fn ask(&self, address: &str, deadline: Instant) -> io::Result<String> {
        let mut connection = Connection::open(address, &self.route.client_id, deadline)?;
        let request = FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_coordinator_keys(vec![StrBytes::from_string(self.route.group.clone())]);
        let answer = connection.call(&request, FIND_COORDINATOR, deadline)?;
        let found = answer
            .coordinators
            .first()
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an answer without coordinator"))?;
        match found.error_code {
            0 => Ok(format!("{}:{}", bracketed(&found.host), found.port)),
            30 => Err(io::Error::new(ErrorKind::PermissionDenied, "not authorised to find the coordinator (30)")),
            code => Err(io::Error::other(format!("the coordinator is not known yet (code {code})"))),
        }
    }
}

/// A host in the form that goes before a port: IPv6 addresses in brackets.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::broker::Lease;

    fn lane(address: &str) -> (Lane, Arc<Answers>, Waker) {
        let waker = Waker::new();
        let route = Route { group: "orders".into(), client_id: "test".into(), bootstrap: vec![address.into()] };
        let answers = Arc::new(Answers::new(waker.clone()));
        (Lane::spawn("test", route).unwrap(), answers, waker)
    }

    fn heartbeat(answers: &Arc<Answers>, deadline: Duration) -> Job {
        Job {
            request: GroupRequest::Heartbeat {
                lease: Lease { member_id: "m".into(), generation: 1, instance_id: None },
            },
            deadline: Instant::now() + deadline,
            ticket: Ticket(3),
            answers: Arc::clone(answers),
        }
    }

    fn answer(answers: &Answers, waker: &Waker) -> GroupError {
        loop {
            if let Some((ticket, answer)) = answers.take() {
                assert_eq!(ticket, Ticket(3));
                return answer.unwrap_err();
            }
            assert!(waker.wait(Duration::from_secs(60)), "no answer");
        }
    }

    #[test]
    fn a_call_ends_at_its_deadline_where_nobody_answers() {
        // It accepts connections (the kernel does) and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (lane, answers, waker) = lane(&silent.local_addr().unwrap().to_string());
        lane.send(heartbeat(&answers, Duration::from_millis(200)));
        let error = answer(&answers, &waker);
        assert!(matches!(&error, GroupError::Unavailable(text) if text.contains("\"orders\"")), "{error:?}");
    }

    #[test]
    fn a_dropped_lane_gives_up_its_call() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap().to_string();
        drop(closed);
        let (lane, answers, waker) = lane(&address);
        lane.send(heartbeat(&answers, Duration::from_secs(3600)));
        drop(lane);
        assert!(matches!(answer(&answers, &waker), GroupError::Unavailable(_)));
    }

    #[test]
    fn an_ipv6_host_is_put_in_brackets() {
        assert_eq!(bracketed("::1"), "[::1]");
        assert_eq!(bracketed("kafka-0.kafka"), "kafka-0.kafka");
    }
}
