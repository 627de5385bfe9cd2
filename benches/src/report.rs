//! Results: rows, their floors and aims, and the Markdown table.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::measure::Usage;

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) work: String,
    /// What it cost Capstan.
    pub(crate) ours: Figure,
    /// What it cost others, by their names.
    pub(crate) peers: Vec<(String, Figure)>,
    /// The number that counts.
    pub(crate) judged: Judged,
}

/// What some work cost.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Runs of a program, one a round.
    Runs(Vec<Usage>),
    /// Bytes stored.
    Bytes(u64),
    /// Some other number and its unit.
    Number(f64, &'static str),
}

/// A number, and what it should be. Less is better.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Judged {
    pub(crate) value: f64,
    /// What the number is: `CPU ratio`, `s wall`.
    pub(crate) unit: &'static str,
    /// None where nothing is asked for.
    pub(crate) limits: Option<Limits>,
}

/// What a number may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// More than this fails.
    pub(crate) floor: f64,
    /// What is aimed at.
    pub(crate) aim: f64,
}

/// How a number compares with its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// No more than the floor.
    Met,
    /// No more than the aim.
    AimMet,
    /// More than the floor.
    Missed,
    /// There is no floor.
    None,
}

impl Judged {
    pub(crate) fn new(value: f64, unit: &'static str, floor: f64, aim: f64) -> Judged {
        Judged { value, unit, limits: Some(Limits { floor, aim }) }
    }

    pub(crate) fn unlimited(value: f64, unit: &'static str) -> Judged {
        Judged { value, unit, limits: None }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.limits {
            None => Verdict::None,
            Some(limits) if self.value <= limits.aim => Verdict::AimMet,
            Some(limits) if self.value <= limits.floor => Verdict::Met,
            // Also a number that is none: what was not measured is not met.
            Some(_) => Verdict::Missed,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Met => "met",
            Verdict::AimMet => "aim met",
            Verdict::Missed => "**MISSED**",
            Verdict::None => "-",
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Runs(runs) => {
                let usage = median_usage(runs);
                write!(
                    f,
                    "{} s CPU, {} MiB, {} s",
                    short(usage.cpu.as_secs_f64()),
                    short(usage.peak_bytes as f64 / f64::from(1 << 20)),
                    short(usage.wall.as_secs_f64())
                )
            }
            Figure::Bytes(bytes) => write!(f, "{} MiB", short(*bytes as f64 / f64::from(1 << 20))),
            Figure::Number(value, unit) => write!(f, "{} {unit}", short(*value)),
        }
    }
}

/// Three digits that matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The middle one of some numbers; of an even count the mean of the middle two. NaN of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The medians of what several runs used, each for itself.
pub(crate) fn median_usage(runs: &[Usage]) -> Usage {
    let of = |part: fn(&Usage) -> f64| median(runs.iter().map(part));
    let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
    Usage {
        cpu: seconds(of(|usage| usage.cpu.as_secs_f64())),
        wall: seconds(of(|usage| usage.wall.as_secs_f64())),
        peak_bytes: of(|usage| usage.peak_bytes as f64) as u64,
    }
}

/// Our median processor time against a peer's.
pub(crate) fn cpu_ratio(ours: &[Usage], peer: &[Usage]) -> f64 {
    median_usage(ours).cpu.as_secs_f64() / median_usage(peer).cpu.as_secs_f64()
}

/// All rows as a Markdown table.
pub(crate) fn table<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let header = ["work", "ours", "peer", "measured", "floor", "aim", "verdict"];
    let mut lines = vec![header.map(str::to_owned)];
    for row in rows {
        let peers: Vec<String> =
            row.peers.iter().map(|(name, figure)| format!("{name}: {figure}")).collect();
        let limit = |of: fn(&Limits) -> f64| {
            row.judged
                .limits
                .as_ref()
                .map_or_else(|| "-".to_owned(), |limits| of(limits).to_string())
        };
        lines.push([
            row.work.clone(),
            row.ours.to_string(),
            if peers.is_empty() { "-".to_owned() } else { peers.join("; ") },
            format!("{} {}", short(row.judged.value), row.judged.unit),
            limit(|limits| limits.floor),
            limit(|limits| limits.aim),
            row.judged.verdict().to_string(),
        ]);
    }
    markdown(&lines)
}

