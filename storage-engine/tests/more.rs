//! A later build reads the stores of this one and of all before it: it knows a column of each table and a layer more.

#![allow(clippy::unwrap_used)] // Of a test, all of it.

mod stores;

use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use capstan_model::{RecorderId, Time, TimeRange};
use capstan_storage_engine::catalog::{
    CatalogView, Change, CommitDraft, Fact, LayerEntry, Recorder, Segment as Known, What,
    WriterInfo, WriterKind,
};
use capstan_storage_engine::fetch::StoreFetch;
use capstan_storage_engine::segment::column::{Column, ColumnType, Packing};
use capstan_storage_engine::segment::reader::Fetch;
use capstan_storage_engine::segment::{
    Directory, Layer, Layers, TableLayer, flows, packets, tabular,
};
use capstan_storage_engine::store::Store;
use capstan_storage_engine::verify::{self, Finding, Severity, Watch};

/// The columns that the later build has more in each table: one that can be null, one with a default.
const NEW: [Column; 2] = [
    Column::new(9_001, "novelty", ColumnType::I64, true, Packing::Delta),
    Column::new(9_002, "class", ColumnType::Label, false, Packing::Dictionary).or("none"),
];

/// The layer that it has more.
static CALLS: TableLayer = TableLayer {
    name: "calls-test",
    file: "calls-test.parquet",
    version: (1, 0),
    columns: &[
        Column::new(1, "number", ColumnType::I64, false, Packing::Delta),
        Column::new(2, "method", ColumnType::Text, true, Packing::Dictionary),
    ],
    directory: Directory::Own,
    sql: Some("calls_test"),
};

/// The registry of the later build.
fn later() -> Layers {
    let more = |table: &TableLayer| -> &'static TableLayer {
        let columns = [table.columns, &NEW].concat();
        Box::leak(Box::new(TableLayer { columns: columns.leak(), ..*table }))
    };
    Layers {
        packets: more(&packets::TABLE),
        flows: more(&flows::TABLE),
        added: std::slice::from_ref(&CALLS),
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Finding>>);

impl Watch for Heard {
    fn found(&self, finding: &Finding) {
        self.0.lock().unwrap().push(finding.clone());
    }
}

async fn findings(store: &Store, layers: Layers) -> Vec<Finding> {
    let heard = Heard::default();
    let options = verify::Options { range: TimeRange::ALL, deep: true, layers };
    verify::verify(store, &options, &heard).await.unwrap();
    heard.0.into_inner().unwrap()
}

/// Those that a check finds which reads no whole layers.
async fn shallow_findings(store: &Store, layers: Layers) -> Vec<Finding> {
    let heard = Heard::default();
    let options = verify::Options { range: TimeRange::ALL, deep: false, layers };
    verify::verify(store, &options, &heard).await.unwrap();
    heard.0.into_inner().unwrap()
}

async fn segments(store: &Store) -> Vec<Arc<Known>> {
    let view = CatalogView::load(store).await.unwrap();
    view.window(TimeRange::ALL).await.unwrap().segments.clone()
}

