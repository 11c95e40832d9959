//! The runner of separate processes, on a small shell program: signals, output, restarts, fleets.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use headwater_integration_tests::{Failure, Fleet, Process, Program, eventually, wait_for_pause};

const DEADLINE: Duration = Duration::from_secs(30);

/// Writes `ready`, then a growing file `ticks` into its state directory, until SIGTERM, on which it exits with code 7.
const TICKER: &str = r#"
trap 'echo "told to end" >&2; exit 7' TERM
echo run >> "$STATE/runs"
echo "ready with $1"
while :; do echo tick >> "$STATE/ticks"; sleep 0.01; done
"#;

fn ticker(home: &std::path::Path) -> Result<Process, Failure> {
    let state = home.join("state").display().to_string();
    Process::spawn("ticker", home, Program::new("sh").args(["-c", TICKER, "ticker", "a word"]).env("STATE", state))
}

fn lines_of(process: &Process, file: &str) -> usize {
    std::fs::read_to_string(process.state_dir().join(file)).map_or(0, |text| text.lines().count())
}

fn wait_for_ticks(process: &Process, more_than: usize) -> Result<(), Failure> {
    eventually(DEADLINE, "ticks", || {
        let ticks = lines_of(process, "ticks");
        if ticks > more_than { Ok(()) } else { Err(format!("{ticks} ticks")) }
    })
}

#[test]
fn sigkill_ends_at_once_and_a_restart_finds_the_state() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = ticker(home.path())?;
    assert_eq!(process.wait_for_line(DEADLINE, |line| line.starts_with("ready"))?, "ready with a word");
    assert!(process.is_running()?);
    assert!(process.restart().unwrap_err().to_string().contains("still runs"));
    process.kill9()?;
    assert!(!process.is_running()?);
    assert_eq!(process.wait(DEADLINE)?.signal(), Some(9));
    assert!(process.terminate().unwrap_err().to_string().contains("has ended"));
    process.restart()?;
    process.wait_for_line(DEADLINE, |line| line.starts_with("ready"))?;
    assert_eq!(
        process.lines().iter().filter(|line| line.starts_with("ready")).count(),
        1,
        "lines are those of this run"
    );
    assert_eq!(lines_of(&process, "runs"), 2);
    Ok(())
}

#[test]
fn sigstop_pauses_and_sigcont_goes_on() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = ticker(home.path())?;
    wait_for_ticks(&process, 0)?;
    process.stop()?;
    wait_for_pause(process.id(), true, DEADLINE)?;
    assert!(process.is_running()?, "a paused process runs");
    let ticks = lines_of(&process, "ticks");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lines_of(&process, "ticks"), ticks);
    process.cont()?;
    wait_for_pause(process.id(), false, DEADLINE)?;
    wait_for_ticks(&process, ticks)
}

#[test]
fn sigkill_ends_a_paused_process() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = ticker(home.path())?;
    process.stop()?;
    wait_for_pause(process.id(), true, DEADLINE)?;
    process.kill9()
}

#[test]
fn sigterm_is_the_programs_to_handle() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = ticker(home.path())?;
    wait_for_ticks(&process, 0)?;
    process.terminate()?;
    assert_eq!(process.wait(DEADLINE)?.code(), Some(7));
    assert!(process.lines().contains(&"told to end".to_owned()), "{:?}", process.lines());
    let failure = process.wait_for_line(DEADLINE, |line| line == "never written").unwrap_err().to_string();
    assert!(failure.contains("ended without the line") && failure.contains("told to end"), "{failure}");
    Ok(())
}

#[test]
fn a_wait_that_fails_shows_the_output() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = ticker(home.path())?;
    process.wait_for_line(DEADLINE, |line| line.starts_with("ready"))?;
    let failure = process.wait(Duration::from_millis(50)).unwrap_err().to_string();
    for part in ["ticker", "still runs after", "ready with a word", &home.path().display().to_string()] {
        assert!(failure.contains(part), "{failure}");
    }
    Ok(())
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let home = tempfile::tempdir().unwrap();
    let failure = Process::spawn("missing", home.path(), Program::new("/no/such/program")).unwrap_err().to_string();
    assert!(failure.contains("/no/such/program"), "{failure}");
}

#[test]
fn a_process_ends_with_its_owner() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = ticker(home.path())?;
    wait_for_ticks(&process, 0)?;
    let entry = std::path::PathBuf::from(format!("/proc/{}", process.id()));
    assert!(process.is_running()? && entry.exists());
    drop(process);
    assert!(!entry.exists());
    Ok(())
}

#[test]
fn each_of_a_fleet_has_its_own_state() -> Result<(), Failure> {
    let mut fleet = Fleet::start(3, |number, state| {
        let script = r#"trap 'exit 0' TERM; echo "$1" >> "$2/numbers"; echo up; while :; do sleep 0.01; done"#;
        Program::new("sh").args(["-c", script, "member", &number.to_string(), &state.display().to_string()])
    })?;
    assert_eq!(fleet.len(), 3);
    for number in 0..3 {
        fleet.process(number)?.wait_for_line(DEADLINE, |line| line == "up")?;
    }
    fleet.expect_running()?;
    fleet.process(1)?.kill9()?;
    assert!(fleet.expect_running().unwrap_err().to_string().contains("#1"));
    fleet.process(1)?.restart()?;
    fleet.process(1)?.wait_for_line(DEADLINE, |line| line == "up")?;
    let mut written = Vec::new();
    for number in 0..3 {
        written.push(std::fs::read_to_string(fleet.process(number)?.state_dir().join("numbers"))?);
    }
    assert_eq!(written, ["0\n", "1\n1\n", "2\n"]);
    assert!(fleet.process(3).unwrap_err().to_string().contains("#3"));
    fleet.shut_down(DEADLINE)
}
