//! `docs/sql.md` names every column of every table, in the table's own words, and no other.

use std::collections::{BTreeMap, BTreeSet};

use capstan_storage_engine::segment::Layers;
use capstan_view::StoreView;
use datafusion::arrow::datatypes::DataType;

use super::fixture::tables;

/// Columns and their types by table, as the page lists them.
fn documented() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let page = include_str!("../../../../docs/sql.md");
    let mut tables: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    let mut section = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(names), Some(types)) = (cells.next(), cells.next()) else { continue };
        let types: Vec<&str> = types.split(", ").collect();
        let sql = ["TIMESTAMP", "TEXT", "INTEGER", "BIGINT", "BINARY", "BOOLEAN"];
        if !names.starts_with('`') || !types.iter().all(|name| sql.contains(name)) {
            continue;
        }
        let names = names.split(", ").map(|name| name.trim_matches('`').to_owned());
        for (place, name) in names.enumerate() {
            let of = types.get(place).or(types.last()).map(|name| (*name).to_owned());
            let of = of.unwrap_or_default();
            assert!(tables.entry(section.clone()).or_default().insert((name, of)), "{line}");
        }
    }
    tables
}

fn in_sql(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Utf8View => "TEXT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::Binary => "BINARY",
        DataType::Boolean => "BOOLEAN",
        other => panic!("{other} has no name in the documentation"),
    }
}

#[tokio::test]
async fn every_column_is_documented_with_its_type() {
    let mut documented = documented();
    // What is said of `flows` holds of its parts, too.
    let flows = documented["flows"].clone();
    documented.entry("flow_parts".to_owned()).or_default().extend(flows);
    let store = capstan_fixtures::store().await;
    let context = tables(&StoreView::load(store).await.expect("a store"));
    let tables = [
        "packets",
        "flows",
        "flow_parts",
        "segments",
        "files",
        "protocols",
        "coverage",
        "writers",
        "problems",
        "store",
    ];
    let added = Layers::KNOWN.added.iter().filter_map(|layer| layer.sql);
    for table in tables.into_iter().chain(added) {
        let schema = context.table(table).await.expect("a table").schema().as_arrow().clone();
        let there: BTreeSet<(String, String)> = schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), in_sql(field.data_type()).to_owned()))
            .collect();
        assert_eq!(documented.remove(table), Some(there), "{table}");
    }
    assert!(documented.is_empty(), "{documented:?}");
}
