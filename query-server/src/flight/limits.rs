//! Limits the size that a statement may reach in planning. A name from `WITH` is replaced by its query at each
//! use, so a statement of twenty lines can expand to a million tables. Planning it would use up all memory.

use std::collections::HashMap;
use std::ops::ControlFlow;

use capstan_model::{Failure, FailureKind};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, GroupByWithModifier, ObjectName, Query, Select, Visit, Visitor,
};

/// Most tables that a statement may read; each use counts.
pub(super) const MAX_TABLES: u64 = 64;

/// Most selects and expressions that repeated uses of `WITH` names may expand to.
const MAX_REPEATED: u64 = 10_000;

/// Most grouping sets of a select: `CUBE` of ten columns has as many. Each is a pass over all rows that does not
/// notice cancellation.
const MAX_SETS: u64 = 1_024;

/// Refuses a statement that expands to too much.
///
/// # Errors
/// It does, of kind `Usage`.
pub(super) fn check(statement: &Statement) -> Result<(), Failure> {
    let mut count = Count { frames: vec![Frame::default()], sets: 0 };
    match statement {
        Statement::Statement(statement) => {
            let _ = statement.visit(&mut count);
        }
        Statement::Explain(explain) => return check(&explain.statement),
        // Refused later.
        _ => return Ok(()),
    }
    let sum = count.frames.first().map_or(Size::default(), |frame| frame.size);
    let words = if sum.tables > MAX_TABLES {
        format!(
            "the statement reads {} tables, counting each use; at most {MAX_TABLES} are allowed",
            sum.tables
        )
    } else if sum.repeated > MAX_REPEATED {
        format!(
            "uses of WITH names expand the statement by {} selects and expressions; at most \
             {MAX_REPEATED} are allowed",
            sum.repeated
        )
    } else if count.sets > MAX_SETS {
        format!(
            "CUBE, ROLLUP and GROUPING SETS of the statement make {} sets of columns; at most \
             {MAX_SETS} are allowed",
            count.sets
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(FailureKind::Usage, words))
}

/// The size of a query after all names are expanded.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    tables: u64,
    /// Selects and expressions.
    nodes: u64,
    /// The part of them that comes from uses of `WITH` names.
    repeated: u64,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.tables = self.tables.saturating_add(other.tables);
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.repeated = self.repeated.saturating_add(other.repeated);
    }
}

/// A query while it is walked.
#[derive(Debug, Default)]
struct Frame {
    size: Size,
    /// Names whose queries come next, the last one first.
    coming: Vec<String>,
    known: HashMap<String, Size>,
}

struct Count {
    frames: Vec<Frame>,
    /// The most sets of columns that a select groups by.
    sets: u64,
}

/// Sets of columns that a select groups by.
fn sets(select: &Select) -> u64 {
    let of_expr = |expr: &Expr| match expr {
        Expr::Cube(of) => cube(of.len()),
        Expr::Rollup(of) => of.len() as u64 + 1,
        Expr::GroupingSets(of) => of.len() as u64,
        _ => 1,
    };
    let (exprs, modifiers): (&[Expr], _) = match &select.group_by {
        GroupByExpr::All(modifiers) => (&[], modifiers),
        GroupByExpr::Expressions(exprs, modifiers) => (exprs, modifiers),
    };
    let of_modifier = |modifier: &GroupByWithModifier| match modifier {
        GroupByWithModifier::Rollup => exprs.len() as u64 + 1,
        GroupByWithModifier::Cube => cube(exprs.len()),
        GroupByWithModifier::GroupingSets(of) => of_expr(of),
        GroupByWithModifier::Totals => 1,
    };
    let all = exprs.iter().map(of_expr).chain(modifiers.iter().map(of_modifier));
    all.fold(1, u64::saturating_mul)
}

fn cube(columns: usize) -> u64 {
    u32::try_from(columns).ok().and_then(|of| 2_u64.checked_pow(of)).unwrap_or(u64::MAX)
}

