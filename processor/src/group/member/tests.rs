use super::*;
use crate::broker::{GroupAnswer, Joined, MemberMetadata};
use crate::group::SubtopologyTasks;
use crate::group::user_data::AssignedTasks;

const SESSION_MS: i64 = 900;
const HEARTBEAT_MS: i64 = 300;
const FINGERPRINT: u64 = 77;

/// Plays the coordinator: what was asked is looked at, what is answered is written down by the test.
#[derive(Default)]
struct Script {
    asked: VecDeque<(Ticket, GroupRequest)>,
    answers: VecDeque<(Ticket, Result<GroupAnswer, GroupError>)>,
    tickets: u64,
}

impl Coordinator for Script {
    fn request(&mut self, request: GroupRequest) -> Ticket {
        self.tickets += 1;
        self.asked.push_back((Ticket(self.tickets), request));
        Ticket(self.tickets)
    }

    fn answer(&mut self) -> Option<(Ticket, Result<GroupAnswer, GroupError>)> {
        self.answers.pop_front()
    }
}

/// A member, its script and the time.
struct Scene {
    member: Member,
    script: Script,
    now: Timestamp,
}

fn settings(instance_id: Option<&str>) -> MemberSettings {
    MemberSettings {
        session_timeout_ms: i32::try_from(SESSION_MS).unwrap(),
        heartbeat_interval_ms: i32::try_from(HEARTBEAT_MS).unwrap(),
        rebalance_timeout_ms: 5000,
        instance_id: instance_id.map(str::to_owned),
        capacity: 1,
        process_id: "process".to_owned(),
    }
}

fn plan() -> Arc<TaskPlan> {
    Arc::new(TaskPlan {
        subtopologies: vec![SubtopologyTasks {
            topics: vec!["orders".into(), "customers".into()],
            partitions: 4,
            stateful: true,
        }],
        fingerprint: FINGERPRINT,
    })
}

fn tasks(partitions: &[i32]) -> BTreeSet<TaskId> {
    let task = |&partition| TaskId { subtopology: 0, partition };
    partitions.iter().map(task).collect()
}

fn assigned(partitions: &[i32], follow_up: bool) -> Result<GroupAnswer, GroupError> {
    let data = AssignedTasks { fingerprint: FINGERPRINT, tasks: tasks(partitions), follow_up };
    Ok(GroupAnswer::Synced(data.encode()))
}

fn joined(generation: i32) -> Result<GroupAnswer, GroupError> {
    Ok(GroupAnswer::Joined(Joined {
        generation,
        member_id: "me".to_owned(),
        leader_id: "leader".to_owned(),
        members: Vec::new(),
        skip_assignment: false,
    }))
}

/// What a JoinGroup said: member id and user data.
type Join = (String, Subscription);

impl Scene {
    fn new(instance_id: Option<&str>) -> Self {
        Self { member: Member::new(settings(instance_id), plan()), script: Script::default(), now: 1_000_000 }
    }

    /// A member that was granted these tasks in generation 5, with nothing on the way.
    fn granted(partitions: &[i32]) -> Self {
        let mut scene = Self::new(None);
        scene.join();
        scene.answer(Err(GroupError::MemberIdRequired("me".to_owned())));
        scene.join();
        scene.answer(joined(5));
        scene.sync();
        scene.answer(assigned(partitions, false));
        scene.expect_granted(5, partitions);
        scene.member.acknowledge(&tasks(partitions));
        scene
    }

    fn step(&mut self) -> Timestamp {
        self.member.step(self.now, &mut self.script)
    }

    fn wait(&mut self, ms: i64) {
        self.now += ms;
        self.step();
    }

    /// The only request that is on the way; it stays to be answered.
    fn asked(&mut self) -> GroupRequest {
        self.step();
        let requests: Vec<_> = self.script.asked.iter().map(|(_, request)| request.clone()).collect();
        match <[GroupRequest; 1]>::try_from(requests) {
            Ok([request]) => request,
            Err(requests) => panic!("expected one request: {requests:?}"),
        }
    }

    fn answer(&mut self, answer: Result<GroupAnswer, GroupError>) {
        let (ticket, _) = self.script.asked.pop_front().expect("nothing was asked");
        self.script.answers.push_back((ticket, answer));
        self.step();
    }

    fn join(&mut self) -> Join {
        match self.asked() {
            GroupRequest::Join { member_id, user_data, topics, .. } => {
                assert_eq!(topics, ["customers", "orders"]);
                (member_id, Subscription::decode(&user_data).unwrap())
            }
            other => panic!("expected JoinGroup: {other:?}"),
        }
    }

    fn sync(&mut self) -> (Lease, Vec<MemberAssignment>) {
        match self.asked() {
            GroupRequest::Sync { lease, assignments } => (lease, assignments),
            other => panic!("expected SyncGroup: {other:?}"),
        }
    }

    /// Lets time pass until the next heartbeat is on its way; says how long it took.
    fn heartbeat(&mut self) -> i64 {
        let before = self.now;
        assert!(self.script.asked.is_empty(), "{:?}", self.script.asked);
        self.now = self.step();
        assert!(matches!(self.asked(), GroupRequest::Heartbeat { .. }));
        self.now - before
    }

    fn nothing_asked(&mut self) {
        self.step();
        assert!(self.script.asked.is_empty(), "{:?}", self.script.asked);
    }

    fn events(&mut self) -> Vec<MemberEvent> {
        self.member.events().collect()
    }

    fn expect_granted(&mut self, generation: i32, partitions: &[i32]) {
        let lease =
            Lease { member_id: "me".to_owned(), generation, instance_id: self.member.settings.instance_id.clone() };
        let granted = MemberEvent::Granted { lease, tasks: tasks(partitions) };
        let events = self.events();
        assert_eq!(events.last(), Some(&granted), "{events:?}");
    }

    fn expect_lost(&mut self) {
        let events = self.events();
        assert!(matches!(events.as_slice(), [MemberEvent::Lost { .. }]), "{events:?}");
        assert_eq!(self.member.state().phase, "lost");
    }

    fn expect_failed(&mut self, after_loss: bool, word: &str) {
        let events = self.events();
        assert_eq!(matches!(events.first(), Some(MemberEvent::Lost { .. })), after_loss, "{events:?}");
        match events.last() {
            Some(MemberEvent::Failed { reason }) => assert!(reason.contains(word), "{reason}"),
            other => panic!("expected Failed: {other:?}"),
        }
        self.wait(100_000);
        self.nothing_asked();
    }
}

mod joining;
mod losing;
mod rounds;
