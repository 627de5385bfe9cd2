//! Rewrites valid statements that the query engine refuses or gets wrong, into a form that it accepts.
//!
//! * `SELECT protocol, sum(length)/1024 … GROUP BY 1 ORDER BY 2`: a number in ORDER BY means a column of the
//!   answer. The engine looks for that column among the groups and aggregates below and does not find it, unless
//!   it has an alias. So it gets one: its own text.
//! * `row_number() OVER (ORDER BY payload)`: a RANGE frame keeps rows together that are equal in the order. The
//!   engine supports it for numbers, texts and times only. If the frame reaches to the current row or is
//!   unbounded, a GROUPS frame is equivalent, for any type.
//! * `SELECT a + 1 AS a FROM (SELECT a + 1 AS a FROM (SELECT 1 AS a))`: the engine takes the two column lists
//!   for one, and drops one. With an alias for the inner subquery they differ.
//! * `SELECT * FROM (SELECT 1 AS a), (SELECT 2 AS a)`: the engine refuses two columns of one name, unless their
//!   subqueries have aliases.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Window, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Ident, OrderBy, OrderByKind, Query, SelectItem, SetExpr, TableAlias,
    TableFactor, Value, VisitMut, VisitorMut,
};

/// Plans a statement.
///
/// # Errors
/// The engine's error for the original statement.
pub(super) async fn plan(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    if let Some(apart) = with_subqueries_named(statement.clone(), Which::InsideOthers)
        && let Ok(plan) = with_or_without_names(state, apart).await
    {
        return with_peers(plan);
    }
    let error = match with_or_without_names(state, statement.clone()).await {
        Ok(plan) => return with_peers(plan),
        Err(error) => error,
    };
    match with_subqueries_named(statement, Which::All) {
        Some(named) => with_peers(with_or_without_names(state, named).await.map_err(|_| error)?),
        None => Err(error),
    }
}

/// Plans a statement as it is; if that fails, with aliases for the columns that a number in ORDER BY means.
async fn with_or_without_names(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    let error = match state.statement_to_plan(statement.clone()).await {
        Ok(plan) => return Ok(plan),
        Err(error) => error,
    };
    match with_names(statement) {
        Some(named) => state.statement_to_plan(named).await.map_err(|_| error),
        None => Err(error),
    }
}

/// Visits a statement completely, also one inside of EXPLAIN.
fn visit(statement: &mut Statement, visitor: &mut impl VisitorMut) {
    match statement {
        Statement::Explain(explained) => visit(&mut explained.statement, visitor),
        Statement::Statement(sql) => {
            // The visitor never stops early.
            let _ = sql.visit(visitor);
        }
        _ => {}
    }
}

/// The statement with aliases for the columns that a number in ORDER BY means; none if there are none.
fn with_names(mut statement: Statement) -> Option<Statement> {
    let mut names = Names { given: 0 };
    visit(&mut statement, &mut names);
    (names.given > 0).then_some(statement)
}

struct Names {
    given: usize,
}

impl VisitorMut for Names {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Some(OrderBy { kind: OrderByKind::Expressions(order), .. }) = &query.order_by else {
            return ControlFlow::Continue(());
        };
        let SetExpr::Select(select) = query.body.as_mut() else {
            return ControlFlow::Continue(());
        };
        let wild = |item: &SelectItem| {
            matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
        };
        for place in order.iter().filter_map(|by| number(&by.expr)) {
            // Behind a `*` the number is not the position in the list.
            let before = select.projection.get(..place).unwrap_or_default();
            let Some(item) = place.checked_sub(1).filter(|_| !before.iter().any(wild)) else {
                continue;
            };
            let Some(item) = select.projection.get_mut(item) else { continue };
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if matches!(expr, SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_)) {
                continue;
            }
            let alias = Ident::with_quote('"', expr.to_string());
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            self.given += 1;
        }
        ControlFlow::Continue(())
    }
}

/// Which of the subqueries without an alias get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those inside others without one.
    InsideOthers,
    /// All.
    All,
}

