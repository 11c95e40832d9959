//! Memberships that break.

use super::*;

/// After a loss: nothing goes on before the workers have dropped everything; then it joins with this id and no claim.
fn expect_fresh_start(scene: &mut Scene, id: &str) {
    scene.expect_lost();
    scene.wait(10 * SESSION_MS);
    scene.nothing_asked();
    scene.member.acknowledge(&tasks(&[1]));
    scene.nothing_asked();
    scene.member.acknowledge(&tasks(&[]));
    let (said_id, said) = scene.join();
    assert_eq!((said_id.as_str(), said.held), (id, tasks(&[])));
    assert_eq!(said.previous, tasks(&[0, 1]), "their state is still here");
    scene.answer(joined(50));
    assert_eq!(scene.events(), []);
    scene.sync();
    scene.answer(assigned(&[2], false));
    scene.expect_granted(50, &[2]);
}

#[test]
fn silence_for_a_session_ends_the_membership_by_our_own_clock() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::Unavailable("cut".to_owned())));
    scene.wait(100);
    assert!(matches!(scene.asked(), GroupRequest::Heartbeat { .. }), "tried again soon");
    scene.wait(SESSION_MS - HEARTBEAT_MS - 101);
    assert_eq!(scene.events(), []);
    scene.wait(1);
    scene.script.asked.clear();
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn the_step_asks_to_be_called_when_the_session_ends() {
    let mut scene = Scene::granted(&[0, 1]);
    let granted = scene.now;
    scene.heartbeat();
    let next = scene.step();
    assert_eq!(next, granted + SESSION_MS);
}

#[test]
fn an_answer_that_lay_unread_through_a_pause_proves_nothing() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.now += 10 * SESSION_MS;
    scene.answer(Ok(GroupAnswer::Done));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn an_assignment_that_lay_unread_through_a_pause_is_not_granted() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    scene.join();
    scene.answer(joined(6));
    scene.sync();
    scene.events();
    scene.now += SESSION_MS;
    scene.answer(assigned(&[0, 1], false));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn a_zombie_drops_its_claim_and_comes_back_as_a_stranger() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::UnknownMember));
    expect_fresh_start(&mut scene, "");
}

#[test]
fn another_generation_at_a_heartbeat_means_a_round_without_us() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::IllegalGeneration));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn a_sync_for_a_generation_that_is_gone_is_a_loss() {
    for (error, id) in [(GroupError::IllegalGeneration, "me"), (GroupError::UnknownMember, "")] {
        let mut scene = Scene::granted(&[0, 1]);
        scene.heartbeat();
        scene.answer(Err(GroupError::RebalanceInProgress));
        scene.join();
        scene.answer(joined(6));
        scene.sync();
        scene.answer(Err(error));
        expect_fresh_start(&mut scene, id);
    }
}

#[test]
fn a_generation_that_passed_without_us_is_a_loss_though_the_join_succeeds() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    scene.join();
    scene.answer(joined(7));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn a_join_that_gets_another_id_is_a_loss() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    scene.join();
    let Ok(GroupAnswer::Joined(other)) = joined(6) else { unreachable!() };
    scene.answer(Ok(GroupAnswer::Joined(Joined { member_id: "other".to_owned(), ..other })));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn a_rejoin_nobody_answers_is_a_loss_once_the_session_is_over() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    scene.answer(Err(GroupError::RebalanceInProgress));
    scene.join();
    scene.answer(Err(GroupError::Unavailable("cut".to_owned())));
    scene.now += 50;
    assert_eq!(scene.join().1.held, tasks(&[0, 1]), "in time: tried again with the claim");
    scene.now += SESSION_MS;
    scene.answer(Err(GroupError::Unavailable("cut".to_owned())));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn our_static_id_in_another_process_ends_it_for_good() {
    let mut scene = Scene::new(Some("pod-1"));
    scene.join();
    scene.answer(joined(4));
    scene.sync();
    scene.answer(assigned(&[2], false));
    scene.events();
    scene.heartbeat();
    scene.answer(Err(GroupError::FencedInstance));
    scene.expect_failed(true, "82");
}

#[test]
fn a_late_answer_to_a_request_that_was_given_up_is_dropped() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.heartbeat();
    let (heartbeat, _) = scene.script.asked.pop_front().unwrap();
    scene.wait(SESSION_MS);
    scene.script.answers.push_back((heartbeat, Err(GroupError::FencedInstance)));
    expect_fresh_start(&mut scene, "me");
}

#[test]
fn who_never_had_a_lease_loses_nothing() {
    let mut scene = Scene::new(None);
    scene.join();
    scene.answer(joined(1));
    scene.sync();
    scene.answer(Err(GroupError::UnknownMember));
    assert_eq!(scene.events(), []);
    scene.wait(RETRY_MS);
    assert_eq!(scene.join().0, "");
}

#[test]
fn a_loss_during_the_shutdown_still_ends_it() {
    let mut scene = Scene::granted(&[0, 1]);
    scene.member.leave();
    scene.heartbeat();
    scene.answer(Err(GroupError::UnknownMember));
    scene.expect_lost();
    scene.member.acknowledge(&tasks(&[]));
    scene.step();
    assert_eq!(scene.events(), [MemberEvent::Left]);
}
