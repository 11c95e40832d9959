//! What a start replays: the tail after a kill, nothing after an orderly end, everything when the disk is empty.

use headwater_integration_tests::Failure;
use headwater_integration_tests::counting::{Counting, Guarantee, RATE};

/// Seconds of input that are processed before the kill.
const SECONDS: u64 = 5;

fn restarts(guarantee: Guarantee, commit_interval_ms: u32) -> Result<(), Failure> {
    Counting::run(env!("CARGO_BIN_EXE_count"), guarantee, commit_interval_ms, 1, |counting| {
        let second = u64::from(RATE);
        counting.await_flow(SECONDS * second)?;
        let kill = counting.kill(0)?;
        let replayed = counting.status(0)?.restored;
        println!("{kill:?}, {replayed} changelog records replayed");
        // What was committed is on disk already. The rest is what came since the last commit, which is less than a
        // second's records; a second one for a machine that is busy with other things.
        if replayed > 2 * second {
            return Err(Failure::new(format!(
                "{replayed} records were replayed after a kill, of {SECONDS} s of input"
            )));
        }
        counting.drain()?;
        counting.shut_down()?;
        let before = counting.dump()?;

        counting.restart(0)?;
        counting.await_balance()?;
        let replayed = counting.status(0)?.restored;
        counting.shut_down()?;
        if replayed != 0 || counting.dump()? != before {
            return Err(Failure::new(format!("{replayed} records were replayed after an orderly end")));
        }

        counting.forget(0)?;
        counting.restart(0)?;
        counting.await_balance()?;
        let replayed = counting.status(0)?.restored;
        counting.shut_down()?;
        println!("{replayed} changelog records replayed into {} entries", before.len());
        if counting.dump()? != before {
            return Err(Failure::new("the stores that were rebuilt are not those that were deleted"));
        }
        match guarantee {
            Guarantee::ExactlyOnce => counting.check_exact(),
            Guarantee::AtLeastOnce => counting.check_at_least_once().map(|_| ()),
        }
    })
}

#[test]
fn exactly_once() -> Result<(), Failure> {
    restarts(Guarantee::ExactlyOnce, 100)
}

#[test]
fn at_least_once() -> Result<(), Failure> {
    restarts(Guarantee::AtLeastOnce, 500)
}
