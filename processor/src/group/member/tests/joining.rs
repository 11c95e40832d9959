//! Into the group and out of it.

use super::*;

#[test]
fn a_newcomer_is_told_its_id_joins_and_is_granted_its_tasks() {
    let mut scene = Scene::new(None);
    let (id, said) = scene.join();
    assert_eq!((id.as_str(), said.held.len(), said.capacity), ("", 0, 1));
    assert_eq!((said.fingerprint, said.process_id.as_str()), (FINGERPRINT, "process"));
    scene.answer(Err(GroupError::MemberIdRequired("me".to_owned())));
    assert_eq!(scene.join().0, "me");
    scene.answer(joined(1));
    let (lease, assignments) = scene.sync();
    assert_eq!((lease.generation, assignments.len()), (1, 0));
    assert_eq!(scene.events(), [], "without a lease there is nothing to hold");
    scene.answer(assigned(&[0, 2], false));
    scene.expect_granted(1, &[0, 2]);
    let state = scene.member.state();
    assert_eq!((state.phase, state.generation, state.leads), ("stable", Some(1), false));
    assert_eq!(scene.heartbeat(), HEARTBEAT_MS);
    scene.answer(Ok(GroupAnswer::Done));
    assert_eq!(scene.heartbeat(), HEARTBEAT_MS);
}

#[test]
fn the_leader_brings_an_assignment_for_everybody() {
    let mut scene = Scene::new(None);
    let (_, mine) = scene.join();
    let mut other = mine.clone();
    other.held = tasks(&[1]);
    let member =
        |id: &str, data: Vec<u8>| MemberMetadata { member_id: id.to_owned(), instance_id: None, user_data: data };
    scene.answer(Ok(GroupAnswer::Joined(Joined {
        generation: 1,
        member_id: "me".to_owned(),
        leader_id: "me".to_owned(),
        members: vec![member("me", mine.encode()), member("other", other.encode()), member("odd", b"x".to_vec())],
        skip_assignment: false,
    })));
    let (_, assignments) = scene.sync();
    let ids: Vec<_> = assignments.iter().map(|assignment| assignment.member_id.as_str()).collect();
    assert_eq!(ids, ["me", "odd", "other"]);
    assert!(assignments.iter().all(|assignment| !assignment.user_data.is_empty()));
    let others = AssignedTasks::decode(&assignments[2].user_data).unwrap();
    // The member that cannot be understood may hold anything, so only what is held for certain is given.
    assert_eq!((others.tasks, others.follow_up), (tasks(&[1]), true));
    let partitions: Vec<_> = assignments[2].partitions.iter().map(ToString::to_string).collect();
    assert_eq!(partitions, ["orders-1", "customers-1"]);
    assert!(scene.member.state().leads);
}

#[test]
fn tasks_on_disk_are_asked_for() {
    let mut scene = Scene::new(None);
    scene.member = Member::new(settings(None), plan()).remembering(tasks(&[3]));
    assert_eq!(scene.join().1.previous, tasks(&[3]));
}

#[test]
fn a_coordinator_that_cannot_be_reached_is_tried_again_ever_more_slowly() {
    let mut scene = Scene::new(None);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        scene.join();
        scene.answer(Err(GroupError::Unavailable("down".to_owned())));
        let before = scene.now;
        loop {
            let next = scene.step();
            if !scene.script.asked.is_empty() {
                break;
            }
            scene.now = next;
        }
        pauses.push(scene.now - before);
    }
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
    assert_eq!(scene.events(), []);
}

#[test]
fn a_group_of_another_kind_is_refused() {
    let mut scene = Scene::new(None);
    scene.join();
    scene.answer(Err(GroupError::InconsistentProtocol));
    scene.expect_failed(false, "another protocol");

    let mut scene = Scene::new(None);
    scene.join();
    scene.answer(Ok(GroupAnswer::Joined(Joined {
        generation: 1,
        member_id: "me".to_owned(),
        leader_id: "me".to_owned(),
        members: Vec::new(),
        skip_assignment: false,
    })));
    scene.expect_failed(false, "another protocol");

    let mut scene = Scene::new(None);
    scene.join();
    scene.answer(joined(1));
    scene.sync();
    scene.answer(Ok(GroupAnswer::Synced(Vec::new())));
    scene.expect_failed(false, "another kind");
}

