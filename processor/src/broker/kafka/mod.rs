//! A real Kafka cluster.
//!
//! Records go through librdkafka, which is only told which partitions to read and what to write; it is in no
//! group. The group is spoken with over connections of our own (`coordinator`), because librdkafka lets nobody
//! assign tasks. Threads are made here where a call must wait: one per transactional producer, two per group, and
//! one for each client that is being closed.

#![expect(unsafe_code, reason = "librdkafka is a C library; no other module calls it")]

mod admin;
mod client;
mod consumer;
mod coordinator;
mod deliveries;
mod errors;
mod lane;
mod list;
mod producer;
mod protocol;
mod settings;
mod transactions;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub use settings::KafkaSettings;

use self::admin::KafkaAdmin;
use self::client::{Client, Closing, Kind};
use self::consumer::KafkaConsumer;
use self::coordinator::{GroupClient, KafkaCoordinator};
use self::lane::Route;
use self::producer::KafkaProducer;
use super::{Admin, Broker, Consumer, ConsumerOptions, Coordinator, Producer, ProducerOptions, Result};
use crate::wake::Waker;

/// How long the last owner of a connection waits for its clients to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a transactional call is repeated for: Kafka takes no longer transaction.
const LONGEST_CALL: Duration = Duration::from_millis(i32::MAX as u64);

/// A connection to a Kafka cluster.
#[derive(Debug)]
pub struct Kafka {
    settings: KafkaSettings,
    admin: Arc<Client>,
    // By group; gone when the last coordinator handle is.
    groups: Mutex<HashMap<String, Weak<GroupClient>>>,
    // Last, so that the client above is closing too when this waits.
    closing: AwaitClosed,
}

impl Kafka {
    /// Checks the settings and waits for the first answer of the cluster, at most for the request timeout.
    ///
    /// Errors: [`ErrorClass::Configuration`](crate::broker::ErrorClass::Configuration) for a setting that is unknown, out of range or not the user's to give;
    /// [`ErrorClass::Unavailable`](crate::broker::ErrorClass::Unavailable) if no broker answered.
    pub fn connect(settings: KafkaSettings) -> Result<Self> {
        settings.check()?;
        let closing = Arc::new(Closing::default());
        let admin = Client::new(Kind::Producer, settings.admin_conf()?, &closing)?;
        let kafka = Self { settings, admin, groups: Mutex::default(), closing: AwaitClosed(closing) };
        kafka.new_admin()?.cluster_id()?;
        Ok(kafka)
    }

    /// The connection to a group, made for the first who asks.
    fn group(&self, group: &str) -> Result<Arc<GroupClient>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = groups.get(group).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let route = Route {
            group: group.to_owned(),
            client_id: self.settings.client_id.clone(),
            bootstrap: self.settings.addresses()?,
        };
        let client = Arc::new(GroupClient::new(route, self.settings.request_timeout)?);
        groups.insert(group.to_owned(), Arc::downgrade(&client));
        Ok(client)
    }

    fn new_admin(&self) -> Result<KafkaAdmin> {
        KafkaAdmin::new(&self.admin, self.settings.request_timeout, &self.settings.bootstrap)
    }
}

/// Waits, when it is dropped, for the clients that were dropped before: librdkafka's threads do not like to be cut off
/// while the C library is taken down at the end of the process. A client that hangs is left behind.
#[derive(Debug)]
struct AwaitClosed(Arc<Closing>);

impl Drop for AwaitClosed {
    fn drop(&mut self) {
        if !self.0.wait(CLOSE_TIMEOUT) {
            tracing::warn!(
                target: "headwater::librdkafka",
                "clients did not close within {} ms and are left behind",
                CLOSE_TIMEOUT.as_millis()
            );
        }
    }
}

impl Broker for Kafka {
    fn consumer(&self, options: &ConsumerOptions, waker: Waker) -> Result<Box<dyn Consumer>> {
        let (settings, options) = (self.settings.clone(), options.clone());
        let make_conf = Box::new(move |partitions| settings.consumer_conf(&options, partitions));
        Ok(Box::new(KafkaConsumer::new(make_conf, &self.closing.0, waker)?))
    }

    fn producer(&self, options: &ProducerOptions, waker: Waker) -> Result<Box<dyn Producer>> {
        let conf = self.settings.producer_conf(options)?;
        let request = self.settings.request_timeout;
        let transactional = options
            .transactional_id
            .as_deref()
            .map(|id| (id, request, options.transaction_timeout.clamp(request, LONGEST_CALL)));
        Ok(Box::new(KafkaProducer::new(conf, transactional, &self.closing.0, &waker)?))
    }

    fn coordinator(&self, group: &str, waker: Waker) -> Result<Box<dyn Coordinator>> {
        Ok(Box::new(KafkaCoordinator::new(self.group(group)?, waker)))
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Ok(Box::new(self.new_admin()?))
    }
}
