use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Settings of a broker node; the default suits tests.
///
/// Against Kafka's defaults: replication factors of 1, few partitions of the internal topics, no delay of a group's
/// first rebalance, session timeouts from one second on, transactions past their timeout aborted within a second, a
/// cleaner that looks every second. Topics are not created by being named.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    properties: BTreeMap<String, String>,
}

/// Defaults of the harness; ports, folders and listeners come on top.
const DEFAULTS: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("controller.listener.names", "CONTROLLER"),
    ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "300"),
    ("group.streams.initial.rebalance.delay.ms", "0"),
    ("group.streams.min.session.timeout.ms", "1000"),
    ("group.streams.min.heartbeat.interval.ms", "300"),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    ("log.cleaner.backoff.ms", "1000"),
    ("log.cleaner.dedupe.buffer.size", "2097152"),
    ("log.retention.check.interval.ms", "1000"),
];

impl Settings {
    /// Sets a broker property, over the harness's own value if it has one.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// The text of `server.properties` for a node with these ports on 127.0.0.1 and its logs in `data`.
    pub(crate) fn render(&self, port: u16, controller_port: u16, data: &Path) -> String {
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
        let mut all: BTreeMap<&str, String> =
            DEFAULTS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        all.insert("controller.quorum.bootstrap.servers", format!("127.0.0.1:{controller_port}"));
        all.insert("listeners", listeners.clone());
        all.insert("advertised.listeners", listeners);
        all.insert("log.dirs", data.display().to_string());
        all.extend(self.properties.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let mut text = String::new();
        for (name, value) in all {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}={value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_properties_win() {
        let text = Settings::default().property("node.id", "7").property("min.insync.replicas", "1").render(
            15_001,
            15_002,
            Path::new("/tmp/data"),
        );
        assert!(text.contains("\nnode.id=7\n"));
        assert!(!text.contains("node.id=1\n"));
        assert!(text.contains("\nmin.insync.replicas=1\n"));
        assert!(text.contains("\nlisteners=PLAINTEXT://127.0.0.1:15001,CONTROLLER://127.0.0.1:15002\n"));
    }
}
