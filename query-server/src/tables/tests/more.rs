//! A later build reads the stores of this version and of all earlier ones: it knows one more column of flows and one
//! more layer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use capstan_index::filter::Term;
use capstan_model::{Address, FailureKind, RecorderId, Time, TimeRange};
use capstan_storage_engine::cache::Cache;
use capstan_storage_engine::catalog::{
    Change, CommitDraft, Fact, LayerEntry, Recorder, What, WriterInfo, WriterKind,
};
use capstan_storage_engine::segment::column::{Column, ColumnType, Meaning, Merge, Packing};
use capstan_storage_engine::segment::{Directory, Layers, TableLayer, flows, tabular};
use capstan_storage_engine::store::Store;
use capstan_view::access::{KEY_BYTES, Mask, Principal, Rights};
use capstan_view::{OPENED_BYTES, StoreView};
use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::explain::told;
use super::fixture::{ask, number, refused, rows, tables, tables_of, try_ask};

/// The columns that the later build has more.
const NEW: [Column; 2] = [
    Column::new(9_001, "novelty", ColumnType::U32, true, Packing::Delta)
        .shown("novelty", Meaning::Plain)
        .merged(Merge::Sum),
    Column::new(9_002, "class", ColumnType::Label, false, Packing::Dictionary)
        .or("none")
        .shown("class", Meaning::Plain)
        .merged(Merge::LastKnown),
];

/// The layer that it has more.
static CALLS: TableLayer = TableLayer {
    name: "calls-test",
    file: "calls-test.parquet",
    version: (1, 0),
    columns: &[
        Column::new(2, "method", ColumnType::Text, true, Packing::Dictionary)
            .shown("request_method", Meaning::Plain),
        Column::new(1, "number", ColumnType::I32, false, Packing::Delta)
            .shown("number", Meaning::Plain),
        Column::new(3, "inner", ColumnType::I32, true, Packing::Delta),
    ],
    directory: Directory::Own,
    sql: Some("calls_test"),
};

fn later() -> Layers {
    let columns = [flows::TABLE.columns, &NEW].concat().leak();
    let flows = Box::leak(Box::new(TableLayer { columns, ..flows::TABLE }));
    Layers { flows, added: std::slice::from_ref(&CALLS), ..Layers::KNOWN }
}

