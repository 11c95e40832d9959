//! What is settled before a process joins its group: topics, partition counts, the state directory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use headwater_changelog::Directory;

use super::engine::{Board, Engine};
use crate::broker::{Admin, Broker, NewTopic, TopicInfo};
use crate::config::StreamsConfig;
use crate::error::{Error, Result};
use crate::group::{SubtopologyTasks, TaskPlan};
use crate::task::OutgoingTopic;
use crate::topology::{Plan, Subtopology, TopicName, Topology};

/// Checks topics, creates internal ones, locks the state directory.
pub(super) fn prepare(topology: &Topology, config: StreamsConfig, broker: Arc<dyn Broker>) -> Result<Engine> {
    config.check()?;
    let directory = Directory::open(&config.state_dir, &config.application_id)?;
    let mut admin = broker.admin()?;
    let cluster_id = admin.cluster_id()?;
    let plan = topology.plan();
    let application = config.application_id.as_str();

    let external = external_topics(plan, &mut *admin)?;
    let tasks = task_counts(topology, application, &external)?;
    let internal = internal_topics(topology, application, &tasks, config.replication_factor);
    let known = create(&mut *admin, &internal)?;

    let mut outgoing = Vec::with_capacity(plan.outputs.len());
    for topic in &plan.outputs {
        let name = topic.resolve(application);
        let info = external.get(&name).or_else(|| known.get(&name));
        let info = info.ok_or_else(|| Error::Engine(format!("nothing is known of topic {name}")))?;
        outgoing.push(OutgoingTopic { name, partitions: info.partitions });
    }
    let subtopologies = topology.subtopologies().iter().zip(&tasks);
    let subtopologies = subtopologies.map(|(subtopology, partitions)| SubtopologyTasks {
        topics: sources(plan, subtopology).map(|topic| topic.resolve(application)).collect(),
        partitions: *partitions,
        stateful: !subtopology.stores.is_empty(),
    });
    let task_plan = TaskPlan { subtopologies: subtopologies.collect(), fingerprint: topology.fingerprint() };
    Ok(Engine {
        #[cfg(feature = "rocksdb")]
        rocks: headwater_changelog::rocks::Shared::new(headwater_changelog::rocks::Settings::default())?,
        topology: topology.clone(),
        broker,
        plan: Arc::new(task_plan),
        outgoing,
        cluster_id,
        changelogs: known,
        directory,
        board: Board::new(config.threads),
        config,
    })
}

type Known = HashMap<Arc<str>, TopicInfo>;

fn sources<'a>(plan: &'a Plan, subtopology: &'a Subtopology) -> impl Iterator<Item = &'a TopicName> {
    subtopology.sources.iter().filter_map(|source| plan.sources.get(*source)).map(|source| &source.topic)
}

/// The user's topics; each must exist.
fn external_topics(plan: &Plan, admin: &mut dyn Admin) -> Result<Known> {
    let read = plan.sources.iter().map(|source| (&source.topic, "reads"));
    let written = plan.outputs.iter().map(|topic| (topic, "writes"));
    let mut used: BTreeMap<&Arc<str>, &str> = BTreeMap::new();
    for (topic, use_of_it) in read.chain(written) {
        if let TopicName::External(name) = topic {
            used.entry(name).or_insert(use_of_it);
        }
    }
    let names: Vec<&str> = used.keys().map(|name| &***name).collect();
    let mut known = Known::new();
    for ((name, use_of_it), info) in used.into_iter().zip(admin.topics(&names)?) {
        let info = info.ok_or_else(|| {
            Error::Topic(format!(
                "the program {use_of_it} topic {name}, which does not exist: create it, with the partitions you want"
            ))
        })?;
        known.insert(Arc::clone(name), info);
    }
    Ok(known)
}

