//! Configurations: which program runs which workload under which settings, written as one word.

use crate::Result;
use std::fmt;
use std::str::FromStr;

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The loop on the bare client.
    Raw,
    /// The engine.
    Engine,
}

impl Program {
    /// Name of the binary.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Engine => "engine",
        }
    }
}

/// What is done with each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Read only.
    Consume,
    /// Written to the output unchanged.
    P1,
    /// Counted per key; every count goes to the store's changelog and to the output.
    P2,
}

impl Workload {
    /// The word for it in `WORKLOAD`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::P1 => "p1",
            Self::P2 => "p2",
        }
    }
}

/// A program, a workload and settings.
///
/// Written `PROGRAM-WORKLOAD[-alos|-eos][-COMMIT_MS][+VARIABLE=VALUE]…`, for instance `raw-p1`, `engine-p2-eos-100` or
/// `raw-p2+DR=all`. Without a commit interval it is 1,000 ms at-least-once and 100 ms exactly-once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The word it was written as.
    pub name: String,
    /// Who does the work.
    pub program: Program,
    /// What is done.
    pub workload: Workload,
    /// Exactly-once rather than at-least-once.
    pub exactly_once: bool,
    /// Commit interval in milliseconds.
    pub commit_ms: u64,
    /// Further environment variables.
    pub variables: Vec<(String, String)>,
}

/// What is measured when nothing is chosen. Pairs that are divided by each other stand next to each other.
pub const ALL: [&str; 9] = [
    "raw-consume",
    "engine-consume",
    "raw-p2",
    "raw-p2-eos",
    "raw-p1",
    "engine-p1",
    "engine-p2",
    "engine-p2-alos-100",
    "engine-p2-eos-100",
];

impl Configuration {
    /// The name in letters that topics and directories may have.
    #[must_use]
    pub fn slug(&self) -> String {
        self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }

    /// Whether [`Workload::P1`]'s input is read, which is longer because its workloads are faster.
    #[must_use]
    pub fn reads_long_input(&self) -> bool {
        self.workload != Workload::P2
    }
}

impl FromStr for Configuration {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(name: &str) -> Result<Self> {
        parse(name).ok_or_else(|| {
            format!(
                "configuration '{name}': accepted is (raw|engine)-(consume|p1|p2)[-alos|-eos][-COMMIT_MS][+VARIABLE=VALUE]…, \
                 for instance raw-p1 or engine-p2-eos-100"
            )
            .into()
        })
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

fn parse(name: &str) -> Option<Configuration> {
    let mut settings = name.split('+');
    let mut words = settings.next()?.split('-').peekable();
    let program = match words.next()? {
        "raw" => Program::Raw,
        "engine" => Program::Engine,
        _ => return None,
    };
    let workload = match words.next()? {
        "consume" => Workload::Consume,
        "p1" => Workload::P1,
        "p2" => Workload::P2,
        _ => return None,
    };
    let exactly_once = words.next_if_eq(&"eos").is_some();
    if !exactly_once {
        words.next_if_eq(&"alos");
    }
    let commit_ms = match words.next() {
        Some(number) => number.parse().ok()?,
        None if exactly_once => 100,
        None => 1_000,
    };
    if words.next().is_some() {
        return None;
    }
    let variables =
        settings.map(|setting| setting.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    let variables = variables.collect::<Option<_>>()?;
    Some(Configuration { name: name.to_owned(), program, workload, exactly_once, commit_ms, variables })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Configuration {
        name.parse().unwrap()
    }

    #[test]
    fn guarantee_and_interval_have_defaults() {
        let plain = parsed("raw-p1");
        assert_eq!((plain.program, plain.workload), (Program::Raw, Workload::P1));
        assert_eq!((plain.exactly_once, plain.commit_ms), (false, 1_000));
        let eos = parsed("raw-p2-eos");
        assert_eq!((eos.exactly_once, eos.commit_ms), (true, 100));
        let stated = parsed("engine-p2-alos-100");
        assert_eq!((stated.program, stated.exactly_once, stated.commit_ms), (Program::Engine, false, 100));
    }

    #[test]
    fn variables_are_passed_on_and_kept_out_of_topic_names() {
        let configuration = parsed("raw-p2-eos-50+DR=all+QUEUE=consumer");
        let variables: Vec<_> =
            configuration.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(variables, [("DR", "all"), ("QUEUE", "consumer")]);
        assert_eq!(configuration.slug(), "raw-p2-eos-50-DR-all-QUEUE-consumer");
    }

    #[test]
    fn all_published_names_are_understood() {
        for name in ALL {
            assert_eq!(parsed(name).to_string(), name);
        }
    }

    #[test]
    fn a_wrong_name_is_refused_with_the_accepted_form() {
        for name in ["", "raw", "kafka-p1", "raw-p9", "raw-p1-soon", "raw-p1-eos-100-200", "raw-p1+DR"] {
            let error = name.parse::<Configuration>().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("(raw|engine)"), "{error}");
        }
    }
}