fn column(batches: &[RecordBatch], name: &str) -> Vec<Option<String>> {
    let texts = batches.iter().flat_map(|batch| {
        let text = cast(batch.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
        let text: &StringArray = text.as_string();
        text.iter().map(|of| of.map(str::to_owned)).collect::<Vec<_>>()
    });
    texts.collect()
}

#[tokio::test]
async fn column_that_a_golden_store_lacks_reads_as_null_or_its_default() {
    let layers = later();
    let mut rows_read = 0;
    for folder in stores::all() {
        let store = stores::open(&folder).await;
        assert_eq!(findings(&store, layers).await, [], "{}", folder.display());
        for known in segments(&store).await {
            let index = store.get(&known.path(Layer::Index)).await.unwrap();
            let segment = known.entry.open_as(&layers, &index).unwrap();
            let before = known.entry.open(&index).unwrap();
            let fetch = StoreFetch::new(&store, &known.entry);
            for layer in [Layer::Packets, Layer::Flows] {
                let count = match layer {
                    Layer::Packets => known.entry.packets,
                    _ => known.entry.flow_parts,
                };
                // Alone, with others, and among all.
                for asked in
                    [Some(&["class", "novelty"][..]), Some(&["novelty", "protocol", "class"]), None]
                {
                    let scan = segment.scan_all(layer, asked).unwrap();
                    let read = scan.run(&fetch).await.unwrap();
                    assert_eq!(column(&read, "novelty"), vec![None; count as usize]);
                    let class = vec![Some("none".to_owned()); count as usize];
                    assert_eq!(column(&read, "class"), class);
                    rows_read += count;
                }
            }
            let all = segment.all_flows();
            let flows = segment.read_flows(&fetch, &all).await.unwrap();
            assert_eq!(flows, before.read_flows(&fetch, &all).await.unwrap());
            segment.read_packets(&fetch, &flows).await.unwrap();
            assert!(known.layer(Layer::Added(&CALLS)).is_none());
        }
    }
    assert!(rows_read > 100, "{rows_read}");
}

/// Adds a table to a segment, as the build that knows the layer does.
async fn add(store: &Store, segment: &Known, methods: &[Option<&str>]) -> LayerEntry {
    add_with(store, segment, methods, |_| {}).await
}

/// Adds a table to a segment with an entry that `change` has changed.
async fn add_with(
    store: &Store,
    segment: &Known,
    methods: &[Option<&str>],
    change: impl Fn(&mut LayerEntry),
) -> LayerEntry {
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..methods.len() as i64)),
        Arc::new(StringArray::from(methods.to_vec())),
    ];
    let written = tabular::write(CALLS.version, CALLS.columns, arrays, 0).unwrap();
    let (object, directory) = written.with_directory();
    let mut entry = LayerEntry::added(&CALLS, &object, directory);
    let path = segment.path_of(&entry);
    change(&mut entry);
    store.put_new(&path, vec![object.into()]).await.unwrap();
    let change = Change {
        segment: segment.entry.name.clone(),
        slots: segment.entry.slots(),
        at: Time(1),
        what: What::LayerAdded { layer: entry.clone() },
    };
    let info = WriterInfo {
        kind: WriterKind::Live,
        description: String::new(),
        host: "node".to_owned(),
        source: None,
        resumes: None,
        started_at: Time(1),
    };
    let mut recorder = Recorder::start(store, RecorderId(0xadd), info).await.unwrap();
    let facts = vec![Fact::Change(change)];
    recorder.commit(CommitDraft { facts, ..CommitDraft::default() }).await.unwrap();
    entry
}

#[tokio::test]
async fn added_layer_is_read_by_its_own_directory_and_shown_to_who_does_not_know_it() {
    let layers = later();
    let methods: Vec<_> =
        (0..3_000).map(|n| (n % 3 > 0).then_some(["GET", "PUT"][n % 2])).collect();
    let folder = stores::all().pop().unwrap();
    let store = stores::open(&folder).await;
    let first = segments(&store).await[0].clone();
    let entry = add(&store, &first, &methods).await;
    for known in [layers, Layers::KNOWN] {
        assert_eq!(findings(&store, known).await, []);
    }
    let there = segments(&store).await;
    let segment = there.iter().find(|of| of.entry.name == first.entry.name).unwrap();
    let layer = Layer::Added(&CALLS);
    assert_eq!(segment.layer(layer), Some(&entry));
    assert!(segment.layers().any(|of| of.layer == "calls-test"));
    assert_eq!(segment.path(layer), segment.path_of(&entry));
    assert_eq!(Layers::KNOWN.named("calls-test"), None);

    // Two requests: the directory, and then the pages.
    let now = segment.now();
    let fetch = StoreFetch::new(&store, &now);
    let range = entry.directory_range().unwrap();
    assert!(range.end - range.start < entry.bytes / 2, "{range:?} of {}", entry.bytes);
    let directory = fetch.fetch(layer, std::slice::from_ref(&range)).await.unwrap().remove(0);
    let table = now.open_added(&CALLS, &directory).unwrap();
    assert_eq!(table.rows(), methods.len());
    let read = table.scan_all(None).unwrap().run(&fetch).await.unwrap();
    let expected: Vec<_> = methods.iter().map(|of| of.map(str::to_owned)).collect();
    assert_eq!(column(&read, "method"), expected);
    let numbers = read[0].column_by_name("number").unwrap().as_primitive::<Int64Type>();
    assert_eq!((numbers.value(0), numbers.null_count()), (0, 0));
    let pages = table.parts();
    assert!(pages.iter().all(|(range, _)| table.extents(range).is_some()));
    // It is a Parquet file to others.
    let object = store.get(&segment.path(layer)).await.unwrap();
    let others = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(object);
    let rows = others.unwrap().build().unwrap().map(|batch| batch.unwrap().num_rows());
    assert_eq!(rows.sum::<usize>(), methods.len());
}

