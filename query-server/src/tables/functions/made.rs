//! Estimates the length of a function's result from its arguments.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;

use crate::questions;

/// How the length of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Made {
    /// The first as often as the second says.
    Repeated,
    /// As many characters as the second says.
    Padded,
    /// The first, with the third for each second in it.
    Replaced,
    /// The first, with the third for what the second matches.
    RegexReplaced,
    /// All, one after the other.
    Joined,
    /// All but the first, with the first between.
    JoinedBy,
    /// The first, each byte as so many.
    Longer(u64),
    /// A text by the format in the second.
    Formatted,
    /// The elements of the first, with the second between.
    ListJoined,
    /// The list in the first, each element perhaps replaced by the third.
    ListReplaced,
    /// A list of as many of the first as the second says.
    ListOfOne,
    /// A list of as many elements as the second says, filled with the third.
    ListOfLength,
    /// Steps of the third from the first to the second.
    Series,
    /// About what it is given, nothing of it more than once.
    Plain,
    /// Nothing, but all letters of the first are compared with all of the second.
    Compared,
}

/// Bytes of a number, time or such in an array.
const FIXED: u64 = 16;

/// One letter of a format may become a name of a month, a zone, or a fraction.
const FORMATTED: u64 = 32;

/// Finds of a text in another, after which it is asked whether the question was stopped.
const LOOKED_FOR: u64 = 1 << 16;

/// One argument: a value for all rows, or one for each.
struct Argument {
    values: ArrayRef,
    is_one: bool,
}

impl Argument {
    fn place(&self, row: usize) -> usize {
        if self.is_one { 0 } else { row }
    }

    fn bytes(&self, row: usize) -> u64 {
        bytes(&self.values, self.place(row))
    }

    fn number(&self, row: usize) -> u64 {
        let place = self.place(row);
        let number = self.values.as_primitive_opt::<Int64Type>();
        let number = number.filter(|numbers| numbers.is_valid(place));
        number.map_or(0, |numbers| u64::try_from(numbers.value(place)).unwrap_or(0))
    }

    fn signed(&self, row: usize) -> Option<i64> {
        let place = self.place(row);
        let numbers = self.values.as_primitive_opt::<Int64Type>()?;
        numbers.is_valid(place).then(|| numbers.value(place))
    }

    fn text(&self, row: usize) -> Option<&str> {
        let place = self.place(row);
        if self.values.is_null(place) {
            return None;
        }
        match self.values.data_type() {
            DataType::Utf8 => Some(self.values.as_string::<i32>().value(place)),
            DataType::LargeUtf8 => Some(self.values.as_string::<i64>().value(place)),
            DataType::Utf8View => Some(self.values.as_string_view().value(place)),
            _ => None,
        }
    }
}

/// An argument that is text.
pub(super) struct Text(Argument);

impl Text {
    /// The text of so many rows.
    ///
    /// # Errors
    /// None that is known; a value can be put into an array.
    pub(super) fn of(value: &ColumnarValue, rows: usize) -> Result<Text> {
        let is_one = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_one { 1 } else { rows })?;
        Ok(Text(Argument { values, is_one }))
    }

    /// The text of a row; none if it is null.
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        self.0.text(row)
    }
}

/// Bytes of one value.
fn bytes(values: &ArrayRef, place: usize) -> u64 {
    if place >= values.len() || values.is_null(place) {
        return 0;
    }
    let length = match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value(place).len(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(place).len(),
        DataType::Utf8View => values.as_string_view().value(place).len(),
        DataType::Binary => values.as_binary::<i32>().value(place).len(),
        DataType::LargeBinary => values.as_binary::<i64>().value(place).len(),
        DataType::BinaryView => values.as_binary_view().value(place).len(),
        DataType::FixedSizeBinary(size) => usize::try_from(*size).unwrap_or(0),
        DataType::List(_) => return elements(&values.as_list::<i32>().value(place)),
        DataType::LargeList(_) => return elements(&values.as_list::<i64>().value(place)),
        DataType::FixedSizeList(..) => {
            return elements(&values.as_fixed_size_list().value(place));
        }
        _ => return FIXED,
    };
    length as u64
}

