//! Turns the conditions of a WHERE into input for a scan: a time window and an expression over index terms.
//! Pure.
//!
//! A condition that the scan decides completely is `Exact`. Another one may narrow the scan to a superset of its
//! rows (`Inexact`); the engine then filters the rows again.

use std::collections::BTreeMap;

use capstan_index::Field;
use capstan_index::filter::{FlowFilter, Term};
use capstan_model::{Address, Protocol};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, InList, TryCast};
use datafusion::logical_expr::{
    Between, BinaryExpr, Expr, Like, Operator, TableProviderFilterPushDown,
};
use datafusion::scalar::ScalarValue;

use super::functions;
use super::window::Window;

/// The table that the conditions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// A row a packet, with one time.
    Packets,
    /// A row a flow part or flow, with a first and a last time.
    Flows,
    /// A row something the catalog says, about a stretch of time.
    Catalog,
}

/// The part of all conditions that a scan handles.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pushed {
    /// The time window; none if no condition is about time, and then rows without a time match.
    pub(super) window: Option<Window>,
    /// Flows that may have such rows.
    pub(super) flows: FlowFilter,
}

/// How far a scan can handle a condition of a WHERE.
pub(super) fn support(condition: &Expr, table: Table) -> Result<TableProviderFilterPushDown> {
    use TableProviderFilterPushDown::{Exact, Inexact, Unsupported};
    if window(condition, table).is_some() {
        // A flow part that touches the window need not meet the condition.
        return Ok(if table == Table::Packets { Exact } else { Inexact });
    }
    if port_bound(condition).is_some() {
        // Another condition may be the other end of a range.
        return Ok(Inexact);
    }
    let terms = terms(condition)?;
    Ok(match terms {
        Terms { exact: true, .. } => Exact,
        Terms { flows, .. } if flows.is_all() => Unsupported,
        _ => Inexact,
    })
}

/// The part of a conjunction that a scan can handle.
pub(super) fn push<'a>(
    conditions: impl IntoIterator<Item = &'a Expr>,
    table: Table,
) -> Result<Pushed> {
    let mut all: Option<Window> = None;
    let (mut flows, mut ports) = (Vec::new(), Vec::new());
    for condition in conditions {
        if let Some(window) = window(condition, table) {
            all = Some(all.map_or(window, |before| before.intersect(window)));
        } else if port_bound(condition).is_some() {
            ports.push(condition);
        } else {
            let found = terms(condition)?.flows;
            if !found.is_all() {
                flows.push(found);
            }
        }
    }
    flows.extend(port_ranges(ports));
    let flows = match flows.len() {
        1 => flows.remove(0),
        _ => FlowFilter::And(flows),
    };
    Ok(Pushed { window: all, flows })
}

/// The time window of a condition; none if it is about anything else.
pub(super) fn window(condition: &Expr, table: Table) -> Option<Window> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Some(window(left, table)?.intersect(window(right, table)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = match nanos(right) {
                Some(value) if is_time(left, table) => (*op, value),
                _ if is_time(right, table) => (op.swap()?, nanos(left)?),
                _ => return None,
            };
            match op {
                Operator::Eq => Some(Window::from(value).intersect(Window::until(value))),
                Operator::GtEq => Some(Window::from(value)),
                Operator::Gt => Some(Window::after(value)),
                Operator::LtEq => Some(Window::until(value)),
                Operator::Lt => Some(Window::before(value)),
                _ => None,
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_time(expr, table) => {
            Some(Window::from(nanos(low)?).intersect(Window::until(nanos(high)?)))
        }
        _ => None,
    }
}

/// Whether it is a time column: of packets their time, of flows either end. If one end of a flow lies on the
/// selected side of a moment, so does a part of it.
fn is_time(expr: &Expr, table: Table) -> bool {
    match expr {
        Expr::Column(column) => match table {
            Table::Packets => column.name == "time",
            Table::Flows => matches!(column.name.as_str(), "first_time" | "last_time"),
            Table::Catalog => matches!(
                column.name.as_str(),
                "first_time" | "last_time" | "start_time" | "end_time"
            ),
        },
        // The same moment under another name: the stored values are UTC nanoseconds.
        Expr::Cast(Cast { expr, field, .. }) | Expr::TryCast(TryCast { expr, field, .. }) => {
            matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _))
                && is_time(expr, table)
        }
        _ => false,
    }
}

fn nanos(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::TimestampNanosecond(value, _), _) => *value,
        _ => None,
    }
}

/// The flows that a condition selects.
#[derive(Debug, Clone, PartialEq)]
struct Terms {
    /// A superset of the flows with a row that meets the condition.
    flows: FlowFilter,
    /// It is true of all rows of these flows, and of no other row.
    exact: bool,
    /// It is never null, so that what is not true is false.
    total: bool,
}

impl Terms {
    /// Nothing is known.
    fn unknown() -> Self {
        Terms { flows: FlowFilter::all(), exact: false, total: false }
    }