#[tokio::test]
async fn damage_of_an_added_layer_is_found_by_who_knows_it() {
    let layers = later();
    let store = stores::open(&stores::all().pop().unwrap()).await;
    let first = segments(&store).await[0].clone();
    let entry = add(&store, &first, &[Some("GET"), None]).await;
    let path = first.path_of(&entry);
    let good = store.get(&path).await.unwrap();
    let directory = entry.directory_range().unwrap().start as usize;
    for at in [4, directory - 1, directory, good.len() - 9] {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x40;
        store.delete(&path).await.unwrap();
        store.put_new(&path, vec![bytes.clone().into()]).await.unwrap();
        let found = findings(&store, layers).await;
        let [finding] = &found[..] else { panic!("byte {at}: {found:?}") };
        assert_eq!(finding.severity(), Severity::Damaged);
        let words = finding.to_string();
        let expected = if at < directory { "1 of " } else { "unknown without its directory" };
        assert!(words.starts_with(path.as_ref()) && words.contains(expected), "byte {at}: {words}");
        assert_eq!(shallow_findings(&store, layers).await.is_empty(), at < directory, "byte {at}");
        // Who does not know the layer does not judge it.
        assert_eq!(findings(&store, Layers::KNOWN).await, []);
        let changed: Bytes = bytes.split_off(directory).into();
        let refused = LayerEntry::clone(&entry);
        let now = capstan_storage_engine::catalog::SegmentEntry {
            layers: vec![refused],
            ..first.entry.clone()
        };
        assert_eq!(now.open_added(&CALLS, &changed).is_ok(), at < directory, "byte {at}");
    }
    store.delete(&path).await.unwrap();
    let found = findings(&store, layers).await;
    assert!(matches!(&found[..], [finding] if finding.severity() == Severity::Lost), "{found:?}");
}

#[tokio::test]
async fn wrong_directory_of_an_added_layer_is_found_although_its_object_is_whole() {
    type ChangeEntry = fn(&mut LayerEntry);
    let absent: ChangeEntry = |entry| entry.directory = None;
    let longer: ChangeEntry = |entry| {
        entry.directory.iter_mut().for_each(|directory| directory.bytes += 1);
    };
    let other: ChangeEntry = |entry| {
        entry.directory.iter_mut().for_each(|directory| directory.sha256 = "0".repeat(64));
    };
    for (change, expected) in [(absent, "is not named"), (longer, "differs"), (other, "differs")] {
        let store = stores::open(&stores::all().pop().unwrap()).await;
        let first = segments(&store).await[0].clone();
        add_with(&store, &first, &[Some("GET"), None], change).await;
        for found in [findings(&store, later()).await, shallow_findings(&store, later()).await] {
            let [finding] = &found[..] else { panic!("{expected}: {found:?}") };
            assert_eq!(finding.severity(), Severity::Damaged);
            assert!(finding.to_string().contains(expected), "{finding}");
        }
    }
}
