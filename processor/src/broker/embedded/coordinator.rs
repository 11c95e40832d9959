//! A client's line to a group's coordinator.

use std::sync::Arc;

use super::member::{Join, Outbox, ReturnAddress};
use super::state::{Line, Shared, State};
use crate::broker::{Coordinator, GroupAnswer, GroupError, GroupRequest, Ticket};
use crate::wake::Waker;

#[derive(Debug)]
pub(super) struct EmbeddedCoordinator {
    shared: Arc<Shared>,
    group: String,
    line: u64,
    tickets: u64,
}

impl EmbeddedCoordinator {
    pub(super) fn new(shared: Arc<Shared>, group: &str, waker: Waker) -> Self {
        let line = {
            let mut state = shared.lock();
            let line = state.fresh();
            state.lines.insert(line, Line { waker, answers: std::collections::VecDeque::new() });
            line
        };
        Self { shared, group: group.to_owned(), line, tickets: 0 }
    }
}

impl Drop for EmbeddedCoordinator {
    fn drop(&mut self) {
        // Its member stays until the session ends, as when a connection breaks.
        self.shared.lock_still().lines.remove(&self.line);
    }
}

impl Coordinator for EmbeddedCoordinator {
    fn request(&mut self, request: GroupRequest) -> Ticket {
        self.tickets = self.tickets.saturating_add(1);
        let to = ReturnAddress { line: self.line, ticket: Ticket(self.tickets) };
        let mut state = self.shared.lock();
        let mut out = Outbox::new();
        serve(&mut state, &self.group, request, to, &mut out);
        state.deliver(out);
        state.reschedule();
        to.ticket
    }

    fn answer(&mut self) -> Option<(Ticket, Result<GroupAnswer, GroupError>)> {
        self.shared.lock().lines.get_mut(&self.line)?.answers.pop_front()
    }
}

fn serve(state: &mut State, name: &str, request: GroupRequest, to: ReturnAddress, out: &mut Outbox) {
    let now = state.now;
    let number = state.fresh();
    let answer = match request {
        GroupRequest::Join { member_id, instance_id, session_timeout_ms, rebalance_timeout_ms, topics, user_data } => {
            let join = Join { member_id, instance_id, session_timeout_ms, rebalance_timeout_ms, topics, user_data };
            let fresh_id = |instance: Option<&str>| format!("{}-{number}", instance.unwrap_or("member"));
            return state.group(name).join(join, to, now, fresh_id, out);
        }
        GroupRequest::Sync { lease, assignments } => return state.group(name).sync(&lease, &assignments, to, now, out),
        GroupRequest::Heartbeat { lease } => state.group(name).heartbeat(&lease, now),
        GroupRequest::Leave { member_id, instance_id } => {
            state.group(name).leave(&member_id, instance_id.as_deref(), now, out)
        }
        GroupRequest::CommitOffsets { lease, offsets } => match state.check_commit(name, &lease, false) {
            Err(error) => Err(error),
            Ok(()) => {
                state.group(name).offsets.commit(offsets);
                Ok(GroupAnswer::Done)
            }
        },
        GroupRequest::FetchOffsets { partitions } => {
            state.group(name).offsets.stable(partitions).map(GroupAnswer::Offsets)
        }
    };
    out.push((to, answer));
}
