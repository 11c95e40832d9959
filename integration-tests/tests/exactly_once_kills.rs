//! Exactly-once under SIGKILL: three processes count records that keep coming, and nothing is lost or doubled.

use std::time::Instant;

use headwater_integration_tests::Failure;
use headwater_integration_tests::counting::{Counting, Guarantee, RATE};

const PROGRAM: &str = env!("CARGO_BIN_EXE_count");

#[test]
fn counts_are_exact_whoever_is_killed() -> Result<(), Failure> {
    Counting::run(PROGRAM, Guarantee::ExactlyOnce, 100, 3, |counting| {
        counting.kill_in_turn(6)?;
        counting.drain()?;
        counting.shut_down()?;
        counting.check_exact()
    })
}

/// Nobody takes over the transactional ids of a process that stays dead: its open transaction ends by its timeout. And
/// where all die at once nobody is left to notice.
#[test]
fn the_living_take_over_and_all_may_die() -> Result<(), Failure> {
    Counting::run(PROGRAM, Guarantee::ExactlyOnce, 100, 3, |counting| {
        let second = u64::from(RATE);
        counting.await_flow(second)?;
        counting.fell(0)?;
        let start = Instant::now();
        let tasks = counting.await_balance()?;
        counting.await_flow(second)?;
        println!("#0 stays dead: {tasks:?} tasks, and records flow after {:.1} s", start.elapsed().as_secs_f64());
        counting.fell(1)?;
        counting.fell(2)?;
        let start = Instant::now();
        (0..3).try_for_each(|number| counting.restart(number))?;
        let tasks = counting.await_balance()?;
        counting.await_flow(second)?;
        println!("all came back: {tasks:?} tasks, and records flow after {:.1} s", start.elapsed().as_secs_f64());
        counting.drain()?;
        counting.shut_down()?;
        counting.check_exact()
    })
}
