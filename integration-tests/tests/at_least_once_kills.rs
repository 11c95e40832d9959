//! At-least-once under SIGKILL: three processes count records that keep coming, each is killed in turn, and nothing is
//! missing.

use headwater_integration_tests::Failure;
use headwater_integration_tests::counting::{Counting, Guarantee};

#[test]
fn nothing_is_missing_whoever_is_killed() -> Result<(), Failure> {
    Counting::run(env!("CARGO_BIN_EXE_count"), Guarantee::AtLeastOnce, 500, 3, |counting| {
        counting.kill_in_turn(6)?;
        counting.drain()?;
        counting.shut_down()?;
        let again = counting.check_at_least_once()?;
        println!("{again} records were counted again, of {}", counting.sent().len());
        if again == 0 {
            return Err(Failure::new(
                "nothing was counted again: such kills would not show a lack of exactly-once either",
            ));
        }
        Ok(())
    })
}
