//! Processes come and go under load: 1, 3, then 2. Tasks stay evenly spread and counts exact.

use std::time::Instant;

use headwater_integration_tests::Failure;
use headwater_integration_tests::counting::{Counting, Guarantee, RATE};

#[test]
fn one_three_two() -> Result<(), Failure> {
    Counting::run(env!("CARGO_BIN_EXE_count"), Guarantee::ExactlyOnce, 100, 1, |counting| {
        let second = u64::from(RATE);
        counting.await_flow(second)?;
        let step = |counting: &mut Counting, what: &str, processes: usize, change: fn(&mut Counting) -> _| {
            let start = Instant::now();
            let changed: Result<(), Failure> = change(counting);
            changed?;
            let tasks = counting.await_balance()?;
            println!("{what}: {tasks:?} tasks after {:.1} s", start.elapsed().as_secs_f64());
            assert_eq!(tasks.len(), processes);
            counting.await_flow(second)
        };
        step(counting, "two came", 3, |counting| counting.add().and_then(|()| counting.add()))?;
        step(counting, "the first left", 2, |counting| counting.leave(0))?;
        counting.drain()?;
        counting.shut_down()?;
        counting.check_exact()
    })
}
