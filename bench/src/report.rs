//! From samples to figures, ratios and verdicts.

use crate::Result;
use crate::run::Sample;
use serde::Serialize;

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The configuration's name.
    pub configuration: String,
    /// The round it ran in, from 0.
    pub round: usize,
    /// Records of the input.
    pub records: u64,
    /// Records per CPU-second of the process between the first and the ninth tenth of the input.
    pub steady_per_cpu_second: f64,
    /// Records per CPU-second of the process from the first record to the last commit.
    pub whole_per_cpu_second: f64,
    /// Records per second of wall time from the first record to the last commit.
    pub per_second: f64,
    /// CPU-seconds of the process from its start to the last commit.
    pub cpu_seconds: f64,
    /// CPU-seconds of the broker in that time, when the broker is ours.
    pub broker_cpu_seconds: Option<f64>,
    /// Seconds from the start of the process to the first record.
    pub start_seconds: f64,
    /// Peak resident memory, KiB.
    pub peak_rss_kib: u64,
}

impl Figures {
    /// Computes the figures of a run.
    ///
    /// # Errors
    /// When a mark is missing, or too little CPU time passed between two marks to divide by.
    pub fn new(configuration: &str, round: usize, samples: &[Sample]) -> Result<Self> {
        let at = |mark: &str| {
            let found = samples.iter().find(|sample| sample.mark == mark);
            found.ok_or_else(|| format!("{configuration}: no mark {mark}"))
        };
        let (main, first, p10, p90, committed) = (at("main")?, at("first")?, at("p10")?, at("p90")?, at("committed")?);
        let per_cpu = |from: &Sample, to: &Sample| {
            let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64();
            let records = to.records.saturating_sub(from.records);
            if cpu < 0.1 {
                // CPU time is known to 10 ms.
                return Err(format!(
                    "{configuration}: {cpu} CPU-seconds for {records} records from {} to {}: too few to measure; take more records",
                    from.mark, to.mark
                ));
            }
            Ok(real(records) / cpu)
        };
        let wall = committed.wall.saturating_sub(first.wall).as_secs_f64();
        Ok(Self {
            configuration: configuration.to_owned(),
            round,
            records: committed.records,
            steady_per_cpu_second: per_cpu(p10, p90)?,
            whole_per_cpu_second: per_cpu(first, committed)?,
            per_second: real(committed.records.saturating_sub(first.records)) / wall,
            cpu_seconds: committed.cpu.as_secs_f64(),
            broker_cpu_seconds: committed
                .broker_cpu
                .zip(main.broker_cpu)
                .map(|(end, start)| end.saturating_sub(start).as_secs_f64()),
            start_seconds: first.wall.as_secs_f64(),
            peak_rss_kib: samples.iter().filter_map(|sample| sample.peak_rss_kib).max().unwrap_or(0),
        })
    }
}

/// Median and extremes of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`, or `None` of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let upper = values.get(values.len() / 2)?;
        let lower = values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(*lower, *upper), min: *values.first()?, max: *values.last()? })
    }
}

/// A ratio of two configurations that must not fall below a floor.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// What is held to it.
    pub numerator: &'static str,
    /// What it is divided by.
    pub denominator: &'static str,
    /// The least ratio.
    pub floor: f64,
    /// The ratio that is hoped for.
    pub aim: f64,
}

/// The floors of the engine, as ratios of records per CPU-second at steady state.
pub const FLOORS: [Floor; 3] = [
    Floor { numerator: "engine-p1", denominator: "raw-p1", floor: 0.6, aim: 0.8 },
    Floor { numerator: "engine-p2", denominator: "raw-p1", floor: 0.14, aim: 0.2 },
    Floor { numerator: "engine-p2-eos-100", denominator: "engine-p2-alos-100", floor: 0.7, aim: 0.85 },
];