    fn narrowing(flows: FlowFilter) -> Self {
        Terms { flows, exact: false, total: false }
    }

    fn deciding(flows: FlowFilter, total: bool) -> Self {
        Terms { flows, exact: true, total }
    }

    fn and(self, other: Terms) -> Self {
        let parts = |flows| match flows {
            FlowFilter::And(parts) => parts,
            other => vec![other],
        };
        Terms {
            flows: FlowFilter::And([parts(self.flows), parts(other.flows)].concat()),
            exact: self.exact && other.exact,
            total: self.total && other.total,
        }
    }

    fn or(self, other: Terms) -> Self {
        let parts = |flows| match flows {
            FlowFilter::Or(parts) => parts,
            other => vec![other],
        };
        Terms {
            flows: FlowFilter::Or([parts(self.flows), parts(other.flows)].concat()),
            exact: self.exact && other.exact,
            total: self.total && other.total,
        }
    }

    fn negate(self) -> Self {
        if self.exact && self.total { Terms::deciding(!self.flows, true) } else { Terms::unknown() }
    }
}

fn terms(condition: &Expr) -> Result<Terms> {
    Ok(match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let together = port_ranges([&**left, &**right]);
            let part = |side: &Expr| match port_bound(side) {
                Some(_) => Ok(Terms::unknown()),
                None => terms(side),
            };
            let both = part(left)?.and(part(right)?);
            together.into_iter().fold(both, |both, flows| both.and(Terms::narrowing(flows)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            terms(left)?.or(terms(right)?)
        }
        Expr::Not(inner) => terms(inner)?.negate(),
        // A WHERE drops null like false.
        Expr::IsTrue(inner) => terms(inner)?,
        Expr::IsFalse(inner) => terms(inner)?.negate(),
        Expr::IsNotTrue(inner) => terms(inner)?.negate(),
        Expr::IsNotFalse(inner) => terms(inner)?.negate().negate(),
        Expr::Alias(alias) => terms(&alias.expr)?,
        Expr::ScalarFunction(call) => match functions::marked(call)? {
            Some(flows) => Terms::deciding(flows, true),
            None => Terms::unknown(),
        },
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let compared = match (&**left, &**right) {
                (expr, Expr::Literal(value, _)) | (Expr::Literal(value, _), expr) => {
                    column(expr).map(|name| equal(name, value))
                }
                _ => None,
            };
            match (compared, op) {
                (Some(equal), Operator::Eq) => equal,
                (Some(equal), Operator::NotEq) => equal.negate(),
                _ => lone_port_bound(condition),
            }
        }
        Expr::Between(_) => lone_port_bound(condition),
        Expr::Like(Like {
            negated: false,
            expr,
            pattern,
            escape_char: None,
            case_insensitive: false,
        }) => match (column(expr), &**pattern) {
            (Some(name), Expr::Literal(value, _)) => {
                value.try_as_str().flatten().map_or_else(Terms::unknown, |text| like(name, text))
            }
            _ => Terms::unknown(),
        },
        Expr::InList(InList { expr, list, negated }) => {
            let Some(name) = column(expr) else { return Ok(Terms::unknown()) };
            let one = |item: &Expr| match item {
                Expr::Literal(value, _) => equal(name, value),
                _ => Terms::unknown(),
            };
            let any = any(list.iter().map(one));
            if *negated { any.negate() } else { any }
        }
        _ => Terms::unknown(),
    })
}

fn lone_port_bound(condition: &Expr) -> Terms {
    port_ranges([condition]).pop().map_or_else(Terms::unknown, Terms::narrowing)
}

/// The name of a column. A value was brought to the column's type before.
fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(&column.name),
        _ => None,
    }
}

/// One of several: a flat list, however long the IN is.
fn any(parts: impl Iterator<Item = Terms>) -> Terms {
    let mut any = Terms::deciding(FlowFilter::nothing(), true);
    let mut flows = Vec::new();
    for part in parts {
        any.exact &= part.exact;
        any.total &= part.total;
        flows.push(part.flows);
    }
    Terms { flows: FlowFilter::Or(flows), ..any }
}