/// A Markdown table of lines of cells, the first its header, padded so that it can be read as it is.
fn markdown<const N: usize>(lines: &[[String; N]]) -> String {
    let escaped: Vec<[String; N]> =
        lines.iter().map(|line| line.each_ref().map(|cell| cell.replace('|', "\\|"))).collect();
    let mut widths = [3; N];
    for line in &escaped {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for (number, line) in escaped.iter().enumerate() {
        for (width, cell) in widths.iter().zip(line) {
            out += &format!("| {cell:width$} ");
        }
        out += "|\n";
        if number == 0 {
            for width in widths {
                out += &format!("| {} ", "-".repeat(width));
            }
            out += "|\n";
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: u64, wall: u64, mib: u64) -> Usage {
        Usage {
            cpu: Duration::from_millis(cpu),
            wall: Duration::from_millis(wall),
            peak_bytes: mib << 20,
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([7.0]), 7.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn medians_are_of_each_part() {
        let runs = [usage(100, 9000, 3), usage(300, 1000, 1), usage(200, 2000, 2)];
        assert_eq!(median_usage(&runs), usage(200, 2000, 2));
        assert_eq!(cpu_ratio(&runs, &[usage(400, 1, 1)]), 0.5);
    }

    #[test]
    fn limits_judge() {
        let verdict = |value| Judged::new(value, "", 1.6, 1.0).verdict();
        assert_eq!(verdict(0.9), Verdict::AimMet);
        assert_eq!(verdict(1.0), Verdict::AimMet);
        assert_eq!(verdict(1.6), Verdict::Met);
        assert_eq!(verdict(1.61), Verdict::Missed);
        assert_eq!(verdict(f64::NAN), Verdict::Missed);
        assert_eq!(Judged::unlimited(9.0, "").verdict(), Verdict::None);
        // Drops: nothing but none will do.
        assert_eq!(Judged::new(1.0, "", 0.0, 0.0).verdict(), Verdict::Missed);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.01234, 1.234, 12.34, 123.4, 12345.6].map(short);
        assert_eq!(shown, ["0", "0.012", "1.23", "12.3", "123", "12346"]);
    }

    #[test]
    fn rows_become_a_table() {
        let rows = [
            Row {
                work: "a|b".to_owned(),
                ours: Figure::Runs(vec![usage(1500, 2000, 10)]),
                peers: vec![("lz4".to_owned(), Figure::Runs(vec![usage(1000, 1000, 5)]))],
                judged: Judged::new(1.5, "CPU ratio", 1.6, 1.0),
            },
            Row {
                work: "c".to_owned(),
                ours: Figure::Bytes(3 << 20),
                peers: vec![],
                judged: Judged::unlimited(3.0, "B"),
            },
        ];
        let table = table(&rows);
        let cells: Vec<Vec<&str>> =
            table.lines().map(|line| line.split(" | ").map(str::trim).collect()).collect();
        assert_eq!(cells.len(), 4);
        assert_eq!(
            cells[2][..6],
            [
                "| a\\|b",
                "1.50 s CPU, 10.0 MiB, 2.00 s",
                "lz4: 1.00 s CPU, 5.00 MiB, 1.00 s",
                "1.50 CPU ratio",
                "1.6",
                "1"
            ]
        );
        assert!(cells[2][6].starts_with("met"));
        assert_eq!(cells[3][1..6], ["3.00 MiB", "-", "3.00 B", "-", "-"]);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }
}
