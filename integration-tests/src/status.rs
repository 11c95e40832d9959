use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a line of status begins with.
const LEAD: &str = "status ";

/// What a process of the program under test tells about itself, several times a second, as a line of its output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the process stands.
    pub state: String,
    /// Its tasks, `<sub-topology>_<partition>`, and where each stands.
    pub tasks: BTreeMap<String, String>,
    /// Records processed since the start.
    pub processed: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Commits given up since the start.
    pub aborts: u64,
    /// Commits refused since the lease had run out.
    pub fenced: u64,
    /// Producers replaced since the start.
    pub recycled: u64,
    /// Changelog records replayed into stores since the start.
    pub restored: u64,
}

impl Status {
    /// The line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        // Strings and numbers can always be written.
        format!("{LEAD}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Takes a line apart; `None` for one that is no status.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(LEAD)?).ok()
    }

    /// Whether the process is a member and all its tasks run.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.state == "Running"
    }

    /// How many of its tasks are of this sub-topology.
    #[must_use]
    pub fn tasks_of(&self, subtopology: u32) -> usize {
        let lead = format!("{subtopology}_");
        self.tasks.keys().filter(|task| task.starts_with(&lead)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back() {
        let tasks = [("0_1", "Running"), ("1_3", "Running"), ("1_10", "Restoring")];
        let tasks = tasks.iter().map(|(task, status)| ((*task).to_owned(), (*status).to_owned())).collect();
        let status = Status { state: "Rebalancing".to_owned(), tasks, restored: 7, ..Status::default() };
        let read = Status::parse(&status.line()).unwrap();
        assert_eq!(read, status);
        assert_eq!((read.tasks_of(0), read.tasks_of(1)), (1, 2));
        assert!(!read.runs());
        assert_eq!(Status::parse("ready"), None);
    }
}