impl Count {
    fn node(&mut self) -> ControlFlow<()> {
        if let Some(frame) = self.frames.last_mut() {
            frame.size.nodes = frame.size.nodes.saturating_add(1);
        }
        ControlFlow::Continue(())
    }
}

/// The lookup key of a name. It ignores case, so that the count is rather too high than too low.
fn key(name: &str) -> String {
    name.to_lowercase()
}

impl Visitor for Count {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let named = query.with.iter().flat_map(|with| &with.cte_tables);
        let mut coming: Vec<String> = named.map(|cte| key(&cte.alias.name.value)).collect();
        coming.reverse();
        self.frames.push(Frame { coming, ..Frame::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        // Each was pushed before; the first is the statement's own.
        let Some(Frame { size, .. }) = self.frames.pop() else { return ControlFlow::Break(()) };
        if let Some(above) = self.frames.last_mut() {
            match above.coming.pop() {
                // Walked once as it is written; it counts where it is used.
                Some(name) => {
                    above.known.insert(name, size);
                }
                None => above.size.add(size),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.sets = self.sets.max(sets(select));
        self.node()
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.node()
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = match &relation.0[..] {
            [name] => name.as_ident().map(|name| key(&name.value)),
            _ => None,
        };
        let known = name.and_then(|name| {
            self.frames.iter().rev().find_map(|frame| frame.known.get(&name).copied())
        });
        let size = match known {
            Some(size) => {
                // With what its own names stand for.
                let nodes = size.nodes.saturating_add(1);
                Size { repeated: nodes, nodes, ..size }
            }
            None => Size { tables: 1, nodes: 1, repeated: 0 },
        };
        if let Some(frame) = self.frames.last_mut() {
            frame.size.add(size);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    fn judge(sql: &str) -> Result<(), Failure> {
        let mut statements = DFParser::parse_sql(sql).expect("SQL");
        check(&statements.pop_front().expect("one"))
    }

    fn doubling(levels: usize) -> String {
        let next =
            |n: usize| format!(", a{} as (select * from a{n} union all select * from A{n})", n + 1);
        let rest: String = (0..levels).map(next).collect();
        format!("with a0 as (select 1 x){rest} select count(*) from a{levels}")
    }

    fn joined(tables: usize) -> String {
        let tables: Vec<String> = (0..tables).map(|n| format!("flows f{n}")).collect();
        format!("select count(*) from {}", tables.join(", "))
    }

    #[test]
    fn statements_that_expand_too_much_are_refused() {
        let list = format!("select 1 where 1 in ({})", vec!["1"; 50_000].join(","));
        let names = "with a as (select 1 from packets), b as (select * from a) \
                     select * from a, b, (with a as (select 2) select * from a) c";
        for sql in [&list, names, &doubling(8), &joined(64), "explain select 1", "show tables"] {
            assert!(judge(sql).is_ok(), "{sql:.80}");
        }
        let nested = "with a as (select * from t, t u, t v, t w), b as (select * from a, a c, a d, a e), \
                      c as (select * from b, b x, b y, b z) select * from c, c d";
        let cube = |columns: usize| {
            let columns: Vec<_> = (0..columns).map(|n| format!("c{n}")).collect();
            format!("select 1 from packets group by cube({})", columns.join(", "))
        };
        let rollups = "select 1 from (select 2 from packets group by rollup(a, b, c), cube(a, b, c, d, e, f, g, h, i))";
        for sql in
            [&cube(10), "select 1 from packets group by rollup(a, b), grouping sets ((a), (b))"]
        {
            assert!(judge(sql).is_ok(), "{sql}");
        }
        for sql in
            [&doubling(20), &doubling(60), &joined(65), nested, &cube(11), &cube(70), rollups]
        {
            let refused = judge(sql).expect_err(sql);
            assert_eq!(refused.kind(), FailureKind::Usage);
            assert!(judge(&format!("explain {sql}")).is_err());
        }
    }
}