/// A floor and what was measured of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What is held to the floor.
    pub numerator: &'static str,
    /// What it is divided by.
    pub denominator: &'static str,
    /// The least ratio.
    pub floor: f64,
    /// The ratio that is hoped for.
    pub aim: f64,
    /// Ratios of runs of the same round, which stood next to each other: a machine drifts from minute to minute. Their
    /// median is judged. `None` when one of the two was not run.
    pub ratio: Option<Spread>,
    /// The ratio of the two medians over all rounds.
    pub ratio_of_medians: Option<f64>,
}

impl Verdict {
    /// Whether the floor was measured and missed.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.ratio.is_some_and(|ratio| ratio.median < self.floor)
    }
}

/// Compares `runs` with the [`FLOORS`].
#[must_use]
pub fn judge(runs: &[Figures]) -> Vec<Verdict> {
    let judge = |floor: &Floor| {
        let Floor { numerator, denominator, floor, aim } = *floor;
        let of = |name, round| runs.iter().find(|run| run.configuration == name && run.round == round);
        let rounds = runs
            .iter()
            .filter(|run| run.configuration == numerator)
            .filter_map(|run| Some(run.steady_per_cpu_second / of(denominator, run.round)?.steady_per_cpu_second));
        let median = |name| Some(spread(runs, name, |run| run.steady_per_cpu_second)?.median);
        let ratio_of_medians = median(numerator).zip(median(denominator)).map(|(above, below)| above / below);
        Verdict { numerator, denominator, floor, aim, ratio: Spread::of(rounds), ratio_of_medians }
    };
    FLOORS.iter().map(judge).collect()
}

/// The figures as tables for a person; `configurations` in the order of the rows.
#[must_use]
pub fn tables(configurations: &[String], runs: &[Figures], verdicts: &[Verdict]) -> String {
    let mut rows = vec![
        [
            "configuration",
            "runs",
            "steady",
            "min to max",
            "whole",
            "k records/s",
            "CPU s",
            "broker CPU s",
            "RSS MB",
            "start ms",
        ]
        .map(str::to_owned),
    ];
    for name in configurations {
        let of = |value: fn(&Figures) -> f64| spread(runs, name, value);
        let median = |value: fn(&Figures) -> f64, decimals| cell(of(value).map(|spread| spread.median), decimals);
        let steady = of(|run| run.steady_per_cpu_second / 1e3);
        rows.push([
            name.clone(),
            runs.iter().filter(|run| run.configuration == *name).count().to_string(),
            cell(steady.map(|steady| steady.median), 0),
            range(steady, 0),
            median(|run| run.whole_per_cpu_second / 1e3, 0),
            median(|run| run.per_second / 1e3, 0),
            median(|run| run.cpu_seconds, 2),
            median(|run| run.broker_cpu_seconds.unwrap_or(f64::NAN), 2),
            median(|run| real(run.peak_rss_kib) / 1024.0, 0),
            median(|run| run.start_seconds * 1e3, 0),
        ]);
    }
    let mut ratios =
        vec![["ratio", "median", "min to max", "of medians", "floor", "aim", "verdict"].map(str::to_owned)];
    for verdict in verdicts {
        let word = match verdict.ratio {
            None => "not measured",
            Some(_) if verdict.is_missed() => "MISSED",
            Some(ratio) if ratio.median < verdict.aim => "met",
            Some(_) => "met, and aim",
        };
        ratios.push([
            format!("{} / {}", verdict.numerator, verdict.denominator),
            cell(verdict.ratio.map(|ratio| ratio.median), 3),
            range(verdict.ratio, 3),
            cell(verdict.ratio_of_medians, 3),
            cell(Some(verdict.floor), 2),
            cell(Some(verdict.aim), 2),
            word.to_owned(),
        ]);
    }
    format!(
        "Records per CPU-second of the process, thousands: steady (10 % to 90 % of the input), whole (first record to last commit).\n\n{}\n\
         Ratios of steady records per CPU-second; judged is the median of the rounds' own ratios.\n\n{}",
        table(&rows),
        table(&ratios)
    )
}

