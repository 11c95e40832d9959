//! Exactly-once under SIGKILL: three processes count records that keep coming, each is killed in turn, and nothing is
//! lost or doubled.

use headwater_integration_tests::Failure;
use headwater_integration_tests::counting::{Counting, Guarantee};

#[test]
fn counts_are_exact_whoever_is_killed() -> Result<(), Failure> {
    Counting::run(env!("CARGO_BIN_EXE_count"), Guarantee::ExactlyOnce, 100, 3, |counting| {
        counting.kill_in_turn(6)?;
        counting.drain()?;
        counting.shut_down()?;
        counting.check_exact()
    })
}
