//! Durations as people read them.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, TimeUnit,
};

const SECOND: u128 = 1_000_000_000;

/// Units below a minute, smallest first, in nanoseconds.
const SMALL: [(u128, &str); 4] = [(1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (SECOND, "s")];

/// Units from a minute on, largest first, in seconds.
const LARGE: [(u128, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];

/// A value of a column of durations; none if the column has something else, or the value is null.
pub(super) fn value(column: &dyn Array, row: usize) -> Option<String> {
    let DataType::Duration(unit) = column.data_type() else { return None };
    if column.is_null(row) {
        return None;
    }
    let (value, nanoseconds) = match unit {
        TimeUnit::Second => (column.as_primitive::<DurationSecondType>().value(row), SECOND),
        TimeUnit::Millisecond => {
            (column.as_primitive::<DurationMillisecondType>().value(row), 1_000_000)
        }
        TimeUnit::Microsecond => {
            (column.as_primitive::<DurationMicrosecondType>().value(row), 1_000)
        }
        TimeUnit::Nanosecond => (column.as_primitive::<DurationNanosecondType>().value(row), 1),
    };
    let sign = if value < 0 { "-" } else { "" };
    Some(format!("{sign}{}", words(u128::from(value.unsigned_abs()) * nanoseconds)))
}

/// Nanoseconds in the largest unit that fits, with three digits; from a minute on in two units.
fn words(nanoseconds: u128) -> String {
    for (unit, name) in SMALL {
        let limit = if unit == SECOND { 60 } else { 1_000 };
        let (value, decimals) = rounded(nanoseconds, unit);
        // What is rounded up to the limit is said in the next unit.
        if value < limit * 10_u128.pow(decimals) {
            return format!("{} {name}", decimal(value, decimals));
        }
    }
    let mut seconds = (nanoseconds + SECOND / 2) / SECOND;
    let mut first = LARGE.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(2);
    if let Some((unit, _)) = LARGE.get(first + 1) {
        seconds = (seconds + unit / 2) / unit * unit;
        // Rounding may have filled the next larger unit.
        first = LARGE.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(first);
    }
    let mut text = String::new();
    for (unit, name) in LARGE.iter().skip(first).take(2) {
        let many = seconds / unit;
        seconds %= unit;
        if many > 0 {
            let space = if text.is_empty() { "" } else { " " };
            text += &format!("{space}{many} {name}");
        }
    }
    text
}

/// A number of units with three digits: the digits, and how many of them are decimals.
fn rounded(nanoseconds: u128, unit: u128) -> (u128, u32) {
    let decimals = match nanoseconds / unit {
        _ if unit == 1 => 0,
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let scale = 10_u128.pow(decimals);
    ((nanoseconds * scale + unit / 2) / unit, decimals)
}

fn decimal(value: u128, decimals: u32) -> String {
    let scale = 10_u128.pow(decimals);
    let (whole, rest) = (value / scale, value % scale);
    let text = match decimals {
        0 => return whole.to_string(),
        _ => format!("{whole}.{rest:0width$}", width = decimals as usize),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use arrow::array::{DurationMillisecondArray, DurationNanosecondArray, Int64Array};

    use super::*;

    #[test]
    fn three_digits_and_the_largest_unit_that_fits() {
        let cases: [(u128, &str); 19] = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1 µs"),
            (1_234, "1.23 µs"),
            (999_499, "999 µs"),
            (999_500, "1 ms"),
            (406_186_423, "406 ms"),
            (40_060_000, "40.1 ms"),
            (999_600_000, "1 s"),
            (1_005_000_000, "1.01 s"),
            (59_940_000_000, "59.9 s"),
            (59_960_000_000, "1 min"),
            (61_400_000_000, "1 min 1 s"),
            (3_599_600_000_000, "1 h"),
            (3_661_000_000_000, "1 h 1 min"),
            (5_400_000_000_000, "1 h 30 min"),
            (86_399_000_000_000, "1 d"),
            (90_000_000_000_000, "1 d 1 h"),
            (100 * 86_400_000_000_000, "100 d"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(words(nanoseconds), text, "{nanoseconds}");
        }
    }

    #[test]
    fn columns_of_all_units() {
        let values = DurationNanosecondArray::from(vec![Some(-1_500), None, Some(i64::MIN)]);
        assert_eq!(value(&values, 0).as_deref(), Some("-1.5 µs"));
        assert_eq!(value(&values, 1), None);
        assert_eq!(value(&values, 2).as_deref(), Some("-106752 d"));
        let values = DurationMillisecondArray::from(vec![Some(2_500)]);
        assert_eq!(value(&values, 0).as_deref(), Some("2.5 s"));
        assert_eq!(value(&Int64Array::from(vec![1]), 0), None);
    }
}
