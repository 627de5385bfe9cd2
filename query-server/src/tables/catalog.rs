//! The tables over the catalog itself, without opening a segment: `segments`, `files`, `protocols`, `coverage`,
//! `writers`, `problems` and `store`.

mod coverage;
mod segments;
mod writers;

use std::sync::Arc;

use async_trait::async_trait;
use capstan_model::{Time, TimeRange};
use capstan_storage_engine::catalog::{Generations, Window};
use capstan_view::ScopedView;
use capstan_view::access::Right;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::columns::timestamp;
use super::explain;
use super::external;
use super::predicate::{self, Table};
use super::skipped::note;

/// A table that is computed from the catalog on access.
#[derive(Debug)]
pub(super) struct CatalogTable {
    name: &'static str,
    view: ScopedView,
    schema: SchemaRef,
    source: Source,
    /// The right that the table needs.
    right: Right,
    rows: Rows,
}

/// The source of the rows.
struct Contents {
    view: ScopedView,
    /// What the catalog says about the selected time range.
    window: Arc<Window>,
    /// All generations, for the table that has a row for each.
    generations: Generations,
}

/// The columns of a table.
type Rows = fn(&Contents) -> Vec<ArrayRef>;

/// The source of a table's rows beside the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// What the catalog says about a stretch of time.
    Window,
    /// The gaps of a window: the answer is complete although facts are hidden.
    Problems,
    /// All generations.
    Generations,
    /// Nothing.
    View,
}

impl CatalogTable {
    /// Every such table, by name.
    pub(super) fn all(view: &ScopedView) -> impl Iterator<Item = (&'static str, Self)> {
        use Right::{CatalogRead, FlowsRead};
        let tables: [(&str, Columns, Source, Right, Rows); 7] = [
            ("segments", segments::SEGMENTS, Source::Window, CatalogRead, segments::segments),
            ("files", segments::FILES, Source::Window, CatalogRead, segments::files),
            ("protocols", segments::PROTOCOLS, Source::Window, CatalogRead, segments::protocols),
            ("coverage", coverage::COVERAGE, Source::Window, FlowsRead, coverage::coverage),
            ("writers", writers::WRITERS, Source::Generations, CatalogRead, writers::writers),
            ("problems", writers::PROBLEMS, Source::Problems, CatalogRead, writers::problems),
            ("store", writers::STORE, Source::View, CatalogRead, writers::store),
        ];
        tables.into_iter().map(|(name, columns, source, right, rows)| {
            let view = view.clone();
            (name, CatalogTable { name, view, schema: schema(columns), source, right, rows })
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Time,
    Flag,
    Small,
    Large,
}

/// Name, kind, and whether it may be null.
type Columns = &'static [(&'static str, Kind, bool)];

fn schema(columns: Columns) -> SchemaRef {
    let field = |(name, kind, nullable): &(&'static str, Kind, bool)| {
        let data_type = match kind {
            Kind::Text => DataType::Utf8View,
            Kind::Time => timestamp(),
            Kind::Flag => DataType::Boolean,
            Kind::Small => DataType::Int32,
            Kind::Large => DataType::Int64,
        };
        Field::new(*name, data_type, *nullable)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn large(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn small(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampNanosecondArray>().with_timezone("UTC"))
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringViewArray>())
}

fn larges(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(large)).collect::<Int64Array>())
}

fn smalls(values: impl Iterator<Item = Option<u32>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(small)).collect::<Int32Array>())
}

fn flags(values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.collect::<BooleanArray>())
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let is_used = |filter: &&Expr| {
            matches!(self.source, Source::Window | Source::Problems)
                && predicate::window(filter, Table::Catalog).is_some()
        };
        let support = |filter| match is_used(&filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().copied().map(support).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let view = self.view.clone();
        let what = format!("the table {}", self.name);
        view.who().require(self.right, &what).map_err(external)?;
        let (mut window, mut generations) = (Arc::<Window>::default(), Generations::default());
        match self.source {
            Source::Window | Source::Problems => {
                // Stretches under a mask are joined commits, cut where the window ends: that must not be seen in rows.
                let asked = predicate::push(filters, Table::Catalog)?.window;
                let asked = asked.filter(|_| !view.who().is_masked());
                let range = asked.map_or(TimeRange::ALL, |asked| around(asked.range()));
                window = view.window(range).await.map_err(external)?;
            }
            Source::Generations => generations = view.generations().await.map_err(external)?,
            Source::View => {}
        }
        if self.source != Source::Problems && !explain::is_shown(session) {
            note(session, &window.gaps)?;
            note(session, &generations.gaps)?;
        }
        let columns = (self.rows)(&Contents { view, window, generations });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let schema = Arc::clone(&self.schema);
        let plan = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, projection.cloned())?;
        Ok(plan)
    }
}

/// A range, and what ends where it begins: the ends of stretches are not in them.
fn around(range: TimeRange) -> TimeRange {
    TimeRange { start: Time(range.start.0.saturating_sub(1)), end: range.end }
}
