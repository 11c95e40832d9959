//! Rounds in unbroken membership: hold, hand over, follow up.

use super::*;

#[test]
fn commits_are_held_between_join_and_sync_and_the_claim_goes_along() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    let (id, said) = scene.join();
    assert_eq!((id.as_str(), said.held), ("me", tasks(&[0, 1])));
    assert_eq!(scene.events(), [], "the old lease is good for a last commit");
    scene.wait(100 * SESSION_MS);
    assert!(matches!(scene.asked(), GroupRequest::Join { .. }), "a parked JoinGroup needs no heartbeat");
    scene.answer(joined(6));
    assert_eq!(scene.events(), [MemberEvent::Hold]);
    scene.sync();
    scene.answer(assigned(&[0, 1], false));
    scene.expect_granted(6, &[0, 1]);
    scene.nothing_asked();
}

#[test]
fn a_task_is_handed_over_in_two_rounds() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    let first = scene.join().1;
    scene.answer(joined(6));
    scene.sync();
    scene.answer(assigned(&[0], true));
    scene.expect_granted(6, &[0]);
    assert_eq!(scene.member.state().releasing, tasks(&[1]));
    scene.nothing_asked();
    // A round that comes before the release: the task is still claimed.
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    let early = scene.join().1;
    assert_eq!(early.held, tasks(&[0, 1]));
    scene.answer(joined(7));
    scene.sync();
    scene.answer(assigned(&[0], true));
    scene.expect_granted(7, &[0]);
    // Released: a round is forced, with other bytes than before.
    scene.member.acknowledge(&tasks(&[0]));
    let released = scene.join().1;
    assert_eq!(released.held, tasks(&[0]));
    assert_eq!(released.previous, tasks(&[]));
    assert!(released.nonce != early.nonce && released.nonce != first.nonce);
    scene.answer(joined(8));
    scene.sync();
    scene.answer(assigned(&[0], false));
    scene.expect_granted(8, &[0]);
    scene.nothing_asked();
}

#[test]
fn a_task_released_while_the_join_is_parked_makes_one_more_round() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.join().1.held, tasks(&[0, 1]));
    scene.answer(joined(6));
    scene.sync();
    scene.member.acknowledge(&tasks(&[0]));
    scene.answer(assigned(&[0], true));
    // The grant names what the workers have let go of already; only their word for it counts after the grant.
    scene.member.acknowledge(&tasks(&[0]));
    assert_eq!(scene.join().1.held, tasks(&[0]));
}

#[test]
fn a_follow_up_is_looked_for_quickly_and_not_for_ever() {
    let mut scene = Scene::new(None);
    scene.join();
    scene.answer(joined(1));
    scene.sync();
    scene.answer(assigned(&[], true));
    let start = scene.now;
    let mut beats = 0;
    while scene.heartbeat() == FOLLOW_UP_HEARTBEAT_MS {
        scene.answer(Ok(GroupAnswer::Done));
        beats += 1;
    }
    assert_eq!(beats, FOLLOW_UP_MS / FOLLOW_UP_HEARTBEAT_MS);
    assert_eq!(scene.now - start, FOLLOW_UP_MS + HEARTBEAT_MS);
}

#[test]
fn the_leader_forces_the_follow_up_that_does_not_come() {
    let mut scene = Scene::new(None);
    let (_, mine) = scene.join();
    scene.answer(Ok(GroupAnswer::Joined(Joined {
        generation: 1,
        member_id: "me".to_owned(),
        leader_id: "me".to_owned(),
        members: vec![MemberMetadata { member_id: "me".to_owned(), instance_id: None, user_data: mine.encode() }],
        skip_assignment: false,
    })));
    scene.sync();
    scene.answer(assigned(&[], true));
    let start = scene.now;
    loop {
        let next = scene.step();
        match scene.script.asked.front() {
            Some((_, GroupRequest::Heartbeat { .. })) => scene.answer(Ok(GroupAnswer::Done)),
            Some((_, GroupRequest::Join { .. })) => break,
            Some(other) => panic!("expected heartbeats and then JoinGroup: {other:?}"),
            None => scene.now = next,
        }
    }
    assert_eq!(scene.now - start, SESSION_MS);
}

#[test]
fn a_sync_that_meets_another_round_joins_again_with_the_claim() {
    let mut scene = Scene::granted(&[3]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    scene.join();
    scene.answer(joined(6));
    scene.sync();
    scene.answer(Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.join().1.held, tasks(&[3]));
    scene.answer(joined(7));
    scene.sync();
    scene.answer(assigned(&[3], false));
    // Held once, from the first join on.
    let events = scene.events();
    assert!(matches!(events.as_slice(), [MemberEvent::Granted { .. }]), "{events:?}");
}

#[test]
fn a_member_that_waits_for_the_leader_goes_on_with_its_heartbeats() {
    let mut scene = Scene::new(None);
    scene.join();
    scene.answer(joined(1));
    scene.sync();
    scene.wait(HEARTBEAT_MS);
    let heartbeat = scene.script.asked.pop_back();
    assert!(matches!(heartbeat, Some((_, GroupRequest::Heartbeat { ref lease })) if lease.generation == 1));
    scene.script.answers.push_back((heartbeat.unwrap().0, Ok(GroupAnswer::Done)));
    scene.step();
    scene.answer(assigned(&[1], false));
    scene.expect_granted(1, &[1]);
}

#[test]
fn events_that_nobody_has_seen_are_replaced_by_the_newer() {
    let mut scene = Scene::granted(&[0]);
    for generation in 6..8 {
        scene.heartbeat();
        scene.answer(Err(GroupError::RebalanceInProgress));
        assert!(scene.join().1.held.is_superset(&tasks(&[0])));
        scene.answer(joined(generation));
        scene.sync();
        scene.answer(assigned(&[0, generation - 5], false));
    }
    let events = scene.events();
    assert!(matches!(events.as_slice(), [MemberEvent::Granted { tasks: granted, .. }] if *granted == tasks(&[0, 2])));
    // Task 1 was granted and taken away unseen: claimed until the workers say that they do not have it.
    assert_eq!(scene.member.state().releasing, tasks(&[1]));
}