/// Bytes of all elements of a list.
fn elements(list: &ArrayRef) -> u64 {
    let each = (0..list.len()).map(|place| bytes(list, place).saturating_add(FIXED));
    each.fold(0, u64::saturating_add)
}

/// Elements of a list value.
fn count(values: &ArrayRef, place: usize) -> u64 {
    if values.is_null(place) {
        return 0;
    }
    let count = match values.data_type() {
        DataType::List(_) => values.as_list::<i32>().value(place).len(),
        DataType::LargeList(_) => values.as_list::<i64>().value(place).len(),
        DataType::FixedSizeList(_, size) => usize::try_from(*size).unwrap_or(0),
        _ => 0,
    };
    count as u64
}

/// The arguments of a call, and what it makes of them.
pub(super) struct Reading {
    made: Made,
    arguments: Vec<Argument>,
    rows: usize,
}

impl Reading {
    /// Reads the arguments of a call over so many rows.
    ///
    /// # Errors
    /// None that is known; a value can be put into an array.
    pub(super) fn of(made: Made, args: &[ColumnarValue], rows: usize) -> Result<Reading> {
        let argument = |(place, value): (usize, &ColumnarValue)| -> Result<Argument> {
            let is_one = matches!(value, ColumnarValue::Scalar(_));
            let values = value.to_array(if is_one { 1 } else { rows })?;
            let values = match (made, place) {
                (Made::Repeated | Made::Padded | Made::ListOfOne | Made::ListOfLength, 1)
                | (Made::Series, _) => as_numbers(values)?,
                _ => values,
            };
            Ok(Argument { values, is_one })
        };
        let arguments = args.iter().enumerate().map(argument).collect::<Result<Vec<_>>>()?;
        // What is the same for all rows is made once.
        let one = arguments.iter().all(|argument| argument.is_one);
        Ok(Reading { made, arguments, rows: if one { 1 } else { rows } })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether one value is made for all rows.
    pub(super) fn is_one(&self) -> bool {
        self.arguments.iter().all(|argument| argument.is_one)
    }

    fn bytes(&self, argument: usize, row: usize) -> u64 {
        self.arguments.get(argument).map_or(0, |argument| argument.bytes(row))
    }

    fn number(&self, argument: usize, row: usize) -> u64 {
        self.arguments.get(argument).map_or(0, |argument| argument.number(row))
    }

    fn all(&self, row: usize) -> u64 {
        self.arguments.iter().map(|argument| argument.bytes(row)).fold(0, u64::saturating_add)
    }

    /// Bytes that are made of a row at most; for [`Made::Compared`], steps.
    ///
    /// # Errors
    /// The question was stopped.
    pub(super) fn made(&self, row: usize) -> Result<u64> {
        let first = self.bytes(0, row);
        Ok(match self.made {
            Made::Repeated => first.saturating_mul(self.number(1, row)),
            Made::Padded => self.number(1, row).saturating_mul(self.widest(2, row)),
            Made::Replaced => self.replaced(row)?,
            Made::RegexReplaced => {
                let with = self.bytes(2, row);
                // Each match of nothing, and groups that are put in again.
                let all = first.saturating_add(1).saturating_mul(with);
                all.saturating_add(first.saturating_mul(with / 2 + 1))
            }
            Made::Joined | Made::Plain => self.all(row),
            Made::JoinedBy => {
                let between = self.arguments.len().saturating_sub(2) as u64;
                self.all(row).saturating_add(first.saturating_mul(between))
            }
            Made::Longer(times) => first.saturating_mul(times),
            Made::Formatted => self.bytes(1, row).saturating_mul(FORMATTED),
            Made::ListJoined => {
                let many =
                    self.arguments.first().map_or(0, |list| count(&list.values, list.place(row)));
                let each =
                    self.bytes(1, row).saturating_add(self.bytes(2, row)).saturating_add(FIXED);
                first.saturating_add(many.saturating_mul(each))
            }
            Made::ListReplaced => {
                let many =
                    self.arguments.first().map_or(0, |list| count(&list.values, list.place(row)));
                first.saturating_add(many.saturating_mul(self.bytes(2, row)))
            }
            Made::ListOfOne => first.saturating_add(FIXED).saturating_mul(self.number(1, row)),
            Made::ListOfLength => {
                let filled = self.bytes(2, row).saturating_add(FIXED);
                first.saturating_add(filled.saturating_mul(self.number(1, row)))
            }
            Made::Series => self.series(row).saturating_mul(FIXED),
            Made::Compared => first.saturating_mul(self.bytes(1, row)),
        })
    }

    /// Bytes of the widest letter of a text; of a blank if there is none.
    fn widest(&self, argument: usize, row: usize) -> u64 {
        let text = self.arguments.get(argument).and_then(|argument| argument.text(row));
        let widest = text.and_then(|text| text.chars().map(char::len_utf8).max());
        // What is cut keeps its own letters.
        widest.map_or(1, |bytes| bytes as u64).max(if self.is_ascii(0, row) { 1 } else { 4 })
    }

    fn is_ascii(&self, argument: usize, row: usize) -> bool {
        let text = self.arguments.get(argument).and_then(|argument| argument.text(row));
        text.is_none_or(|text| text.is_ascii())
    }

    fn replaced(&self, row: usize) -> Result<u64> {
        let (first, with) = (self.bytes(0, row), self.bytes(2, row));
        let most = first.saturating_add(1).saturating_mul(with.saturating_add(1));
        if most <= 1 << 20 {
            return Ok(most);
        }
        let text = |argument: usize| self.arguments.get(argument)?.text(row);
        match (text(0), text(1)) {
            (Some(whole), Some(part)) if !part.is_empty() => {
                let mut found = 0_u64;
                for _ in whole.matches(part) {
                    found += 1;
                    if found.is_multiple_of(LOOKED_FOR) {
                        questions::check()?;
                    }
                }
                Ok(first.saturating_add(found.saturating_mul(with)))
            }
            _ => Ok(most),
        }
    }

    /// Steps of a series. Times come as nanoseconds, days as days; months are counted as 28 days.
    fn series(&self, row: usize) -> u64 {
        let of = |argument: usize| self.arguments.get(argument).and_then(|of| of.signed(row));
        let (from, to) = match (of(0), of(1)) {
            (Some(to), None) if self.arguments.len() == 1 => (0, to),
            (Some(from), Some(to)) => (from, to),
            _ => return 0,
        };
        let step = match self.arguments.get(2) {
            Some(step) => step.signed(row).unwrap_or(0).unsigned_abs(),
            None => 1,
        };
        // A step of nothing is refused by the function itself.
        from.abs_diff(to).checked_div(step).map_or(0, |steps| steps.saturating_add(1))
    }
}

/// Whatever counts as numbers: times as nanoseconds, steps between times as nanoseconds.
fn as_numbers(values: ArrayRef) -> Result<ArrayRef> {
    const DAY: i64 = 86_400_000_000_000;
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let numbers = match values.data_type() {
        DataType::Interval(_) => {
            let whole = cast(&values, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let steps = whole.as_primitive::<IntervalMonthDayNanoType>();
            let steps = steps.unary::<_, Int64Type>(|step| {
                let days = i64::from(step.months) * 28 + i64::from(step.days);
                days.saturating_mul(DAY).saturating_add(step.nanoseconds)
            });
            return Ok(std::sync::Arc::new(steps));
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            cast(&cast(&values, &nanoseconds)?, &DataType::Int64)?
        }
        _ => cast(&values, &DataType::Int64)?,
    };
    Ok(numbers)
}
