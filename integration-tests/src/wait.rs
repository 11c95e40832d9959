use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `look` until it answers `Ok`, and returns that answer.
///
/// `look` answers `Err` with what it saw instead. After `deadline` the failure says `what` was waited for and what was
/// seen last. `look` runs at least once.
///
/// # Errors
/// When the deadline passes first.
pub fn eventually<T, E: std::fmt::Display>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(answer) => return Ok(answer),
            Err(seen) if start.elapsed() >= deadline => {
                return Err(Failure::new(format!(
                    "waited {:.1} s for {what}; last seen: {seen}",
                    deadline.as_secs_f64()
                )));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_answer() {
        let mut looks = 0;
        let answer = eventually(Duration::from_secs(30), "three looks", || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("too few") }
        });
        assert_eq!(answer.unwrap(), 3);
    }

    #[test]
    fn says_what_was_seen_last() {
        let failure = eventually::<(), _>(Duration::ZERO, "a miracle", || Err("nothing")).unwrap_err();
        assert_eq!(failure.to_string(), "waited 0.0 s for a miracle; last seen: nothing");
    }
}
