//! `segments` and `coverage`: what the catalog itself says, without opening anything.

use std::sync::Arc;

use async_trait::async_trait;
use capstan_model::coverage::LossCause;
use capstan_model::{Hour, TimeRange};
use capstan_storage_engine::segment::Layer;
use datafusion::arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
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
    rows: fn(&Snapshot) -> Vec<ArrayRef>,
}

impl CatalogTable {
    /// A row a segment.
    pub(super) fn segments(snapshot: Arc<Snapshot>) -> Self {
        CatalogTable { snapshot, schema: schema(SEGMENTS), rows: segments }
    }

    /// A row a stretch of listening, and a row a loss.
    pub(super) fn coverage(snapshot: Arc<Snapshot>) -> Self {
        CatalogTable { snapshot, schema: schema(COVERAGE), rows: coverage }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Time,
    Small,
    Large,
}

type Columns = &'static [(&'static str, Kind, bool)];

const SEGMENTS: Columns = &[
    ("segment", Kind::Text, false),
    ("recorder", Kind::Text, false),
    ("generation", Kind::Small, false),
    ("hour", Kind::Time, true),
    ("first_time", Kind::Time, true),
    ("last_time", Kind::Time, true),
    ("first_ordinal", Kind::Large, false),
    ("last_ordinal", Kind::Large, false),
    ("packets", Kind::Large, false),
    ("flow_parts", Kind::Large, false),
    ("captured_bytes", Kind::Large, false),
    ("wire_bytes", Kind::Large, false),
    ("stored_bytes", Kind::Large, false),
    ("index_bytes", Kind::Large, true),
    ("flows_bytes", Kind::Large, true),
    ("packets_bytes", Kind::Large, true),
    ("head_bytes", Kind::Large, true),
    ("body_bytes", Kind::Large, true),
];

const COVERAGE: Columns = &[
    ("recorder", Kind::Text, false),
    ("generation", Kind::Small, false),
    ("interface", Kind::Small, true),
    ("kind", Kind::Text, false),
    ("start_time", Kind::Time, false),
    ("end_time", Kind::Time, false),
    ("cause", Kind::Text, true),
    ("packets", Kind::Large, true),
    ("bytes", Kind::Large, true),
    ("note", Kind::Text, true),
];

fn schema(columns: Columns) -> SchemaRef {
    let field = |(name, kind, nullable): &(&'static str, Kind, bool)| {
        let data_type = match kind {
            Kind::Text => DataType::Utf8View,
            Kind::Time => timestamp(),
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

fn segments(snapshot: &Snapshot) -> Vec<ArrayRef> {
    let all = || snapshot.segments(TimeRange::ALL);
    let number = |value: fn(&capstan_storage_engine::catalog::SegmentEntry) -> u64| {
        larges(all().map(|segment| Some(value(&segment.entry))))
    };
    let bytes = |layer: Layer| {
        larges(all().map(|segment| segment.entry.layer(layer).map(|layer| layer.bytes)))
    };
    let hour = |hour: Hour| hour.range().map(|range| range.start.0);
    vec![
        texts(all().map(|segment| Some(segment.entry.name.clone()))),
        texts(all().map(|segment| Some(segment.recorder.to_string()))),
        smalls(all().map(|segment| Some(segment.generation.0))),
        times(all().map(|segment| hour(segment.entry.hour))),
        times(all().map(|segment| segment.entry.first.map(|time| time.0))),
        times(all().map(|segment| segment.entry.last.map(|time| time.0))),
        number(|entry| entry.first_ordinal),
        number(|entry| entry.last_ordinal),
        number(|entry| entry.packets),
        number(|entry| entry.flow_parts),
        number(|entry| entry.captured_bytes),
        number(|entry| entry.wire_bytes),
        number(|entry| entry.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.bytes))),
        bytes(Layer::Index),
        bytes(Layer::Flows),
        bytes(Layer::Packets),
        bytes(Layer::Head),
        bytes(Layer::Body),
    ]
}

/// A row of `coverage`.
struct Stretch<'a> {
    recorder: String,
    generation: u32,
    interface: Option<u32>,
    range: TimeRange,
    /// Set for a loss.
    lost: Option<&'a capstan_model::coverage::Loss>,
}

fn coverage(snapshot: &Snapshot) -> Vec<ArrayRef> {
    let mut rows: Vec<Stretch<'_>> = Vec::new();
    for (life, listened) in snapshot.coverage(TimeRange::ALL) {
        let stretch = |interface| Stretch {
            recorder: life.recorder.to_string(),
            generation: life.generation.0,
            interface,
            range: listened.range,
            lost: None,
        };
        match listened.interfaces.as_slice() {
            [] => rows.push(stretch(None)),
            interfaces => rows.extend(interfaces.iter().map(|number| stretch(Some(*number)))),
        }
    }
    for (life, loss) in snapshot.losses(TimeRange::ALL) {
        rows.push(Stretch {
            recorder: life.recorder.to_string(),
            generation: life.generation.0,
            interface: loss.interface,
            range: loss.range,
            lost: Some(loss),
        });
    }
    let all = || rows.iter();
    // 0 is stored where it cannot be told.
    let told = |value: u64| (value > 0).then_some(value);
    vec![
        texts(all().map(|row| Some(row.recorder.clone()))),
        smalls(all().map(|row| Some(row.generation))),
        smalls(all().map(|row| row.interface)),
        texts(all().map(|row| Some(kind(row).to_owned()))),
        times(all().map(|row| Some(row.range.start.0))),
        times(all().map(|row| Some(row.range.end.0))),
        texts(all().map(|row| row.lost.map(|loss| cause(loss.cause).to_owned()))),
        larges(all().map(|row| row.lost.and_then(|loss| told(loss.packets)))),
        larges(all().map(|row| row.lost.and_then(|loss| told(loss.bytes)))),
        texts(
            all().map(|row| row.lost.map(|loss| loss.note.clone()).filter(|note| !note.is_empty())),
        ),
    ]
}

fn kind(row: &Stretch<'_>) -> &'static str {
    if row.lost.is_some() { "lost" } else { "listened" }
}

/// The names in which causes are stored.
fn cause(cause: LossCause) -> &'static str {
    match cause {
        LossCause::KernelDrop => "kernel-drop",
        LossCause::SourceDrop => "source-drop",
        LossCause::SourceDamaged => "source-damaged",
        LossCause::FrameTooLong => "frame-too-long",
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_the_names_they_are_stored_under() {
        for of in [
            LossCause::KernelDrop,
            LossCause::SourceDrop,
            LossCause::SourceDamaged,
            LossCause::FrameTooLong,
        ] {
            assert_eq!(serde_json::to_string(&of).expect("a name"), format!("\"{}\"", cause(of)));
        }
    }
}
