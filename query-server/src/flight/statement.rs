//! Planning and running one statement. Only statements that read are run.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use capstan_model::words::{agree, count};
use capstan_model::{Failure, FailureKind};
use capstan_view::access::Principal;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use futures::{StreamExt, TryStreamExt, stream};

use super::handle::Statement;
use super::{limits, notes, rewrite, status, wire};
use crate::tables::{Deletions, Skipped, leaving_long_values, longest_value, makes_long_values};

/// Highest number a parameter may have.
const MAX_PARAMETERS: usize = 1_000;

/// Most operators and keywords of a statement; see [`check_depth`].
const MAX_LEVELS: usize = 1_000;

/// Batch size in rows where functions expand short values to long ones.
const LONG_VALUES_AT_ONCE: usize = 256;

/// Limit on the bytes of one value of a statement when it is copied for all rows of a batch.
const WRITTEN_OUT: usize = 32 << 20;

/// The batch size in rows, if it must be smaller than usual. `left` is the longest value that is made only at
/// run time, bytes.
fn rows_at_once(plan: &LogicalPlan, left: u64) -> Option<usize> {
    let longest = usize::try_from(left).unwrap_or(usize::MAX).max(longest_value(plan));
    let by_values = match longest {
        0..=4_096 => None,
        long => Some((WRITTEN_OUT / long).clamp(1, LONG_VALUES_AT_ONCE)),
    };
    let by_functions = makes_long_values(plan).then_some(LONG_VALUES_AT_ONCE);
    by_values.or(by_functions)
}

/// A planned statement, and the tables it will read.
pub(super) struct Planned {
    context: SessionContext,
    who: Arc<Principal>,
    plan: LogicalPlan,
}

/// A failure of the query engine as a principal gets it.
fn told(error: &DataFusionError, who: &Principal) -> Failure {
    let failure = status::from_query(error);
    // It names operators of all running queries.
    if status::is_of_shared_memory(error) { who.told_of_memory(failure) } else { failure }
}

impl Planned {
    /// Plans `statement` over the tables of `context`, which are those of a principal, with its parameters filled in.
    pub(super) async fn new(
        context: SessionContext,
        who: &Arc<Principal>,
        statement: &Statement,
    ) -> Result<Planned, Failure> {
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let sql = prepare(&statement.sql, dialect.as_ref())?;
        let failed = |error: DataFusionError| told(&error, who);
        let parsed = state.sql_to_statement(&sql, &dialect).map_err(failed)?;
        limits::check(&parsed)?;
        let plan = rewrite::plan(&state, parsed).await.map_err(failed)?;
        only_reads(&plan)?;
        let plan = match &statement.parameters {
            Some(row) => {
                let values = values(&parameters(&plan)?, row)?;
                plan.with_param_values(values).map_err(failed)?
            }
            None => plan,
        };
        Ok(Planned { context, who: Arc::clone(who), plan })
    }

    /// The columns of the answer, as they are sent.
    pub(super) fn schema(&self) -> SchemaRef {
        wire::result_schema(self.plan.schema().as_arrow())
    }

    /// The parameters that have no value yet, in the order they are bound.
    pub(super) fn parameters(&self) -> Result<Schema, Failure> {
        parameters(&self.plan).map(Schema::new)
    }