/// A Markdown table with aligned columns: the first to the left, the others to the right. The first row is the head.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            text.push_str(&if column == 0 { format!("| {cell:width$} ") } else { format!("| {cell:>width$} ") });
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                text.push_str(&if column == 0 {
                    format!("|{:-<1$}", "", width + 2)
                } else {
                    format!("|{:-<1$}:", "", width + 1)
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// A number for a person; a dash where there is none.
fn cell(number: Option<f64>, decimals: usize) -> String {
    number.filter(|number| number.is_finite()).map_or_else(|| "–".to_owned(), |number| format!("{number:.decimals$}"))
}

fn range(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(String::new, |spread| format!("{:.decimals$} to {:.decimals$}", spread.min, spread.max))
}

fn spread(runs: &[Figures], name: &str, value: impl Fn(&Figures) -> f64) -> Option<Spread> {
    Spread::of(runs.iter().filter(|run| run.configuration == name).map(value))
}

/// A count as a real number; exact below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts of records and KiB are far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(mark: &str, records: u64, cpu_ms: u64) -> Sample {
        let cpu = Duration::from_millis(cpu_ms);
        Sample {
            mark: mark.to_owned(),
            records,
            wall: cpu * 2,
            cpu,
            broker_cpu: Some(cpu * 3),
            peak_rss_kib: Some(cpu_ms),
        }
    }

    fn samples() -> [Sample; 5] {
        [
            sample("main", 0, 100),
            sample("first", 0, 200),
            sample("p10", 100, 1_000),
            sample("p90", 900, 3_000),
            sample("committed", 1_000, 4_200),
        ]
    }

    fn figures(configuration: &str, round: usize, steady: f64) -> Figures {
        Figures { steady_per_cpu_second: steady, ..Figures::new(configuration, round, &samples()).unwrap() }
    }

    #[test]
    fn steady_state_leaves_out_start_and_end() {
        let figures = Figures::new("raw-p1", 0, &samples()).unwrap();
        assert_eq!(figures.steady_per_cpu_second, 400.0);
        assert_eq!(figures.whole_per_cpu_second, 250.0);
        assert_eq!(figures.per_second, 125.0);
        assert_eq!(figures.broker_cpu_seconds, Some(12.3));
        assert_eq!(figures.peak_rss_kib, 4_200);
    }

    #[test]
    fn too_short_a_run_is_refused_rather_than_divided() {
        let samples: Vec<_> = ["main", "first", "p10", "p90", "committed"].map(|mark| sample(mark, 10, 50)).into();
        let error = Figures::new("raw-p1", 0, &samples).unwrap_err().to_string();
        assert!(error.contains("more records"), "{error}");
    }

    #[test]
    fn a_median_of_an_even_number_is_between_the_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([5.0]), Some(Spread { median: 5.0, min: 5.0, max: 5.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_floor_is_judged_by_ratios_within_rounds() {
        // The machine halves its speed in each round; the ratio stays.
        let runs: Vec<_> = [(0, 8.0), (1, 4.0), (2, 2.0)]
            .into_iter()
            .flat_map(|(round, speed)| [figures("raw-p1", round, speed), figures("engine-p1", round, speed * 0.5)])
            .collect();
        let verdicts = judge(&runs);
        assert_eq!(verdicts[0].ratio, Some(Spread { median: 0.5, min: 0.5, max: 0.5 }));
        assert!(verdicts[0].is_missed());
        assert!(verdicts[1].ratio.is_none() && !verdicts[1].is_missed());
        let tables = tables(&["raw-p1".to_owned(), "engine-p1".to_owned()], &runs, &verdicts);
        assert!(tables.contains("MISSED") && tables.contains("not measured"), "{tables}");
        assert!(!tables.contains("NaN"), "{tables}");
    }
}