#[test]
fn what_cannot_get_better_is_not_tried_again() {
    for (error, word) in [
        (GroupError::InvalidSessionTimeout, "26"),
        (GroupError::NotAuthorised, "30"),
        (GroupError::GroupFull, "81"),
        (GroupError::FencedInstance, "82"),
    ] {
        let mut scene = Scene::granted(&[0]);
        scene.heartbeat();
        scene.answer(Err(error));
        scene.expect_failed(true, word);
    }
}

#[test]
fn a_code_without_a_meaning_is_borne_for_one_session() {
    let mut scene = Scene::new(None);
    let start = scene.now;
    while scene.member.state().phase == "joining" {
        scene.join();
        scene.answer(Err(GroupError::Other(-1)));
        scene.now = scene.step();
    }
    assert!(scene.now - start >= SESSION_MS);
    scene.expect_failed(false, "-1");
}

#[test]
fn leaving_waits_until_the_workers_hold_nothing() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.member.leave();
    scene.nothing_asked();
    scene.member.acknowledge(&tasks(&[1]));
    scene.nothing_asked();
    scene.member.acknowledge(&tasks(&[]));
    assert!(matches!(scene.asked(), GroupRequest::Leave { member_id, .. } if member_id == "me"));
    scene.answer(Ok(GroupAnswer::Done));
    assert_eq!(scene.events(), [MemberEvent::Left]);
    scene.wait(100_000);
    scene.nothing_asked();
    assert_eq!(scene.member.state().phase, "gone");
}

#[test]
fn leaving_ends_though_the_coordinator_does_not_answer() {
    let mut scene = Scene::granted(&[]);
    scene.member.leave();
    while scene.member.state().phase != "gone" {
        assert!(matches!(scene.asked(), GroupRequest::Leave { .. }));
        scene.answer(Err(GroupError::Unavailable("down".to_owned())));
        scene.now = scene.step();
    }
    assert_eq!(scene.events(), [MemberEvent::Left]);
}

#[test]
fn who_has_never_joined_leaves_without_a_word() {
    let mut scene = Scene::new(None);
    scene.join();
    scene.member.leave();
    scene.step();
    assert_eq!(scene.events(), [MemberEvent::Left]);
}

#[test]
fn a_static_member_joins_at_once_and_leaves_without_a_word() {
    let mut scene = Scene::new(Some("pod-1"));
    scene.join();
    scene.answer(joined(4));
    let (lease, _) = scene.sync();
    assert_eq!(lease.instance_id.as_deref(), Some("pod-1"));
    scene.answer(assigned(&[2], false));
    scene.expect_granted(4, &[2]);
    scene.member.acknowledge(&tasks(&[]));
    scene.member.leave();
    scene.nothing_asked();
    assert_eq!(scene.events(), [MemberEvent::Left]);
}

#[test]
fn a_static_leader_that_comes_back_brings_no_assignment() {
    let mut scene = Scene::new(Some("pod-1"));
    let (_, mine) = scene.join();
    scene.answer(Ok(GroupAnswer::Joined(Joined {
        generation: 4,
        member_id: "me".to_owned(),
        leader_id: "me".to_owned(),
        members: vec![MemberMetadata {
            member_id: "me".to_owned(),
            instance_id: Some("pod-1".to_owned()),
            user_data: mine.encode(),
        }],
        skip_assignment: true,
    })));
    assert_eq!(scene.sync().1, []);
    scene.answer(assigned(&[2], false));
    scene.expect_granted(4, &[2]);
    assert!(scene.member.state().leads);
}

#[test]
fn a_static_member_with_another_topology_forces_a_round_instead_of_running_foreign_tasks() {
    let mut scene = Scene::new(Some("pod-1"));
    let (_, first) = scene.join();
    scene.answer(joined(4));
    scene.sync();
    let foreign = AssignedTasks { fingerprint: 1, tasks: tasks(&[0]), follow_up: false };
    scene.answer(Ok(GroupAnswer::Synced(foreign.encode())));
    scene.expect_granted(4, &[]);
    let (_, second) = scene.join();
    assert_ne!(first.nonce, second.nonce);
    assert_eq!(second.held, tasks(&[]));
    // The leader has the other topology still: no tasks, and no further round.
    scene.answer(joined(5));
    scene.sync();
    let none = AssignedTasks { tasks: tasks(&[]), ..foreign };
    scene.answer(Ok(GroupAnswer::Synced(none.encode())));
    scene.expect_granted(5, &[]);
    scene.nothing_asked();
}
