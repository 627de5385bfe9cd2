//! The columns of `flow_parts` and `flows`: the stored ones that SQL shows, and those that follow from several of them
//! or from the segment. A column that is declared in the registry of layers needs no line here.

use std::sync::{Arc, LazyLock};

use capstan_storage_engine::segment::column::{Column, Meaning, Merge};
use capstan_storage_engine::segment::{Layers, TableLayer};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::shown_type;

/// A column of `flow_parts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowColumn {
    /// Its name in SQL.
    pub(super) name: &'static str,
    /// What it is made of.
    pub(super) made: Made,
    /// How the parts of a flow are merged; none if `flows` does not have it.
    pub(super) merge: Option<Merge>,
}

/// What a column is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// A stored column.
    Stored(&'static Column, Meaning),
    /// The sum of two stored columns.
    Sum(&'static str, &'static str),
    /// The recorder of the segment.
    Recorder,
    /// The generation of the segment.
    Generation,
    /// Whether the identity of the ends is known in the segment.
    Identity,
    /// The name of the segment; null under a mask.
    Segment,
    /// The name of the segment, also under a mask. It puts parts in order, and no table shows it.
    Order,
}

/// The columns that are not stored, each with the stored one before which it stands; the last one stands behind all.
const COMPUTED: [(FlowColumn, Option<&str>); 6] = [
    (FlowColumn { name: "recorder", made: Made::Recorder, merge: None }, Some("first_time")),
    (FlowColumn { name: "generation", made: Made::Generation, merge: None }, Some("first_time")),
    (sum("packets", "packets_forward", "packets_backward"), Some("packets_forward")),
    (sum("bytes", "bytes_forward", "bytes_backward"), Some("bytes_forward")),
    // `known` comes before `unknown`, and counts if it is in one part.
    (
        FlowColumn { name: "identity", made: Made::Identity, merge: Some(Merge::Min) },
        Some("source_namespace"),
    ),
    (FlowColumn { name: SEGMENT, made: Made::Segment, merge: None }, None),
];

/// The column with the name of the segment.
const SEGMENT: &str = "segment";

/// The column by which `flows` puts parts of the same time in order. `flow_parts` does not have it.
pub(super) const ORDER: FlowColumn =
    FlowColumn { name: "part_order", made: Made::Order, merge: None };

const fn sum(name: &'static str, forward: &'static str, backward: &'static str) -> FlowColumn {
    FlowColumn { name, made: Made::Sum(forward, backward), merge: Some(Merge::Sum) }
}

/// The computed columns that stand before a stored one.
fn computed(before: Option<&str>) -> impl Iterator<Item = FlowColumn> {
    let there = COMPUTED.into_iter().filter(move |(_, place)| *place == before);
    there.map(|(column, _)| column)
}

/// The columns of this version.
static KNOWN: LazyLock<Vec<FlowColumn>> = LazyLock::new(|| FlowColumn::of(Layers::KNOWN.flows));

impl FlowColumn {
    /// The columns of `flow_parts` over a layer, in the order of `SELECT *`.
    pub(super) fn of(layer: &TableLayer) -> Vec<FlowColumn> {
        let mut columns = Vec::new();
        for column in layer.columns {
            if let Some((name, meaning)) = column.shown {
                columns.extend(computed(Some(name)));
                let made = Made::Stored(column, meaning);
                columns.push(FlowColumn { name, made, merge: column.merge });
            }
        }
        columns.extend(computed(None));
        columns
    }

    /// The column of this version with that name.
    pub(super) fn named(name: &str) -> Option<FlowColumn> {
        KNOWN.iter().find(|column| column.name == name).copied()
    }

    /// The columns of the layer that it is made of.
    pub(super) fn stored(&self) -> Vec<&'static str> {
        match self.made {
            Made::Stored(column, meaning) => match meaning {
                Meaning::Plain | Meaning::FlowId | Meaning::TunnelEnd => vec![column.name],
                Meaning::End => vec![column.name, "link_type"],
                Meaning::Port => vec![column.name, "ip_protocol", "fragment_id"],
                Meaning::IpProtocol => vec![column.name, "ethertype", "link_type"],
            },
            Made::Sum(one, other) => vec![one, other],
            // The same for all parts of a segment.
            Made::Recorder | Made::Generation | Made::Identity | Made::Segment | Made::Order => {
                Vec::new()
            }
        }
    }

    /// Its type in SQL.
    pub(super) fn data_type(&self) -> DataType {
        match self.made {
            Made::Stored(column, meaning) => match meaning {
                Meaning::Plain => shown_type(column.of),
                Meaning::FlowId | Meaning::End | Meaning::TunnelEnd => DataType::Utf8View,
                Meaning::Port | Meaning::IpProtocol => DataType::Int32,
            },
            Made::Sum(..) => DataType::Int64,
            Made::Generation => DataType::Int32,
            Made::Recorder | Made::Identity | Made::Segment | Made::Order => DataType::Utf8View,
        }
    }

    /// Its name, type, and whether it can be null.
    pub(super) fn field(&self) -> Field {
        let nullable = match self.made {
            Made::Stored(column, meaning) => {
                let may_be_null =
                    matches!(meaning, Meaning::End | Meaning::Port | Meaning::IpProtocol);
                column.nullable || may_be_null
            }
            Made::Sum(..)
            | Made::Recorder
            | Made::Generation
            | Made::Identity
            | Made::Segment
            | Made::Order => false,
        };
        Field::new(self.name, self.data_type(), nullable)
    }

    /// The schema of some columns.
    pub(super) fn schema(columns: &[FlowColumn]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(FlowColumn::field).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_columns_stand_beside_the_stored_ones_that_they_name() {
        let names: Vec<_> = KNOWN.iter().map(|column| column.name).collect();
        assert!(COMPUTED.iter().all(|(column, _)| names.contains(&column.name)));
        assert_eq!(names[..4], ["flow_id", "recorder", "generation", "first_time"]);
        assert_eq!(names.last(), Some(&SEGMENT));
        assert!(!names.contains(&ORDER.name));
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), names.len());
        // Every stored column that a shown one needs is there.
        let stored: Vec<_> = Layers::KNOWN.flows.columns.iter().map(|column| column.name).collect();
        assert!(KNOWN.iter().flat_map(FlowColumn::stored).all(|name| stored.contains(&name)));
    }
}