/// The number of tasks of each sub-topology: the partitions of its inputs. A repartition topic has as many as
/// the inputs of those that write it, the most where several do.
fn task_counts(topology: &Topology, application: &str, external: &Known) -> Result<Vec<i32>> {
    let plan = topology.plan();
    let mut counts: HashMap<Arc<str>, i32> =
        external.iter().map(|(name, info)| (Arc::clone(name), info.partitions)).collect();
    let tasks_of = |subtopology: &Subtopology, counts: &HashMap<Arc<str>, i32>| {
        let topics = sources(plan, subtopology).map(|topic| counts.get(&topic.resolve(application)).copied());
        topics.collect::<Option<Vec<_>>>().and_then(|counts| counts.into_iter().max())
    };
    // Repartition topics may feed one another; each pass settles at least one more.
    for _ in topology.subtopologies() {
        for subtopology in topology.subtopologies() {
            let Some(tasks) = tasks_of(subtopology, &counts) else { continue };
            for sink in &subtopology.sinks {
                if let Some(topic @ TopicName::Repartition(_)) = plan.outputs.get(sink.0) {
                    let count = counts.entry(topic.resolve(application)).or_insert(tasks);
                    *count = tasks.max(*count);
                }
            }
        }
    }
    let counted = topology.subtopologies().iter().map(|subtopology| tasks_of(subtopology, &counts));
    let counted = counted.collect::<Option<Vec<_>>>();
    counted.ok_or_else(|| Error::Topology("a repartition topic is read and written by nobody else: a cycle".to_owned()))
}

/// Repartition topics and changelogs, with Kafka Streams' settings.
fn internal_topics(topology: &Topology, application: &str, tasks: &[i32], replication: i16) -> Vec<NewTopic> {
    let plan = topology.plan();
    let mut topics = Vec::new();
    let mut add = |name: Arc<str>, partitions: i32, settings: &[(&str, &str)]| {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = settings.chain([("message.timestamp.type".to_owned(), "CreateTime".to_owned())]).collect();
        topics.push(NewTopic { name: name.to_string(), partitions, replication, settings });
    };
    for (subtopology, partitions) in topology.subtopologies().iter().zip(tasks) {
        for topic in sources(plan, subtopology).filter(|topic| matches!(topic, TopicName::Repartition(_))) {
            let settings = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("segment.bytes", "52428800")];
            add(topic.resolve(application), *partitions, &settings);
        }
        for store in subtopology.stores.iter().filter_map(|store| plan.stores.get(store.0)) {
            let changelog = TopicName::Changelog(Arc::clone(&store.name));
            add(changelog.resolve(application), *partitions, &[("cleanup.policy", "compact")]);
        }
    }
    topics
}

/// Creates what is missing, and refuses what is there with another number of partitions.
fn create(admin: &mut dyn Admin, wanted: &[NewTopic]) -> Result<Known> {
    let names: Vec<&str> = wanted.iter().map(|topic| topic.name.as_str()).collect();
    let found = admin.topics(&names)?;
    let missing: Vec<_> = wanted.iter().zip(&found).filter(|(_, found)| found.is_none()).collect();
    let missing: Vec<NewTopic> = missing.into_iter().map(|(topic, _)| topic.clone()).collect();
    let found = if missing.is_empty() {
        found
    } else {
        admin.create_topics(&missing)?;
        admin.topics(&names)?
    };
    let mut known = Known::new();
    for (topic, info) in wanted.iter().zip(found) {
        let NewTopic { name, partitions, .. } = topic;
        let info = info.ok_or_else(|| Error::Topic(format!("internal topic {name} was created and cannot be seen")))?;
        if info.partitions != *partitions {
            return Err(Error::Topic(format!(
                "internal topic {name} has {} partitions where {partitions} are needed, as many as its input: the \
                 input's partitions have changed, or another application made it. Restore the input's count, or \
                 delete the internal topics of this application and begin anew",
                info.partitions
            )));
        }
        known.insert(name.as_str().into(), info);
    }
    Ok(known)
}
