//! The word count as a person starts it: its binary, on the broker inside it and on a real Kafka.

use std::path::Path;
use std::time::Duration;

use headwater_integration_tests::oracle::{Counts, count_words};
use headwater_integration_tests::{Broker, Failure, Process, Program, Settings};

const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/texts/river.txt");
const DEADLINE: Duration = Duration::from_secs(120);

fn word_count() -> Program {
    Program::new(env!("CARGO_BIN_EXE_word-count"))
}

/// Runs it to its end: exit code and lines.
fn run(program: Program) -> Result<(Option<i32>, Vec<String>), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = Process::spawn("word count", home.path(), program)?;
    let status = process.wait(DEADLINE)?;
    Ok((status.code(), process.lines()))
}

/// The counts that it printed, one a line: the count, then the word.
fn printed(lines: &[String]) -> Counts {
    let count = |line: &String| {
        let (count, word) = line.trim_start().split_once("  ")?;
        Some((word.as_bytes().to_vec(), count.parse().ok()?))
    };
    lines.iter().filter_map(count).collect()
}

fn assert_counts_the_text(program: Program) -> Result<(), Failure> {
    let text = std::fs::read_to_string(TEXT)?;
    let (code, lines) = run(program)?;
    let shown = lines.join("\n");
    assert_eq!(code, Some(0), "{shown}");
    let expected = count_words(text.lines());
    assert_eq!(printed(&lines), expected);
    let verdict =
        format!("verdict: equal: {} distinct words, {} in all", expected.len(), expected.values().sum::<u64>());
    assert!(lines.contains(&verdict), "{verdict:?} is not in:\n{shown}");
    Ok(())
}

#[test]
fn a_text_is_counted_on_the_broker_inside() -> Result<(), Failure> {
    assert_counts_the_text(word_count().args(["--input", TEXT, "--until-end"]))
}

#[test]
fn standard_input_is_counted() -> Result<(), Failure> {
    let script = r#"exec "$1" --input - --until-end < "$2""#;
    let program = Program::new("sh").args(["-c", script, "word-count", env!("CARGO_BIN_EXE_word-count"), TEXT]);
    assert_counts_the_text(program)
}

#[test]
fn the_demo_moves_tasks_and_ends_on_sigterm() -> Result<(), Failure> {
    let home = tempfile::tempdir()?;
    let mut process = Process::spawn("demo", home.path(), word_count())?;
    let tasks = |line: &str, member: &str| line.contains(&format!("{member}: ")) && line.contains("top: ");
    process.wait_for_line(DEADLINE, |line| tasks(line, "member 2") && !line.contains("member 2: 0 tasks"))?;
    process.wait_for_line(DEADLINE, |line| tasks(line, "member 1") && line.contains("member 2: stopped"))?;
    let folder = std::env::temp_dir().join(format!("headwater-word-count-{}", process.id()));
    assert!(folder.exists());
    process.terminate()?;
    assert_eq!(process.wait(DEADLINE)?.code(), Some(0));
    assert!(!folder.exists(), "{} is left behind", folder.display());
    Ok(())
}

#[test]
fn a_text_is_counted_on_a_kafka() -> Result<(), Failure> {
    let broker = Broker::start(&Settings::default())?;
    let state = tempfile::tempdir()?;
    let program = word_count()
        .args(["--bootstrap", broker.bootstrap(), "--input", TEXT, "--until-end"])
        .args(["--state-dir", &state.path().display().to_string()]);
    assert_counts_the_text(program)
}