    /// Starts the statement. Dropping the answer cancels it.
    pub(super) async fn run(self) -> Result<wire::Answer, Failure> {
        let missing = parameters(&self.plan)?;
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|field| field.name().as_str()).collect();
            return Err(usage(format!("parameter {} has no value", names.join(", "))));
        }
        let schema = self.schema();
        let mut state = self.context.state();
        let who = Arc::clone(&self.who);
        let failed = move |error: DataFusionError| told(&error, &who);
        let skipped = Arc::new(Skipped::default());
        state.config_mut().set_extension(Arc::clone(&skipped));
        let deletions = Arc::new(Deletions::default());
        state.config_mut().set_extension(Arc::clone(&deletions));
        let (plan, left) = leaving_long_values(|| state.optimize(&self.plan));
        let plan = plan.map_err(&failed)?;
        if let Some(rows) = rows_at_once(&plan, left) {
            let config = state.config_mut();
            *config = config.clone().with_batch_size(rows);
        }
        let plan = state.query_planner().create_physical_plan(&plan, &state);
        let plan = plan.await.map_err(&failed)?;
        let schema = notes::with_notes(schema, &deletions.lines());
        let batches = execute_stream(plan, state.task_ctx()).map_err(&failed)?;
        // Rows come first: what is missing among them is known after the last one.
        let missing = stream::iter(std::iter::from_fn(move || skipped.failure())).take(1);
        Ok(wire::encode(schema, batches.map_err(failed).chain(missing.map(Err))))
    }
}

/// Refuses statements that change data, the catalog or the session.
fn only_reads(plan: &LogicalPlan) -> Result<(), Failure> {
    let options =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    if options.verify_plan(plan).is_ok() {
        return Ok(());
    }
    let mut met = "this statement is";
    // What stopped the check is met again; the walk itself cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        met = match node {
            LogicalPlan::Ddl(_) => "CREATE, ALTER and DROP are",
            LogicalPlan::Dml(_) => "INSERT, UPDATE, DELETE and TRUNCATE are",
            LogicalPlan::Copy(_) => "COPY is",
            LogicalPlan::Statement(_) => "SET, PREPARE, EXECUTE and transactions are",
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    Err(usage(format!("{met} refused: SQL access is read-only")))
}

/// The text for DataFusion's parser, if it is not too large.
fn prepare<'a>(sql: &'a str, dialect: &str) -> Result<Cow<'a, str>, Failure> {
    let tokens = dialect_from_str(dialect)
        .and_then(|dialect| Tokenizer::new(dialect.as_ref(), sql).tokenize_with_location().ok());
    match tokens {
        Some(tokens) => {
            check_depth(&tokens)?;
            number_placeholders(sql, &tokens)
        }
        // The parser fails in the same way, with a better message.
        None => Ok(Cow::Borrowed(sql)),
    }
}

/// Refuses statements whose plan may be too deep: DataFusion walks it recursively, so that a long `1 + 1 + …`
/// would overflow the stack and end the process. Every operator and keyword counts as a level. Values and names,
/// commas between them and parentheses (whose depth the parser limits) do not, so lists have any length.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), Failure> {
    let levels = tokens.iter().filter(|token| match &token.token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::HexStringLiteral(_)
        | Token::Placeholder(_)
        | Token::Whitespace(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::EOF => false,
        _ => true,
    });
    match levels.count() {
        0..=MAX_LEVELS => Ok(()),
        levels => Err(usage(format!(
            "the statement has {levels} operators and keywords; at most {MAX_LEVELS} are allowed: \
             write long alternatives as IN (…)"
        ))),
    }
}

/// Gives each `?` its number, by its place in the text: `$1`, `$2`, … DataFusion
/// takes all question marks for one parameter otherwise.
fn number_placeholders<'a>(
    sql: &'a str,
    tokens: &[TokenWithSpan],
) -> Result<Cow<'a, str>, Failure> {
    let mut marks = Vec::new();
    let mut others = false;
    for token in tokens {
        match &token.token {
            Token::Placeholder(text) if text == "?" => marks.push(token.span.start),
            Token::Placeholder(_) => others = true,
            _ => {}
        }
    }
    if marks.is_empty() {
        return Ok(Cow::Borrowed(sql));
    }
    if others {
        return Err(usage("write all parameters as ? or all as $1, $2, … and not both"));
    }
    let mut numbered = String::with_capacity(sql.len() + 3 * marks.len());
    let mut next = marks.iter().enumerate().peekable();
    let mut place = Location { line: 1, column: 1 };
    for c in sql.chars() {
        match next.next_if(|(_, mark)| **mark == place) {
            Some((at, _)) => numbered.push_str(&format!("${}", at + 1)),
            None => numbered.push(c),
        }
        if c == '\n' {
            place = Location { line: place.line + 1, column: 1 };
        } else {
            place.column += 1;
        }
    }
    Ok(Cow::Owned(numbered))
}

