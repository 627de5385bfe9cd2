//! Every function that a statement can call was judged, and the limits hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_fixtures::{Recording, traffic};
use capstan_view::access::Principal;
use datafusion::arrow::array::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;

use super::*;
use crate::flight::session_config;
use crate::tables::session;
use crate::testing::view_of;

/// Functions whose values are about as long as what they are given, or of a fixed length.
const PLAIN: &str = "\
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot decode degrees encode exp \
    factorial floor gcd isnan iszero lcm ln log log10 log2 nanvl pi power radians random round \
    signum sin sinh sqrt tan tanh trunc \
    array_add array_any_match array_any_value array_avg array_compact \
    array_dims array_distance array_distinct array_element array_except array_filter array_first \
    array_has array_has_all array_has_any array_intersect array_length array_max array_min \
    array_ndims array_normalize array_pop_back array_pop_front array_position array_positions \
    array_product array_remove array_remove_all array_remove_n array_replace \
    array_reverse array_scale array_slice array_sort array_subtract array_sum array_transform \
    arrow_cast arrow_field arrow_metadata arrow_try_cast arrow_typeof ascii \
    bit_length btrim cardinality cast_to_type character_length chr coalesce contains \
    cosine_distance current_date current_time date_bin date_part date_trunc empty ends_with \
    file_row_index find_in_set flatten from_unixtime get_field greatest host initcap inner_product \
    input_file_name least left lower ltrim make_date make_time map_entries \
    map_extract map_keys map_values now nullif nvl nvl2 octet_length port \
    regexp_count regexp_instr regexp_like regexp_match reverse right rtrim split_part starts_with \
    strpos substr substr_index to_date to_hex to_local_time to_time to_timestamp \
    to_timestamp_micros to_timestamp_millis to_timestamp_nanos to_timestamp_seconds to_unixtime \
    try_cast_to_type union_extract union_tag upper uuid version with_metadata";

/// Aggregates: what they collect is told to the memory pool.
const AGGREGATES: &str = "\
    any_value approx_distinct approx_median approx_percentile_cont \
    approx_percentile_cont_with_weight array_agg avg bit_and bit_or bit_xor bool_and bool_or corr \
    count covar_pop covar_samp first_value grouping last_value max median min nth_value \
    percentile_cont regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx \
    regr_sxy regr_syy stddev stddev_pop string_agg sum var var_pop";

/// Window functions: a value of their input, or a number.
const WINDOWS: &str = "\
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number";

async fn context() -> SessionContext {
    let view = view_of(Recording::of(1), traffic(1, 100, 0, 1_000)).await;
    let state = session(
        &view.scoped(&Principal::everything()),
        session_config(),
        Arc::new(RuntimeEnv::default()),
    );
    SessionContext::new_with_state(state.expect("tables"))
}

/// The rows of a statement, planned as a server does.
async fn answer(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    let state = context.state();
    let plan = state.create_logical_plan(sql).await?;
    let (plan, _) = leaving_long_values(|| state.optimize(&plan));
    let plan = state.query_planner().create_physical_plan(&plan?, &state).await?;
    collect(plan, state.task_ctx()).await
}