/// The statement with names for subqueries that have none; none if there are none.
fn with_subqueries_named(mut statement: Statement, which: Which) -> Option<Statement> {
    let mut subqueries = Subqueries { which, around: Vec::new(), named: 0 };
    visit(&mut statement, &mut subqueries);
    (subqueries.named > 0).then_some(statement)
}

struct Subqueries {
    which: Which,
    /// Of each table that is being visited whether it is a subquery without a name.
    around: Vec<bool>,
    named: usize,
}

impl VisitorMut for Subqueries {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Derived { alias: alias @ None, .. } = table else {
            self.around.push(false);
            return ControlFlow::Continue(());
        };
        if self.which == Which::All || self.around.contains(&true) {
            self.named += 1;
            let name = Ident::with_quote('"', format!("subquery {}", self.named));
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        self.around.push(true);
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, _: &mut TableFactor) -> ControlFlow<()> {
        self.around.pop();
        ControlFlow::Continue(())
    }
}

/// The number that stands for a column of the answer.
fn number(expr: &SqlExpr) -> Option<usize> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// The plan with frames of GROUPS where those of RANGE are not known for the type.
fn with_peers(plan: LogicalPlan) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Window(window) = node else { return Ok(Transformed::no(node)) };
        let mut any = false;
        let exprs = window.window_expr.iter().map(|expr| match peers(expr, &window.input) {
            Some(changed) => {
                any = true;
                changed
            }
            None => expr.clone(),
        });
        let exprs: Vec<Expr> = exprs.collect();
        if !any {
            return Ok(Transformed::no(LogicalPlan::Window(window)));
        }
        let window = Window::try_new(exprs, Arc::clone(&window.input))?;
        Ok(Transformed::yes(LogicalPlan::Window(window)))
    })?;
    Ok(changed.data)
}

/// A window function with another frame and the name it had; none if it needs none.
fn peers(expr: &Expr, input: &LogicalPlan) -> Option<Expr> {
    let (function, name) = match expr {
        Expr::WindowFunction(function) => (function, expr.schema_name().to_string()),
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::WindowFunction(function) => (function, alias.name.clone()),
            _ => return None,
        },
        _ => return None,
    };
    let frame = &function.params.window_frame;
    let has_peers = |bound: &WindowFrameBound| {
        bound.is_unbounded() || matches!(bound, WindowFrameBound::CurrentRow)
    };
    let kind = function.params.order_by.first()?.expr.get_type(input.schema()).ok()?;
    let other = frame.units == WindowFrameUnits::Range
        && has_peers(&frame.start_bound)
        && has_peers(&frame.end_bound)
        && !has_ranges(&kind);
    if !other {
        return None;
    }
    let mut function = function.clone();
    function.params.window_frame = WindowFrame::new_bounds(
        WindowFrameUnits::Groups,
        function.params.window_frame.start_bound.clone(),
        function.params.window_frame.end_bound.clone(),
    );
    Some(Expr::WindowFunction(function).alias(name))
}

