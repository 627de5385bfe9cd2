//! Turns the conditions of a WHERE into input for a scan: a time window and an expression over index terms.
//! Pure.
//!
//! A condition that the scan decides completely is `Exact`. Another one may narrow the scan to a superset of its
//! rows (`Inexact`); the engine then filters the rows again.

use capstan_index::filter::{FlowFilter, Term};
use capstan_model::{Address, Protocol};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, InList, TryCast};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
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
    let mut flows = Vec::new();
    for condition in conditions {
        if let Some(window) = window(condition, table) {
            all = Some(all.map_or(window, |before| before.intersect(window)));
        } else {
            let found = terms(condition)?.flows;
            if !found.is_all() {
                flows.push(found);
            }
        }
    }
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
            terms(left)?.and(terms(right)?)
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
                _ => Terms::unknown(),
            }
        }
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
    let number = match value {
        ScalarValue::Int32(Some(number)) => Some(i64::from(*number)),
        ScalarValue::Int64(Some(number)) => Some(*number),
        _ => None,
    };
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
        ("source_namespace" | "destination_namespace", Some(text), _) => {
            Terms::narrowing(Term::namespace(text).into())
        }
        _ => Terms::unknown(),
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