/// The parameters of a plan: `$1` to the highest number, or names in the order of
/// the alphabet. One whose type does not follow from the statement has the null type.
fn parameters(plan: &LogicalPlan) -> Result<Vec<FieldRef>, Failure> {
    let found = plan.get_parameter_fields().map_err(|e| status::from_query(&e))?;
    let field = |id: &str, known: Option<FieldRef>| {
        let known = known.map_or(DataType::Null, |field| wire::wire_type(field.data_type()));
        Arc::new(Field::new(id, known, true))
    };
    let mut numbered = BTreeMap::new();
    let mut named = BTreeMap::new();
    for (id, known) in found {
        match number(&id) {
            Some(number) => numbered.insert(number, known),
            None => named.insert(id, known),
        };
    }
    if !numbered.is_empty() && !named.is_empty() {
        return Err(usage("write all parameters as numbers ($1) or all as names ($from)"));
    }
    let highest = numbered.keys().last().copied().unwrap_or(0);
    if highest > MAX_PARAMETERS || named.len() > MAX_PARAMETERS {
        return Err(usage(format!("a statement can have {MAX_PARAMETERS} parameters")));
    }
    let numbered = (1..=highest)
        .map(|number| field(&format!("${number}"), numbered.get(&number).cloned().flatten()));
    Ok(numbered.chain(named.iter().map(|(id, known)| field(id, known.clone()))).collect())
}

/// The number of a placeholder such as `$7`.
fn number(id: &str) -> Option<usize> {
    bare(id).parse().ok()
}

/// A placeholder or column name without its sign.
fn bare(id: &str) -> &str {
    id.strip_prefix(['$', ':', '@', '?']).unwrap_or(id)
}

/// The row's cells as the values of the parameters: by name where parameters have
/// names, else by place.
fn values(parameters: &[FieldRef], row: &RecordBatch) -> Result<ParamValues, Failure> {
    if parameters.len() != row.num_columns() {
        return Err(usage(format!(
            "the statement has {} and {} {} bound",
            count(parameters.len() as u64, "parameter"),
            count(row.num_columns() as u64, "value"),
            agree(row.num_columns() as u64, "is", "are")
        )));
    }
    let cells = row
        .columns()
        .iter()
        .map(|column| ScalarValue::try_from_array(column, 0))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| status::from_query(&e))?;
    if parameters.iter().all(|parameter| number(parameter.name()).is_some()) {
        return Ok(ParamValues::from(cells));
    }
    let schema = row.schema();
    let mut cells: HashMap<String, ScalarValue> =
        schema.fields().iter().map(|field| bare(field.name()).to_owned()).zip(cells).collect();
    let mut named = HashMap::with_capacity(cells.len());
    for parameter in parameters {
        let name = bare(parameter.name());
        let Some(value) = cells.remove(name) else {
            return Err(usage(format!("no bound column is named {name}")));
        };
        named.insert(name.to_owned(), value);
    }
    Ok(ParamValues::from(named))
}

fn usage(words: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, words)
}