async fn view(store: &Store, layers: Layers) -> Arc<StoreView> {
    let cache = Cache::in_memory(1 << 20);
    StoreView::load_as(layers, store.clone(), cache, OPENED_BYTES).await.expect("a store")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// All golden stores, in memory.
async fn golden() -> Vec<Store> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage-engine/tests/golden");
    let mut stores = Vec::new();
    for number in 1.. {
        let root = folder.join(number.to_string()).join("store");
        if !root.is_dir() {
            break;
        }
        let objects = Arc::new(InMemory::new());
        for file in files(&root) {
            let name = file.strip_prefix(&root).expect("below").to_str().expect("a name");
            let bytes = std::fs::read(&file).expect("a file");
            objects.put(&name.into(), bytes.into()).await.expect("into memory");
        }
        stores.push(Store::on(objects as Arc<dyn ObjectStore>, "golden").await.expect("a store"));
    }
    assert!(stores.len() >= 7, "{}", stores.len());
    stores
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn column_that_a_golden_store_lacks_is_null_or_its_default_in_sql() {
    let layers = later();
    for store in golden().await {
        let (now, then) = (view(&store, layers).await, view(&store, Layers::KNOWN).await);
        let (now, then) = (tables(&now), tables(&then));
        for table in ["flow_parts", "flows"] {
            let count = number(&then, &format!("SELECT count(*) FROM {table}")).await;
            assert!(count > 0);
            let sql = format!("SELECT count(*), count(novelty), count(class) FROM {table}");
            let expected = [count.to_string(), "0".to_owned(), count.to_string()];
            assert_eq!(rows(&ask(&now, &sql).await), [expected]);
            let classes = format!("SELECT class, sum(novelty) FROM {table} GROUP BY class");
            assert_eq!(rows(&ask(&now, &classes).await), [["none", "-"]]);
            // With a condition on it, and beside all others.
            let none = format!("SELECT count(*) FROM {table} WHERE class <> 'none' OR novelty > 0");
            assert_eq!(number(&now, &none).await, 0);
            let all = |columns: &str| {
                format!("SELECT {columns} FROM {table} ORDER BY flow_id, first_time")
            };
            let mut known: Vec<_> = ask(&then, &all("*"))
                .await
                .schema()
                .fields()
                .iter()
                .map(|of| of.name().clone())
                .collect();
            assert!(!known.contains(&"class".to_owned()));
            let same = all(&known.join(", "));
            assert_eq!(rows(&ask(&now, &same).await), rows(&ask(&then, &all("*")).await));
            known.extend(["novelty".to_owned(), "class".to_owned()]);
            let there = ask(&now, &all("*")).await;
            let mut there: Vec<_> =
                there.schema().fields().iter().map(|of| of.name().clone()).collect();
            there.sort_unstable();
            known.sort_unstable();
            assert_eq!(there, known);
        }
        assert_eq!(number(&now, "SELECT count(*) FROM calls_test").await, 0);
        assert_eq!(number(&now, "SELECT count(request_method) FROM calls_test").await, 0);
        ask(&now, "SELECT * FROM packets").await;
    }
}

/// Adds the layer to the first segment of a store, as the build that knows it does.
async fn add(store: &Store) {
    let methods: Vec<_> =
        (0..5_000).map(|n| (n % 5 > 0).then_some(["GET", "PUT"][n % 2])).collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(0..5_000)),
        Arc::new(StringArray::from(methods)),
        Arc::new((0..5_000).map(Some).collect::<Int32Array>()),
    ];
    let written = tabular::write(CALLS.version, &CALLS.stored_columns(), arrays, 0);
    let (object, directory) = written.expect("a table").with_directory();
    let entry = LayerEntry::added(&CALLS, &object, directory);
    let known = view(store, Layers::KNOWN).await;
    let window = known.scoped(&Principal::everything()).window(TimeRange::ALL).await;
    let segment = window.expect("a window").segments[0].clone();
    store.put_new(&segment.path_of(&entry), vec![object.into()]).await.expect("put");
    let change = Change {
        segment: segment.entry.name.clone(),
        slots: segment.entry.slots(),
        at: Time(1),
        what: What::LayerAdded { layer: entry },
    };
    let info = WriterInfo {
        kind: WriterKind::Live,
        description: String::new(),
        host: "node".to_owned(),
        source: None,
        resumes: None,
        started_at: Time(1),
    };
    let recorder = Recorder::start(store, RecorderId(0xadd), info).await;
    let facts = vec![Fact::Change(change)];
    let draft = CommitDraft { facts, ..CommitDraft::default() };
    recorder.expect("a recorder").commit(draft).await.expect("a commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_layer_is_a_table_of_sql_without_code_of_its_own() {
    let store = golden().await.pop().expect("a store");
    add(&store).await;
    let layers = later();
    let context = tables(&view(&store, layers).await);
    let sql = "SELECT request_method, count(*), max(number) FROM calls_test GROUP BY 1 ORDER BY 1";
    let expected = [["GET", "2000", "4998"], ["PUT", "2000", "4999"], ["-", "1000", "4995"]];
    assert_eq!(rows(&ask(&context, sql).await), expected);
    let columns = ask(&context, "SELECT * FROM calls_test LIMIT 1").await;
    let names: Vec<_> = columns.schema().fields().iter().map(|of| of.name().clone()).collect();
    assert_eq!(names, ["request_method", "number"]);
    assert_eq!(number(&context, "SELECT count(*) FROM calls_test WHERE number < 7").await, 7);

    // What EXPLAIN says is what is asked: index, directory, pages.
    let plan = super::explain::plan_of(&view(&store, layers).await, sql).await;
    assert_eq!((told(&plan, "segments"), told(&plan, "opened")), (2, 1), "{plan}");
    let fresh = view(&store, layers).await;
    fresh.scoped(&Principal::everything()).window(TimeRange::ALL).await.expect("a window");
    let before = store.requests();
    ask(&tables(&fresh), sql).await;
    let sent = store.requests() - before;
    assert_eq!(sent.gets, told(&plan, "requests"), "{plan}");
    assert_eq!(sent.bytes_read, told(&plan, "bytes"), "{plan}");

    // Who does not know the layer sees its object, and no table.
    let known = tables(&view(&store, Layers::KNOWN).await);
    assert!(try_ask(&known, "SELECT * FROM calls_test").await.is_err());
    for context in [&known, &context] {
        let files = "SELECT path, bytes > 0 FROM files WHERE layer = 'calls-test'";
        let [file] = &rows(&ask(context, files).await)[..] else { panic!("one file") };
        assert!(file[0].ends_with("/calls-test.parquet") && file[1] == "true", "{file:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masked_principal_reads_no_row_of_an_added_layer() {
    let store = golden().await.pop().expect("a store");
    add(&store).await;
    let host = Term::ip(Address::v4([10, 0, 0, 1])).into();
    let mask = Mask::new(host, [42; KEY_BYTES]).expect("a mask");
    let who = Principal::new("team", Rights::all(), Some(mask));
    let context = tables_of(&view(&store, later()).await.scoped(&who));
    for sql in ["SELECT * FROM calls_test", "SELECT count(*) FROM calls_test"] {
        let (kind, words) = refused(&context, sql).await;
        assert_eq!(kind, FailureKind::Permission);
        assert!(words.contains("calls_test") && words.contains("mask"), "{words}");
    }
}
