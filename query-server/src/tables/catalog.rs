//! What the catalog itself says, without opening anything: `segments`, `files`, `protocols`,
//! `coverage`, `writers`, `problems` and `store`.

mod coverage;
mod segments;
mod writers;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::columns::timestamp;
use crate::snapshot::Snapshot;

/// A table made of the catalog when it is asked for.
#[derive(Debug)]
pub(super) struct CatalogTable {
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    rows: Rows,
}

/// The columns of a table, as they are in a snapshot.
type Rows = fn(&Snapshot) -> Vec<ArrayRef>;

impl CatalogTable {
    /// Every such table, by name.
    pub(super) fn all(snapshot: &Arc<Snapshot>) -> impl Iterator<Item = (&'static str, Self)> {
        let tables: [(&str, Columns, Rows); 7] = [
            ("segments", segments::SEGMENTS, segments::segments),
            ("files", segments::FILES, segments::files),
            ("protocols", segments::PROTOCOLS, segments::protocols),
            ("coverage", coverage::COVERAGE, coverage::coverage),
            ("writers", writers::WRITERS, writers::writers),
            ("problems", writers::PROBLEMS, writers::problems),
            ("store", writers::STORE, writers::store),
        ];
        tables.into_iter().map(|(name, columns, rows)| {
            let snapshot = Arc::clone(snapshot);
            (name, CatalogTable { snapshot, schema: schema(columns), rows })
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

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), (self.rows)(&self.snapshot))?;
        let schema = Arc::clone(&self.schema);
        let plan = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, projection.cloned())?;
        Ok(plan)
    }
}