/// Whether the engine knows frames of RANGE for a type.
fn has_ranges(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => has_ranges(values),
        kind if kind.is_numeric() || kind.is_string() || kind.is_null() => true,
        DataType::Boolean | DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    use super::*;

    const TABLE: &str =
        "(VALUES ('a', 2048, X'01'), ('b', 5000, X'00'), ('a', 1024, X'01')) AS t (k, n, b)";

    async fn planned(context: &SessionContext, sql: &str) -> Result<LogicalPlan> {
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        plan(&state, state.sql_to_statement(sql, &dialect)?).await
    }

    async fn column(sql: &str, column: usize) -> Vec<i64> {
        let context = SessionContext::new_with_config(super::super::session_config());
        let sql = sql.replace("{t}", TABLE);
        let plan = planned(&context, &sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await;
        let batches = batches.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let values = batches.iter().flat_map(|batch| {
            let column = batch.column(column);
            let column = datafusion::arrow::compute::cast(column, &DataType::Int64).unwrap();
            column.as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
        });
        values.map(|value| value.unwrap_or(-1)).collect()
    }

    #[tokio::test]
    async fn order_by_number_selects_any_result_column() {
        for (sql, at, expected) in [
            ("SELECT k, sum(n)/1024 FROM {t} GROUP BY k ORDER BY 2 DESC", 1, vec![4, 3]),
            ("SELECT k, sum(n)/1024 FROM {t} GROUP BY 1 ORDER BY 2, 1", 1, vec![3, 4]),
            ("SELECT sum(n)/1024 FROM {t} ORDER BY 1", 0, vec![7]),
            ("SELECT DISTINCT sum(n)/1024 FROM {t} GROUP BY k ORDER BY 1", 0, vec![3, 4]),
            (
                "SELECT sum(n)/1024, CASE WHEN count(*) > 1 THEN 'many' ELSE 'one' END FROM {t} \
                 GROUP BY k ORDER BY 2 DESC, 1",
                0,
                vec![4, 3],
            ),
            (
                "SELECT v FROM (SELECT k, max(n) - min(n) FROM {t} GROUP BY k ORDER BY 2 LIMIT 1) \
                 AS x (k, v)",
                0,
                vec![0],
            ),
            (
                "WITH x AS (SELECT k || 'x', -sum(n) AS s FROM {t} GROUP BY k ORDER BY 1) \
                 SELECT s + 0 FROM x ORDER BY 1",
                0,
                vec![-5000, -3072],
            ),
            (
                "SELECT sum(n), row_number() OVER (ORDER BY sum(n)) FROM {t} GROUP BY k ORDER BY 2",
                0,
                vec![3072, 5000],
            ),
        ] {
            assert_eq!(column(sql, at).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn equal_column_lists_of_subqueries_stay_separate() {
        for (sql, expected) in [
            ("SELECT a+1 AS a FROM (SELECT a+1 AS a FROM (SELECT 1 AS a))", vec![3]),
            (
                "SELECT a*2 AS a FROM (SELECT a*2 AS a FROM (SELECT a*2 AS a FROM (SELECT n AS a \
                 FROM {t}))) ORDER BY 1",
                vec![8_192, 16_384, 40_000],
            ),
            (
                "SELECT a+1 AS a FROM (SELECT a+1 AS a FROM (SELECT 1 AS a UNION ALL SELECT 5)) \
                 ORDER BY 1",
                vec![3, 7],
            ),
            ("SELECT (SELECT a+1 AS a FROM (SELECT a+1 AS a FROM (SELECT 1 AS a)))", vec![3]),
            ("SELECT count(*) FROM (SELECT * FROM (SELECT 1 AS a), (SELECT 2 AS a))", vec![1]),
            ("SELECT a FROM (SELECT 1 AS a) JOIN (SELECT 1 AS a) USING (a)", vec![1]),
            // A table keeps its name through a subquery without one.
            (
                "SELECT t.n FROM (SELECT * FROM (SELECT * FROM {t})) ORDER BY 1",
                vec![1024, 2048, 5000],
            ),
        ] {
            assert_eq!(column(sql, 0).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn window_functions_accept_any_type() {
        for (sql, expected) in [
            ("SELECT rank() OVER (ORDER BY b), n FROM {t} ORDER BY n", vec![2, 2, 1]),
            // Equal rows are in each other's frame.
            ("SELECT sum(n) OVER (ORDER BY b), n FROM {t} ORDER BY n", vec![8072, 8072, 5000]),
            ("SELECT count(*) OVER (ORDER BY b DESC) AS c, n FROM {t} ORDER BY n", vec![2, 2, 3]),
            ("SELECT lag(n) OVER (ORDER BY b, n), n FROM {t} ORDER BY n", vec![5000, 1024, -1]),
            (
                "SELECT count(*) OVER (ORDER BY b RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING), n \
                 FROM {t} ORDER BY n",
                vec![2, 2, 3],
            ),
        ] {
            assert_eq!(column(sql, 0).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn errors_refer_to_the_original_statement() {
        let context = SessionContext::new_with_config(super::super::session_config());
        let sql = format!("SELECT k, nothing/1024 FROM {TABLE} GROUP BY k ORDER BY 2");
        let error = planned(&context, &sql).await.unwrap_err().to_string();
        assert!(error.contains("nothing"), "{error}");
    }
}
