//! Named points at which a test holds a worker or weakens a rule, to show what the rule is for.
//!
//! Read from the environment variable `HEADWATER_FAILPOINTS`, `name=value` separated by commas. Without the feature
//! `failpoints` none of this exists and every question is answered "no" at compile time.

/// How often a held worker looks whether it may go on, ms.
pub(super) const LOOK_AGAIN_MS: i64 = 10;

/// The points that are switched on.
#[derive(Debug, Default)]
pub(super) struct Failpoints {
    /// `commit.hold=<path>`: as long as the file exists, a worker stops between its last output and its offsets.
    #[cfg(feature = "failpoints")]
    hold: Option<std::path::PathBuf>,
    #[cfg(feature = "failpoints")]
    held: bool,
    #[cfg(feature = "failpoints")]
    fresh_lease: bool,
}

#[cfg(feature = "failpoints")]
impl Failpoints {
    /// The points named in the environment.
    pub(super) fn from_environment() -> Self {
        Self {
            hold: setting("commit.hold").map(Into::into),
            held: false,
            fresh_lease: setting("commit.lease").as_deref() == Some("fresh"),
        }
    }

    /// Whether the worker stands still. It hears nothing meanwhile, as a thread that is not scheduled.
    pub(super) fn holds(&mut self) -> bool {
        self.held = self.held && self.hold.as_ref().is_some_and(|file| file.exists());
        self.held
    }

    /// All outputs are acknowledged and no offset is sent: stop here if told so. `<path>.held` tells the test.
    pub(super) fn before_offsets(&mut self) -> bool {
        let Some(file) = self.hold.as_ref().filter(|file| file.exists()) else { return false };
        self.held = std::fs::write(file.with_extension("held"), std::process::id().to_string()).is_ok();
        self.held
    }

    /// `commit.lease=fresh`: commit under whatever the group's metadata say now instead of under the lease.
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

    pub(super) const fn holds(&mut self) -> bool {
        false
    }

    pub(super) const fn before_offsets(&mut self) -> bool {
        false
    }
}
