//! Exactly-once under SIGKILL: three processes count records that keep coming, each is killed in turn, and nothing is lost or doubled.

use headwater_integration_tests::counting::{Counting, Guarantee};
use headwater_integration_tests::{Failure, check_stores_exact};

const PROCESSES: usize = 3;
const KILLS: usize = 6;

#[test]
fn counts_are_exact_whoever_is_killed() -> Result<(), Failure> {
    Counting::run(env!("CARGO_BIN_EXE_count"), Guarantee::ExactlyOnce, 100, PROCESSES, |counting| {
        let mut hits = 0;
        for number in 0..KILLS {
            let kill = counting.kill(number % PROCESSES)?;
            println!("{kill:?}");
            hits += usize::from(kill.undone > 0);
        }
        counting.drain()?;
        counting.shut_down()?;
        counting.check_outputs_exact()?;
        let stores = counting.dump()?;
        check_stores_exact(counting.sent(), &stores)?;
        println!("{} records, {hits} of {KILLS} kills inside a transaction", counting.sent().len());
        if hits + 1 < KILLS {
            return Err(Failure::new(format!(
                "only {hits} of {KILLS} kills left an aborted transaction: too few to prove anything"
            )));
        }
        Ok(())
    })
}
