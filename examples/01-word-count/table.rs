//! What a person sees: the most frequent words, the pace, and who runs which tasks.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use headwater::Result;
use headwater::broker::Broker;
use headwater_examples::topics::Follower;

use crate::members::Members;

const TOP: usize = 10;

/// Reads the output topic and shows it.
pub(crate) struct Table {
    follower: Follower,
    counts: HashMap<Vec<u8>, i64>,
    terminal: bool,
    last: (Instant, u64),
}

impl Table {
    pub(crate) fn new(broker: &dyn Broker, topic: &str) -> Result<Self> {
        let follower = Follower::new(broker, topic)?;
        let terminal = std::io::stdout().is_terminal();
        Ok(Self { follower, counts: HashMap::new(), terminal, last: (Instant::now(), 0) })
    }

    /// Takes in what has been counted since.
    pub(crate) fn read(&mut self, wait: Duration) -> Result<()> {
        let counts = &mut self.counts;
        self.follower.read(wait, |record| {
            if let (Some(word), Some(Ok(count))) = (record.key, record.value.map(<[u8; 8]>::try_from)) {
                counts.insert(word.to_vec(), i64::from_be_bytes(count));
            }
        })?;
        Ok(())
    }

    /// A table on a terminal, a line elsewhere.
    pub(crate) fn show(&mut self, members: &Members, fed: Option<u64>) {
        let processed = members.processed();
        let rate = processed.saturating_sub(self.last.1) as f64 / self.last.0.elapsed().as_secs_f64();
        self.last = (Instant::now(), processed);
        let mut top: Vec<_> = self.counts.iter().collect();
        top.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let fed = fed.map_or(String::new(), |lines| format!("  lines fed {lines}"));
        let mut text = String::new();
        if self.terminal {
            text.push_str("\x1b[2J\x1b[H");
            let _ = writeln!(text, "word count{fed}   records/s {rate:.0}\n");
            for (word, count) in top.iter().take(TOP) {
                let _ = writeln!(text, "{count:>10}  {}", String::from_utf8_lossy(word));
            }
            let _ = writeln!(text, "\n{}\nctrl-c commits and stops", members.describe("\n"));
        } else {
            let words = top.iter().take(3).map(|(word, count)| format!("{} {count}", String::from_utf8_lossy(word)));
            let words = words.collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "records/s {rate:.0}{fed}  top: {words}  {}", members.describe("; "));
        }
        // Nobody to show it to is no reason to stop counting.
        let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
    }
}