fn unjudged<'a>(names: impl Iterator<Item = &'a str>, judged: &str) -> BTreeSet<String> {
    let judged: BTreeSet<&str> = judged.split_whitespace().collect();
    names.filter(|name| !judged.contains(name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_function_was_judged() {
    let state = context().await.state();
    let plain = state.scalar_functions().values().filter(|function| !guarded::is_guarded(function));
    let scalar = unjudged(plain.map(|function| function.name()), PLAIN);
    assert!(scalar.is_empty(), "can they make long values of short ones? {scalar:?}");
    for name in PLAIN.split_whitespace() {
        assert!(guarded::made_by(name).is_none(), "{name} is judged twice");
    }
    let aggregates = state.aggregate_functions().values().map(|function| function.name());
    let aggregates = unjudged(aggregates, AGGREGATES);
    assert!(aggregates.is_empty(), "do they tell what they collect? {aggregates:?}");
    let windows = state.window_functions().values().map(|function| function.name());
    let windows = unjudged(windows, WINDOWS);
    assert!(windows.is_empty(), "do they make long values? {windows:?}");
    // A function without a limit under another of its names would have none.
    for (name, function) in state.scalar_functions() {
        let limited = guarded::made_by(function.name()).is_some();
        assert_eq!(limited, guarded::is_guarded(function), "{name}");
    }
    let tables: BTreeSet<&str> = state.table_functions().keys().map(String::as_str).collect();
    assert_eq!(
        tables,
        BTreeSet::from(["generate_series", "range"]),
        "do they give rows as they are taken?"
    );
}

#[tokio::test]
async fn a_plan_holds_no_long_values() {
    let context = context().await;
    for (sql, left) in [
        ("select length(repeat('x', 60000000))", 60_000_000),
        ("select concat(repeat('x', 700), repeat('y', 700))", 1_400),
        ("select repeat('x', 700) || repeat('y', 700)", 1_400),
        ("select repeat('x', 2000), upper(repeat('x', 3000))", 3_000),
        ("select * from packets where source_ip = repeat('x', 5000)", 5_000),
        ("select repeat('x', 1000), range(0, 10)", 0),
    ] {
        let plan = context.state().create_logical_plan(sql).await.expect(sql);
        let (plan, longest) = leaving_long_values(|| context.state().optimize(&plan));
        let plan = plan.expect(sql);
        assert_eq!(longest, left, "{sql}");
        assert!(longest_value(&plan) < 2_000, "{sql}: {}", longest_value(&plan));
    }
}

#[tokio::test]
async fn too_long_values_are_refused_and_others_computed() {
    let context = context().await;
    let refused = [
        "repeat('x', 1000000000)",
        "repeat(repeat('x', 6000), 60000000)",
        "lpad('x', 1000000000)",
        "rpad('x', 1000000000, 'yz')",
        "replace(repeat('a', 1000000), 'a', repeat('b', 1000))",
        "replace(repeat('a', 1000000), '', repeat('b', 1000))",
        "regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000), 'g')",
        "regexp_replace(repeat('a', 1000000), '(a*)', repeat('\\1', 1000))",
        "concat(repeat('a', 40000000), repeat('b', 40000000))",
        "repeat('a', 40000000) || repeat('b', 40000000)",
        "concat_ws(repeat('a', 30000000), 'a', 'b', 'c', 'd')",
        "array_repeat('x', 1000000000)",
        "array_repeat(array_repeat(1, 10000), 10000)",
        "range(0, 1000000000)",
        "range(1000000000)",
        "generate_series(0, 1000000000)",
        "generate_series(1000000000, 0, -1)",
        "generate_series(timestamp '2020-01-01', timestamp '2021-01-01', interval '1 millisecond')",
        "array_resize([1], 1000000000, 2)",
        "array_to_string(range(0, 100000), repeat('x', 10000))",
        "array_replace_all(array_repeat('a', 100000), 'a', repeat('b', 10000))",
        "array_replace_n(array_repeat('a', 100000), 'a', repeat('b', 10000), 100000)",
        "string_to_array(repeat('x', 5000000), '')",
        "to_char(timestamp '2020-01-01', repeat('%B', 2000000))",
        "levenshtein(repeat('x', 100000), repeat('y', 100000))",
        "[repeat('a', 40000000), repeat('b', 40000000)]",
        "make_array(repeat('a', 40000000), repeat('b', 40000000))",
        "array_append([repeat('a', 40000000)], repeat('b', 40000000))",
        "[repeat('a', 40000000)] || [repeat('b', 40000000)]",
        "repeat(repeat(left(source_ip, 1), 1000), 10000)",
    ];
    for call in refused {
        let answer = answer(&context, &format!("select length({call}::text) from packets")).await;
        let error = answer.err().unwrap_or_else(|| panic!("{call} is made"));
        assert!(error.to_string().contains("(…) would "), "{call}: {error}");
    }
    for (call, expected) in [
        ("repeat('x', 1000)", "1000"),
        ("lpad('x', 10, 'ä')", "10"),
        ("replace('aaa', 'a', 'bcd')", "9"),
        ("regexp_replace('aaa', 'a', 'bcd', 'g')", "9"),
        ("concat('a', 'b', null)", "2"),
        ("'a' || source_ip || 7::text", ""),
        ("'a' || 'bc' || 7", "4"),
        ("source_ip || null", ""),
        ("concat_ws('-', 'a', 'b')", "3"),
        ("array_to_string(range(0, 10), ',')", "19"),
        ("array_to_string(generate_series(0, 10, 2), ',')", "12"),
        ("array_to_string(array_repeat(1, 3), ',')", "5"),
        ("to_char(timestamp '2020-01-01', '%Y')", "4"),
        ("repeat(null, 1000000000)", ""),
    ] {
        let sql = format!("select length({call})::text from packets limit 1");
        let rows = answer(&context, &sql).await.expect(call);
        let shown = datafusion::arrow::util::pretty::pretty_format_batches(&rows).expect("a table");
        assert!(shown.to_string().contains(&format!("| {expected}")), "{call}: {shown}");
    }
}

#[tokio::test]
async fn text_too_long_for_a_number_is_refused() {
    let context = context().await;
    for sql in [
        "select cast(repeat('9', 60000000) as decimal(38, 0))",
        "select try_cast(repeat('9', 60000000) as decimal(76, 0))",
        "select arrow_cast(repeat('9', 60000000), 'Decimal256(76, 0)')",
        "select cast('0.' || repeat('9', 60000000) as decimal(76, 10))",
        "select cast([repeat('9', 60000000)] as decimal(38, 0)[])",
        "select repeat('9', 60000000) + cast(1 as decimal(38, 0))",
        "select sum(cast(repeat('9', 200000) as decimal(38, 0))) from packets",
    ] {
        let error = answer(&context, sql).await.expect_err(sql).to_string();
        assert!(
            error.contains("too long for a number") || error.contains("Cannot"),
            "{sql}: {error:.300}"
        );
    }
    let sql = "select cast('12.5' as decimal(5, 2)) + arrow_cast('1.5', 'Decimal128(5, 2)') + \
               coalesce(try_cast(repeat('9', 90) as decimal(5, 2)), 1), length(repeat('9', 60000000))";
    let rows = answer(&context, sql).await.expect("numbers");
    let shown = datafusion::arrow::util::pretty::pretty_format_batches(&rows).expect("a table");
    let shown = shown.to_string();
    assert!(shown.contains("15.00") && shown.contains("60000000"), "{shown}");
}