/// What the README of the example says, line by line.
#[test]
fn three_processes_count_right_when_one_is_killed() -> Result<(), Failure> {
    let broker = Broker::start(&Settings::default())?;
    let homes = tempfile::tempdir()?;
    let one_of_three = |number: usize, input: &[&str]| {
        let home = homes.path().join(number.to_string());
        let program = word_count()
            .args(["--bootstrap", broker.bootstrap()])
            .args(["--state-dir", &home.join("state").display().to_string()])
            .args(input.iter().copied());
        Process::spawn(&format!("#{number}"), &home, program)
    };
    let mut processes = Vec::new();
    for number in 0..3 {
        processes.push(one_of_three(number, &["--lines", "30000"])?);
    }
    // 16 tasks over three processes: none has fewer than four.
    for process in &mut processes {
        process.wait_for_line(DEADLINE, |line| tasks_of(line).is_some_and(|tasks| (4..=6).contains(&tasks)))?;
    }
    let mut killed = processes.remove(1);
    assert!(!killed.lines().iter().any(|line| line.contains("lines are written")), "lines flow when it is killed");
    killed.kill9()?;
    let mut fourth = one_of_three(3, &["--no-input"])?;
    fourth.wait_for_line(DEADLINE, |line| tasks_of(line).is_some_and(|tasks| tasks >= 4))?;
    for process in &mut processes {
        process.wait_for_line(DEADLINE, |line| line == "all 30000 lines are written")?;
    }
    verify(&broker)?;
    processes.push(fourth);
    for process in &mut processes {
        process.terminate()?;
    }
    for process in &mut processes {
        assert_eq!(process.wait(DEADLINE)?.code(), Some(0), "{}", process.lines().join("\n"));
    }
    Ok(())
}

/// The number of tasks in a line of a process that shows what it does.
fn tasks_of(line: &str) -> Option<usize> {
    line.split_once("process ")?.1.split_once(": ")?.1.split_once(" tasks")?.0.parse().ok()
}

fn verify(broker: &Broker) -> Result<(), Failure> {
    let (code, lines) = run(word_count().args(["--bootstrap", broker.bootstrap(), "--verify"]))?;
    assert_eq!(code, Some(0), "{}", lines.join("\n"));
    assert!(lines.iter().any(|line| line.starts_with("verdict: equal: 24 distinct words")), "{}", lines.join("\n"));
    Ok(())
}

#[test]
fn what_cannot_be_done_is_named() -> Result<(), Failure> {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--input", "/no/such/text"], &["--input /no/such/text", "No such file", "standard input"]),
        (&["--set", "no.such=1"], &["no.such = 1", "unknown setting", "commit.interval.ms"]),
        (&["--set", "no.such"], &["--set no.such", "NAME=VALUE"]),
        (&["--bootstrap", "127.0.0.1:1", "--set", "request.timeout.ms=2000"], &["127.0.0.1:1", "2000 ms"]),
        (&["--bootstrap", "127.0.0.1:1", "--set", "consumer.no.such=1"], &["no.such", "librdkafka"]),
    ];
    for (arguments, parts) in cases {
        let (code, lines) = run(word_count().args(arguments.iter().copied()))?;
        let shown = lines.join("\n");
        assert_eq!(code, Some(1), "{arguments:?}: {shown}");
        assert!(parts.iter().all(|part| shown.contains(part)), "{arguments:?}: not all of {parts:?} in: {shown}");
    }
    Ok(())
}

#[test]
fn text_that_is_not_utf_8_is_named_by_its_line() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("text");
    std::fs::write(&file, b"the river\nthe \xff river\n")?;
    let (code, lines) = run(word_count().args(["--input", &file.display().to_string(), "--until-end"]))?;
    let shown = lines.join("\n");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("line 2 of the input") && shown.contains("UTF-8"), "{shown}");
    Ok(())
}

#[test]
fn contradicting_arguments_are_refused() -> Result<(), Failure> {
    for arguments in [
        &["--state-dir", "here"][..],
        &["--verify"],
        &["--no-input"],
        &["--rate", "0"],
        &["--bootstrap", "127.0.0.1:1", "--verify", "--until-end"],
        &["--input", "-", "--lines", "5"],
    ] {
        let (code, lines) = run(word_count().args(arguments.iter().copied()))?;
        assert_eq!(code, Some(2), "{arguments:?}: {}", lines.join("\n"));
    }
    assert!(!Path::new("here").exists());
    Ok(())
}
