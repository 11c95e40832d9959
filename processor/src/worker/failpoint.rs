//! Named points at which a test holds a worker or weakens a rule, to show what the rule is for.
//!
//! Read from the environment variable `HEADWATER_FAILPOINTS`, `name=value` separated by commas. Without the feature
//! `failpoints` none of this exists and every question is answered "no" at compile time.

/// How often a held worker looks whether it may go on.
#[cfg(feature = "failpoints")]
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// The points that are switched on.
#[derive(Debug, Default)]
pub(super) struct Failpoints {
    /// `commit.hold=<path>`: as long as the file exists, a worker stops between its last output and its offsets.
    #[cfg(feature = "failpoints")]
    hold: Option<std::path::PathBuf>,
    #[cfg(feature = "failpoints")]
    fresh_lease: bool,
}

#[cfg(feature = "failpoints")]
impl Failpoints {
    /// The points named in the environment.
    pub(super) fn from_environment() -> Self {
        Self {
            hold: setting("commit.hold").map(Into::into),
            fresh_lease: setting("commit.lease").as_deref() == Some("fresh"),
        }
    }

    /// All outputs are acknowledged and no offset is sent: the worker stands still here if told so. `<path>.held` tells the test.
    ///
    /// The thread sleeps in its place, as one that is not scheduled: it hears of nothing meanwhile, and the next thing
    /// it does is to send what it was about to send. A step that came back and was called again would first hear that
    /// its lease is void, and the broker's own refusal would never be seen.
    pub(super) fn before_offsets(&self) {
        let Some(file) = self.hold.as_ref().filter(|file| file.exists()) else { return };
        if let Err(error) = std::fs::write(file.with_extension("held"), std::process::id().to_string()) {
            tracing::error!(event = "failpoint.untold", file = %file.display(), %error, "not held");
            return;
        }
        while file.exists() {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// `commit.lease=fresh`: commit under whatever the group's metadata say now instead of under the lease, also what was
    /// processed under one that was lost.
    pub(super) fn fresh_lease(&self) -> bool {
        self.fresh_lease
    }
}

/// The value of a point, if it is switched on.
#[cfg(feature = "failpoints")]
pub(crate) fn setting(point: &str) -> Option<String> {
    let points = std::env::var("HEADWATER_FAILPOINTS").ok()?;
    points
        .split(',')
        .find_map(|one| one.split_once('=').filter(|(name, _)| *name == point))
        .map(|(_, value)| value.to_owned())
}

#[cfg(not(feature = "failpoints"))]
impl Failpoints {
    pub(super) const fn from_environment() -> Self {
        Self {}
    }

    #[expect(clippy::unused_self, reason = "the same call as with the feature")]
    pub(super) const fn before_offsets(&self) {}

    #[expect(clippy::unused_self, reason = "the same call as with the feature")]
    pub(super) const fn fresh_lease(&self) -> bool {
        false
    }
}