#[cfg(test)]
mod tests {
    use capstan_index::filter::FlowFilter;
    use capstan_view::access::{KEY_BYTES, Mask, Rights};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    #[test]
    fn question_marks_are_numbered_by_position() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT ?, ?", "SELECT $1, $2"),
            (
                "SELECT 'what?', \"odd?\", ? -- why?\n, ?",
                "SELECT 'what?', \"odd?\", $1 -- why?\n, $2",
            ),
            ("SELECT 'it''s ä?' /* ? */,\n\t?", "SELECT 'it''s ä?' /* ? */,\n\t$1"),
            ("SELECT ?2, ?1", "SELECT ?2, ?1"),
        ] {
            assert_eq!(prepare(sql, "generic").expect("one way"), expected);
        }
        assert!(prepare("SELECT ?, $2", "generic").is_err());
    }

    #[test]
    fn long_in_lists_are_accepted_and_long_expression_chains_refused() {
        let list = format!("SELECT a FROM t WHERE a IN ({})", vec!["'x'"; 50_000].join(", "));
        assert!(prepare(&list, "generic").is_ok());
        let chain = format!("SELECT {}", vec!["1"; MAX_LEVELS + 1].join(" + "));
        let failure = prepare(&chain, "generic").expect_err("1,001 levels");
        assert_eq!(failure.kind(), FailureKind::Usage);
    }

    async fn planned(sql: &str) -> Result<Planned, Failure> {
        let statement = Statement::new(sql.to_owned()).expect("short");
        let context = SessionContext::new_with_config(super::super::session_config());
        Planned::new(context, &Principal::everything(), &statement).await
    }

    #[tokio::test]
    async fn statements_other_than_reads_are_refused() {
        for (sql, word) in [
            ("CREATE TABLE t AS SELECT 1", "CREATE"),
            ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/tmp/x'", "CREATE"),
            ("DROP TABLE IF EXISTS t", "CREATE"),
            ("COPY (SELECT 1) TO '/tmp/x.parquet'", "COPY"),
            ("EXPLAIN COPY (SELECT 1) TO '/tmp/x.parquet'", "COPY"),
            ("EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x.parquet'", "COPY"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("BEGIN", "BEGIN"),
            ("START TRANSACTION", "transactions"),
            ("SELECT 1; SELECT 2", ""),
        ] {
            let error = planned(sql).await.err().unwrap_or_else(|| panic!("{sql} is taken"));
            assert_eq!(error.kind(), FailureKind::Usage, "{sql}: {error}");
            assert!(error.to_string().contains(word), "{sql}: {error}");
        }
        for sql in ["SHOW TABLES", "SHOW ALL", "EXPLAIN SELECT 1", "VALUES (1), (2)"] {
            assert!(planned(sql).await.is_ok(), "{sql}");
        }
    }

    #[tokio::test]
    async fn parameters_are_listed_in_the_order_they_are_bound() {
        let names = |planned: Planned| {
            let schema = planned.parameters().expect("one kind");
            schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
        };
        let numbered = planned("SELECT $2::bigint + 1, $11::bigint").await.expect("a plan");
        let expected: Vec<_> = (1..=11).map(|number| format!("${number}")).collect();
        assert_eq!(names(numbered), expected);
        let named = planned("SELECT $upto::bigint, $after::bigint").await.expect("a plan");
        assert_eq!(names(named), ["$after", "$upto"]);
        let many = planned("SELECT $4000000000::bigint").await.expect("a plan");
        assert_eq!(many.parameters().expect_err("too many").kind(), FailureKind::Usage);
    }

    #[tokio::test]
    async fn memory_error_names_operators_only_without_a_mask() {
        let sql = "SELECT array_agg(value) FROM generate_series(1, 200000)";
        for mask in [None, Mask::new(FlowFilter::all(), [0; KEY_BYTES]).ok()] {
            let is_masked = mask.is_some();
            let who = Principal::new("team", Rights::all(), mask);
            let runtime = RuntimeEnvBuilder::new().with_memory_limit(64 << 10, 1.0).build_arc();
            let context = SessionContext::new_with_config_rt(
                super::super::session_config(),
                runtime.expect("a runtime"),
            );
            let statement = Statement::new(sql.to_owned()).expect("short");
            let planned = Planned::new(context, &who, &statement).await.expect("a plan");
            let answer = planned.run().await.expect("an answer");
            let status = answer.try_collect::<Vec<_>>().await.expect_err("too much memory");
            let failure = status::from_status(&status);
            assert_eq!(failure.kind(), FailureKind::Full, "{failure}");
            assert_eq!(failure.to_string().contains("Aggregate"), !is_masked, "{failure}");
        }
    }
}
