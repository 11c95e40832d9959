//! The group connection on a real broker: two members through joins, leases and departures.

mod backend;

use backend::{Member, Outcome, assignment, connect, new_topic, offset};
use headwater::broker::kafka::{Kafka, KafkaSettings};
use headwater::broker::{GroupAnswer, GroupError, GroupRequest, Lease};
use headwater::record::TopicPartition;
use headwater_integration_tests::{Broker, Settings, unique};

fn commit(lease: &Lease, partition: &TopicPartition, position: i64) -> GroupRequest {
    GroupRequest::CommitOffsets { lease: lease.clone(), offsets: vec![(partition.clone(), offset(position))] }
}

fn heartbeat(lease: &Lease) -> GroupRequest {
    GroupRequest::Heartbeat { lease: lease.clone() }
}

#[test]
fn two_members_share_a_group_under_leases() -> Outcome {
    let (one, two) = (connect()?, connect()?);
    let topic = new_topic(&one, "group", 2)?;
    let partition = TopicPartition::new(&*topic, 0);
    let group = unique("group");

    let mut first = Member::new(&one, &group)?;
    let old = first.join_alone()?;
    assert_eq!(first.ask(heartbeat(&old))?, Ok(GroupAnswer::Done));
    assert_eq!(first.ask(commit(&old, &partition, 5))?, Ok(GroupAnswer::Done));

    // A second one joins: the first is told, may still commit, and joins again.
    let mut second = Member::new(&two, &group)?;
    let waiting = second.start_join()?;
    backend::until(&Default::default(), "the rebalance", || match first.ask(heartbeat(&old))? {
        Ok(_) => Ok(None),
        Err(GroupError::RebalanceInProgress) => Ok(Some(())),
        Err(other) => Err(other.into()),
    })?;
    assert_eq!(first.ask(commit(&old, &partition, 6))?, Ok(GroupAnswer::Done));
    let again = first.start_join()?;
    let first_joined = first.joined(again)?;
    let second_joined = second.joined(waiting)?;
    assert_eq!(first_joined.generation, second_joined.generation);
    assert_eq!(first_joined.leader_id, second_joined.leader_id);
    let (leader, follower) = if first_joined.leader_id == first.id {
        (&first_joined, &second_joined)
    } else {
        (&second_joined, &first_joined)
    };
    assert!(follower.members.is_empty());
    let mut ids: Vec<_> = leader.members.iter().map(|member| member.member_id.clone()).collect();
    ids.sort();
    let mut expected = vec![first.id.clone(), second.id.clone()];
    expected.sort();
    assert_eq!(ids, expected);
    assert!(leader.members.iter().all(|member| member.user_data == b"about me"));

    // The old lease is void from here, before the new assignment is there.
    assert_eq!(first.ask(commit(&old, &partition, 7))?, Err(GroupError::IllegalGeneration));

    let assignments = vec![
        assignment(&first.id, std::slice::from_ref(&partition)),
        assignment(&second.id, &[TopicPartition::new(&*topic, 1)]),
    ];
    let sync = |lease: Lease, leads: bool| GroupRequest::Sync {
        lease,
        assignments: if leads { assignments.clone() } else { Vec::new() },
    };
    let first_lease = first.lease(&first_joined);
    let second_lease = second.lease(&second_joined);
    let first_leads = first_joined.leader_id == first.id;
    let of_first = first.coordinator.request(sync(first_lease.clone(), first_leads));
    let of_second = second.coordinator.request(sync(second_lease.clone(), !first_leads));
    assert_eq!(first.wait(of_first)?, Ok(GroupAnswer::Synced(first.id.clone().into_bytes())));
    assert_eq!(second.wait(of_second)?, Ok(GroupAnswer::Synced(second.id.clone().into_bytes())));

    // Offsets belong to the group, whoever asks.
    let fetch = GroupRequest::FetchOffsets { partitions: vec![TopicPartition::new(&*topic, 1), partition.clone()] };
    assert_eq!(
        second.ask(fetch)?,
        Ok(GroupAnswer::Offsets(vec![(TopicPartition::new(&*topic, 1), None), (partition, Some(offset(6))),]))
    );

    let leave = GroupRequest::Leave { member_id: second.id.clone(), instance_id: None };
    assert_eq!(second.ask(leave)?, Ok(GroupAnswer::Done));
    assert_eq!(second.ask(heartbeat(&second_lease))?, Err(GroupError::UnknownMember));
    assert_eq!(first.ask(heartbeat(&first_lease))?, Err(GroupError::RebalanceInProgress));
    Ok(())
}

#[test]
fn a_parked_join_holds_up_nobody_who_shares_the_connection() -> Outcome {
    let (one, two) = (connect()?, connect()?);
    let group = unique("parked");
    let mut first = Member::new(&one, &group)?;
    let lease = first.join_alone()?;
    // The second parks: the first has not joined again yet.
    let mut second = Member::new(&two, &group)?;
    let parked = second.start_join()?;
    let mut other = Member::new(&two, &group)?;
    let answer = other.ask(GroupRequest::FetchOffsets { partitions: Vec::new() })?;
    assert_eq!(answer, Ok(GroupAnswer::Offsets(Vec::new())));
    let leave = GroupRequest::Leave { member_id: lease.member_id, instance_id: None };
    assert_eq!(first.ask(leave)?, Ok(GroupAnswer::Done));
    assert_eq!(second.joined(parked)?.members.len(), 1);
    Ok(())
}

#[test]
fn a_static_member_that_comes_back_fences_its_old_self() -> Outcome {
    let kafka = connect()?;
    let group = unique("static");
    let join = || GroupRequest::Join {
        member_id: String::new(),
        instance_id: Some("host-1".into()),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        topics: vec!["orders".into()],
        user_data: b"about me".to_vec(),
    };
    let lease_of = |answer: GroupAnswer| match answer {
        GroupAnswer::Joined(joined) => Ok((
            Lease { member_id: joined.member_id, generation: joined.generation, instance_id: Some("host-1".into()) },
            joined.skip_assignment,
        )),
        other => Err(format!("{other:?} is no answer to a join")),
    };
    let mut member = Member::new(&kafka, &group)?;
    let (old, _) = lease_of(member.ask(join())??)?;
    let first_sync = GroupRequest::Sync { lease: old.clone(), assignments: vec![assignment(&old.member_id, &[])] };
    let assigned = member.ask(first_sync)??;

    let (new, skip) = lease_of(member.ask(join())??)?;
    assert!(skip, "a static leader that comes back brings no assignment");
    assert_eq!(new.generation, old.generation);
    assert_ne!(new.member_id, old.member_id);
    let second_sync = GroupRequest::Sync { lease: new.clone(), assignments: Vec::new() };
    assert_eq!(member.ask(second_sync)??, assigned);
    assert_eq!(member.ask(heartbeat(&old))?, Err(GroupError::FencedInstance));
    assert_eq!(member.ask(heartbeat(&new))?, Ok(GroupAnswer::Done));
    Ok(())
}

#[test]
fn a_request_survives_the_restart_of_the_broker() -> Outcome {
    let broker = Broker::start(&Settings::default())?;
    let kafka = Kafka::connect(KafkaSettings::new(broker.bootstrap()))?;
    let group = unique("restart");
    let mut member = Member::new(&kafka, &group)?;
    let lease = member.join_alone()?;
    broker.stop()?;
    // Sent while nobody listens; answered by the same group once the broker is back.
    let ticket = member.coordinator.request(heartbeat(&lease));
    broker.restart()?;
    assert_eq!(member.wait(ticket)?, Ok(GroupAnswer::Done));
    Ok(())
}