/// `column = value`.
fn equal(column: &str, value: &ScalarValue) -> Terms {
    let text = value.try_as_str().flatten();
    let number = number(value);
    match (column, text, number) {
        ("source_ip" | "destination_ip", Some(text), _) => address(text, Term::ip),
        ("outer_source_ip" | "outer_destination_ip", Some(text), _) => {
            address(text, Term::outer_ip)
        }
        // 0 is what flows without ports have, too.
        ("source_port" | "destination_port", _, Some(1..)) => {
            Terms::narrowing(in_range::<u16>(number, Term::port))
        }
        ("ip_protocol", _, Some(1..)) => {
            Terms::deciding(in_range::<u8>(number, Term::ip_protocol), false)
        }
        ("vlan", _, Some(_)) => Terms::deciding(in_range::<u16>(number, Term::vlan), false),
        // The two directions of a flow may have other ones.
        ("vni", _, Some(_)) => Terms::narrowing(in_range::<u32>(number, Term::vni)),
        ("protocol", Some(text), _) => {
            // A name this version does not know may be one that a newer one recorded.
            match Protocol::ALL.iter().find(|protocol| protocol.name() == text) {
                Some(protocol) => Terms::deciding(Term::protocol(*protocol).into(), true),
                None => Terms::unknown(),
            }
        }
        ("flow_id", Some(text), _) => {
            // No flow has an id that is written differently.
            let flow = text.parse().map(|id| Term::flow(id).into());
            Terms::narrowing(flow.unwrap_or_else(|_| FlowFilter::nothing()))
        }
        (name, Some(text), _) => match text_field(name) {
            Some(field) => Terms::narrowing(Term::new(field, text).into()),
            None => Terms::unknown(),
        },
        _ => Terms::unknown(),
    }
}

/// The field with the texts of a column.
fn text_field(column: &str) -> Option<Field> {
    Some(match column {
        "source_namespace" | "destination_namespace" => Field::Namespace,
        "source_pod" | "destination_pod" => Field::Pod,
        "sni" => Field::Sni,
        "alpn" => Field::Alpn,
        _ => return None,
    })
}

/// A comparison of a column of ports with a number, as the column and the values that meet it.
fn port_bound(condition: &Expr) -> Option<(&str, i64, i64)> {
    if let Expr::Between(Between { expr, negated: false, low, high }) = condition {
        let (column, low, high) = (column(expr)?, literal_number(low)?, literal_number(high)?);
        return is_port(column).then_some((column, low, high));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (column, op, number) = match literal_number(right) {
        Some(number) => (column(left)?, *op, number),
        None => (column(right)?, op.swap()?, literal_number(left)?),
    };
    let (low, high) = match op {
        Operator::Lt => (i64::MIN, number.saturating_sub(1)),
        Operator::LtEq => (i64::MIN, number),
        Operator::Gt => (number.saturating_add(1), i64::MAX),
        Operator::GtEq => (number, i64::MAX),
        _ => return None,
    };
    is_port(column).then_some((column, low, high))
}

fn is_port(column: &str) -> bool {
    matches!(column, "source_port" | "destination_port")
}

/// The flows with ports in the ranges that comparisons make together: `port >= 1 AND port <= 9`.
fn port_ranges<'a>(conditions: impl IntoIterator<Item = &'a Expr>) -> Vec<FlowFilter> {
    let mut ranges: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for (column, low, high) in conditions.into_iter().filter_map(port_bound) {
        let range = ranges.entry(column).or_insert((i64::MIN, i64::MAX));
        *range = (range.0.max(low), range.1.min(high));
    }
    let flows = |(low, high): (i64, i64)| {
        let high = high.min(u16::MAX.into());
        match (u16::try_from(low), u16::try_from(high)) {
            (Ok(low), Ok(high)) if low <= high => FlowFilter::ports(low..=high),
            _ => FlowFilter::nothing(),
        }
    };
    // 0 is what flows without ports have, too.
    ranges.into_values().filter(|(low, _)| *low >= 1).map(flows).collect()
}

/// `column LIKE pattern`: what is before the first wildcard, or behind the only one.
fn like(column: &str, pattern: &str) -> Terms {
    let Some(field) = text_field(column) else { return Terms::unknown() };
    let wildcard = |byte: char| matches!(byte, '%' | '_' | '\\');
    let prefix = pattern.split(wildcard).next().unwrap_or_default();
    if !prefix.is_empty() {
        return Terms::narrowing(Term::prefix(field, prefix).into());
    }
    match pattern.strip_prefix('%') {
        Some(suffix) if !suffix.is_empty() && !suffix.contains(wildcard) => {
            Terms::narrowing(Term::suffix(field, suffix).into())
        }
        _ => Terms::unknown(),
    }
}

fn literal_number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => number(value),
        _ => None,
    }
}

fn number(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int32(Some(number)) => Some(i64::from(*number)),
        ScalarValue::Int64(Some(number)) => Some(*number),
        _ => None,
    }
}

fn address(text: &str, term: fn(Address) -> Term) -> Terms {
    match text.parse::<Address>() {
        // Not indexed: packets without addresses have it, too.
        Ok(Address::NONE) => Terms::unknown(),
        Ok(address) => Terms::narrowing(term(address).into()),
        // No address is written like this, so no row has it.
        Err(_) => Terms::narrowing(FlowFilter::nothing()),
    }
}

fn in_range<T: TryFrom<i64>>(number: Option<i64>, term: fn(T) -> Term) -> FlowFilter {
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(value) => term(value).into(),
        None => FlowFilter::nothing(),
    }
}

#[cfg(test)]
mod tests;
