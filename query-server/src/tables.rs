//! The store as SQL tables.
//!
//! | table | a row is | made by |
//! | --- | --- | --- |
//! | `packets` | a packet | `packets`, `packet_rows`, `templates` |
//! | `flow_parts` | what one segment holds of a flow | `flow_parts`, `flow_columns`, `flow_rows` |
//! | `flows` | a flow, merged from its parts | `flows` |
//! | `segments`, `files`, `protocols` | a segment, an object of one, a protocol in one | `catalog` |
//! | `coverage` | a stretch of listening, or a loss | `catalog` |
//! | `writers`, `problems`, `store` | who wrote, what is wrong, where it is | `catalog` |
//!
//! Conditions are pushed down as far as possible: `predicate` turns them into a `window` of time and a
//! [`FlowFilter`](capstan_index::filter::FlowFilter). These select segments by their catalog entries, then flows by the
//! term index, then pages and blocks. `scan` reads the rest, segment by segment, whichever `segment_table` it is. `functions` has the predicates
//! that only the index can decide, `explain` makes `EXPLAIN` show the cost of a query. All columns are described
//! in `docs/sql.md`, what a masked principal gets of each table in `docs/access.md`; `hidden` has the columns that it
//! does not get.

mod added;
mod catalog;
mod columns;
mod deleted;
mod explain;
mod flow_columns;
mod flow_parts;
mod flow_rows;
mod flows;
mod functions;
mod hidden;
mod packet_rows;
mod packets;
mod predicate;
mod provider;
mod scan;
mod segment_table;
mod skipped;
mod source;
mod templates;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use capstan_model::{Failure, FailureKind};
use capstan_view::ScopedView;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

pub(crate) use self::deleted::Deletions;
pub(crate) use self::functions::{leaving_long_values, longest_value, makes_long_values};
use self::provider::Provider;
pub(crate) use self::skipped::Skipped;
use crate::questions::Cooperate;

/// The tables of a view as its principal sees them, and the functions over them, ready for statements.
///
/// The state may be used for any number of statements: all of them see the store at one moment.
///
/// # Errors
/// None that is known; the query engine may refuse a name.
pub fn session(
    view: &ScopedView,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
) -> Result<SessionState, Failure> {
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(explain::Planner))
        .with_analyzer_rule(Arc::new(functions::Limit::new()))
        .with_physical_optimizer_rule(Arc::new(Cooperate))
        .build();
    let context = SessionContext::new_with_state(state);
    let columns = flow_columns::FlowColumn::of(view.layers().flows);
    let packets: [(&str, Arc<dyn TableProvider>); 3] = [
        ("packets", Arc::new(Provider::new(view, packets::Packets))),
        ("flow_parts", Arc::new(Provider::new(view, flow_parts::FlowParts { columns }))),
        ("flows", Arc::new(flows::Flows::new(view))),
    ];
    let added = view.layers().added.iter().filter_map(|layer| {
        let provider = Provider::new(view, added::Added::new(layer));
        Some((layer.sql?, Arc::new(provider) as Arc<dyn TableProvider>))
    });
    let catalog = catalog::CatalogTable::all(view)
        .map(|(name, table)| -> (_, Arc<dyn TableProvider>) { (name, Arc::new(table)) });
    for (name, table) in packets.into_iter().chain(added).chain(catalog) {
        context.register_table(name, table).map_err(|error| {
            Failure::caused_by(FailureKind::Other, format!("table {name} cannot be made"), error)
        })?;
    }
    let known = context.state();
    // The registry has a function once for each of its names.
    for function in functions::limited(known.scalar_functions().values()) {
        context.register_udf(function);
    }
    for function in functions::all() {
        context.register_udf(function.as_ref().clone());
    }
    Ok(context.state())
}

/// A failure on its way through the query engine.
fn external(failure: Failure) -> DataFusionError {
    DataFusionError::External(Box::new(failure))
}
