//! Reads and repairs catalogs of which any few objects are lost, truncated or changed.
//!
//! The layers of all segments are intact. So after a repair nothing that was recorded may be missing and nothing may
//! be there twice. Before it, answers must name what is missing.

use std::time::Duration;

use capstan_model::coverage::Listened;
use capstan_model::packet::Stamp;
use capstan_model::{
    Address, Direction, FlowId, FlowKey, Generation, Headers, Packet, RecorderId, Time,
};
use object_store::ObjectStore;

use capstan_model::GenerationId;

use super::*;
use crate::catalog::names as paths;
use crate::catalog::rollup::roll_up_all;
use crate::catalog::rollup::truncate::Limits;
use crate::catalog::{
    Change, CommitDraft, Fact, Finished, Layer, LayerEntry, Recorder, Rollup, Source, Stay, What,
    WriterInfo, WriterKind,
};
use crate::segment::builder::SegmentBuilder;
use crate::testing::key;

/// Generations of recorders.
const GENERATIONS: usize = 6;

const SECOND: i64 = 1_000_000_000;

/// Segments that were put into the store.
#[derive(Debug, Default)]
struct Made {
    /// Those that are committed, and their packets.
    committed: BTreeMap<String, u64>,
    /// Those whose upload was broken off before they were committed, and whose packets were stored again.
    broken_off: BTreeSet<String>,
    /// The one that the last commit of a log names, which is not rolled up.
    last: String,
}

struct Maker {
    objects: Arc<InMemory>,
    store: Store,
    made: Made,
    /// Behind the last ordinal that was committed.
    next_ordinal: u64,
}

impl Maker {
    /// A segment of packets with these ordinals, one a second from a time on, put into the store.
    async fn segment(
        &mut self,
        state: (u64, u32),
        ordinals: std::ops::Range<u64>,
        hour: i64,
    ) -> SegmentEntry {
        let writer =
            GenerationId { recorder: RecorderId(state.0), generation: Generation(state.1) };
        let name = format!("{}-{}-{:08}", writer.recorder, writer.generation, ordinals.start);
        let mut builder = SegmentBuilder::new(writer).unwrap();
        let key = FlowKey { source: Address::v4([10, 0, 0, state.0 as u8]), ..key() };
        let part = builder.open_part(FlowId::new(writer.recorder, writer.generation, 0), key);
        for ordinal in ordinals.clone() {
            let mut headers = Headers::default();
            headers.prefix = 14;
            let stamp = Stamp::At(Time((hour * 3_600 + ordinal as i64) * SECOND));
            let data = [ordinal as u8; 60];
            let packet = Packet { interface: 0, stamp, length: 60, data: &data, options: &[] };
            builder.push(part, &packet, &headers, Direction::Forward, ordinal);
        }
        let sealed = builder.seal(name.clone(), writer.generation).unwrap();
        let hour = sealed.hours[0];
        for layer in &sealed.layers {
            let path = paths::layer(hour, &name, layer.layer.file());
            let bytes: Vec<u8> = layer.parts.iter().flatten().copied().collect();
            self.objects.put(&full(path.as_ref()), bytes.into()).await.unwrap();
        }
        SegmentEntry::of_sealed(&sealed, false)
    }

    /// Commits segments, and that their times were listened to.
    async fn commit(
        &mut self,
        recorder: &mut Recorder,
        segments: Vec<SegmentEntry>,
        end: Option<bool>,
    ) {
        let listened = segments.iter().map(|of| Listened {
            interfaces: vec![0],
            range: TimeRange { start: of.first.unwrap(), end: of.last.unwrap() },
        });
        let listened: Vec<_> = listened.collect();
        for of in &segments {
            self.made.committed.insert(of.name.clone(), of.packets);
        }
        let next_ordinal = segments.iter().map(|of| of.last_ordinal + 1).max();
        let next_ordinal = next_ordinal.unwrap_or(self.next_ordinal);
        self.next_ordinal = next_ordinal;
        let finished = end.map(|complete| Finished { complete, packets_total: next_ordinal });
        let recorded = CommitDraft::recorded(segments, listened, []);
        let draft = CommitDraft { next_ordinal, finished, ..recorded };
        recorder.commit(draft).await.unwrap();
    }

    async fn roll_up(&self) {
        roll_up_all(&self.store, "test").await.unwrap();
    }
}

fn info(kind: WriterKind, source: &str, resumes: Option<u32>) -> WriterInfo {
    let source = (kind == WriterKind::Import).then(|| Source {
        name: source.to_owned(),
        bytes: 1_000,
        sketch: source.to_owned(),
    });
    WriterInfo {
        kind,
        description: String::new(),
        host: "node".to_owned(),
        source,
        resumes: resumes.map(Generation),
        started_at: Time(1),
    }
}

/// A store with imports and recordings of several generations, most of it rolled up.
async fn made() -> (Arc<InMemory>, Made) {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "golden").await.unwrap();
    let mut maker = Maker { objects, store: store.clone(), made: Made::default(), next_ordinal: 0 };

    // An import that was broken off and gone on with: what was put and not committed is stored again.
    let first = info(WriterKind::Import, "a.pcap", None);
    let mut import = Recorder::start(&store, RecorderId(0xa), first).await.unwrap();
    for (from, hour) in [(0, 10), (10, 10), (20, 11)] {
        let segment = maker.segment((0xa, 1), from..from + 10, hour).await;
        maker.commit(&mut import, vec![segment], None).await;
    }
    let lost = maker.segment((0xa, 1), 30..37, 11).await;
    maker.made.broken_off.insert(lost.name);
    maker.commit(&mut import, Vec::new(), None).await;
    import.give_up().await.unwrap();
    maker.roll_up().await;
    let again = info(WriterKind::Import, "a.pcap", Some(1));
    let mut import = Recorder::start(&store, RecorderId(0xa), again).await.unwrap();
    let of_two_hours =
        vec![maker.segment((0xa, 2), 30..40, 11).await, maker.segment((0xa, 2), 40..50, 15).await];
    maker.commit(&mut import, of_two_hours, None).await;
    maker.commit(&mut import, Vec::new(), Some(true)).await;

    // The same recorder imports another file that begins with the same packet.
    let alike = info(WriterKind::Import, "alike.pcap", None);
    let mut import = Recorder::start(&store, RecorderId(0xa), alike).await.unwrap();
    let segments =
        vec![maker.segment((0xa, 3), 0..15, 10).await, maker.segment((0xa, 3), 20..30, 11).await];
    maker.commit(&mut import, segments, Some(true)).await;

    let whole = info(WriterKind::Import, "b.pcap", None);
    let mut import = Recorder::start(&store, RecorderId(0xb), whole).await.unwrap();
    let segments =
        vec![maker.segment((0xb, 1), 0..10, 10).await, maker.segment((0xb, 1), 10..20, 15).await];
    maker.commit(&mut import, segments, None).await;
    maker.roll_up().await;
    let last = maker.segment((0xb, 1), 20..30, 15).await;
    maker.commit(&mut import, vec![last], Some(true)).await;
    maker.roll_up().await;

    // A recorder that was started again: its packets are numbered from 0 in each generation.
    let mut live =
        Recorder::start(&store, RecorderId(0xc), info(WriterKind::Live, "", None)).await.unwrap();
    for (from, hour) in [(0, 10), (10, 11)] {
        let segment = maker.segment((0xc, 1), from..from + 10, hour).await;
        maker.commit(&mut live, vec![segment], None).await;
    }
    maker.commit(&mut live, Vec::new(), Some(true)).await;
    maker.roll_up().await;
    let mut live =
        Recorder::start(&store, RecorderId(0xc), info(WriterKind::Live, "", None)).await.unwrap();
    for (from, hour) in [(0, 12), (10, 12), (20, 13)] {
        let segment = maker.segment((0xc, 2), from..from + 10, hour).await;
        maker.made.last = segment.name.clone();
        maker.commit(&mut live, vec![segment], None).await;
        if from < 20 {
            maker.roll_up().await;
        }
    }
    (maker.objects, maker.made)
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, many: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % many as u64) as usize
    }
}

/// Loses some objects of the catalog; what was done, in words.
async fn lose(objects: &InMemory, chance: &mut Chance) -> Vec<String> {
    let all = names(objects).await;
    let of_catalog = |name: &&String| !name.starts_with("data/") && name.as_str() != "format";
    let all: Vec<&String> = all.iter().filter(of_catalog).collect();
    let mut done = Vec::new();
    for _ in 0..=chance.below(4) {
        let name = all[chance.below(all.len())];
        let Ok(found) = objects.get(&full(name)).await else { continue };
        let mut bytes = found.bytes().await.unwrap().to_vec();
        let how = ["deleted", "emptied", "changed", "cut"][chance.below(4)];
        match how {
            "deleted" => {
                objects.delete(&full(name)).await.unwrap();
                done.push(format!("{name} {how}"));
                continue;
            }
            "emptied" => bytes.clear(),
            "changed" if !bytes.is_empty() => {
                let at = chance.below(bytes.len());
                bytes[at] ^= 1 << chance.below(8);
                done.push(format!("{name} {how} at {at}"));
                objects.put(&full(name), bytes.into()).await.unwrap();
                continue;
            }
            _ => bytes.truncate(bytes.len() / 2),
        }
        objects.put(&full(name), bytes.into()).await.unwrap();
        done.push(format!("{name} {how}"));
    }
    done
}

/// The segments that a window has, which are there once each.
fn visible(window: &Window) -> Result<BTreeMap<String, u64>, String> {
    let mut found = BTreeMap::new();
    for of in &window.segments {
        if found.insert(of.entry.name.clone(), of.entry.packets).is_some() {
            return Err(format!("{} is there twice", of.entry.name));
        }
    }
    Ok(found)
}

/// Truncates the logs of a store as far as possible.
async fn truncate(objects: &Arc<InMemory>) {
    let store = Store::on(Arc::clone(objects) as Arc<dyn ObjectStore>, "golden").await.unwrap();
    let limits = Limits { least: 1, most: 1_000 };
    let mut rollup = Rollup::claim(&store, "test", Stay::Leaves).await.unwrap();
    for _ in 0..6 {
        rollup = Rollup::claim(&store, "test", Stay::Leaves).await.unwrap();
    }
    let replaced = store.clock().await.unwrap();
    while store.clock().await.unwrap() <= replaced {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rollup.sweep(Duration::ZERO).await.unwrap();
    assert!(rollup.truncate(limits).await.unwrap().logs >= 4);
}

/// What is wrong with how a store is read and repaired of which some objects were lost. Every second store has truncated
/// logs.
async fn tried(seed: u64) -> Result<(), String> {
    let (objects, made) = made().await;
    let mut chance = Chance(seed);
    if seed % 2 == 1 {
        truncate(&objects).await;
    }
    let mut lost = lose(&objects, &mut chance).await;
    // Now and then a segment cannot be used any more. What is left of it must stay.
    let broken = (chance.below(5) == 0).then(|| chance.below(made.committed.len()));
    let broken = broken.and_then(|place| made.committed.keys().nth(place).cloned());
    if let Some(segment) = &broken {
        let all = names(&objects).await;
        let is_index =
            |of: &&String| of.contains(&format!("/{segment}/")) && of.ends_with("/index");
        objects.delete(&full(all.iter().find(is_index).unwrap())).await.unwrap();
        lost.push(format!("{segment} without index"));
    }
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "golden").await.unwrap();
    let told = |what: String| Err(format!("seed {seed}: {what}\n  {}", lost.join("\n  ")));

    let before = window(&store).await;
    let missing = |found: &BTreeMap<String, u64>| {
        let is_missing = |(name, packets): &(&String, &u64)| found.get(*name) != Some(*packets);
        made.committed.iter().filter(is_missing).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let found = match visible(&before) {
        Ok(found) => found,
        Err(twice) => return told(format!("before the repair, {twice}")),
    };
    // The last commit of a log leaves no trace before it is rolled up.
    let mut silent = missing(&found);
    silent.retain(|name| *name != made.last);
    if !silent.is_empty() && before.gaps.is_empty() {
        return told(format!("before the repair, nothing says that {silent:?} are missing"));
    }

    let generations = CatalogView::load(&store).await.unwrap().generations().await.unwrap();
    if generations.generations.len() < GENERATIONS && generations.gaps.is_empty() {
        let many = GENERATIONS - generations.generations.len();
        return told(format!(
            "before the repair, nothing says that {many} generations are missing"
        ));
    }

    let options = Options { remove_waste: chance.below(2) == 0, ..NOW };
    let rehearsal = Options { dry_run: true, ..options.clone() };
    let there = names(&objects).await;
    let (planned, plans) = repaired(&store, &rehearsal).await;
    if there != names(&objects).await {
        return told("a rehearsal changed something".to_owned());
    }
    let (report, actions) = repaired(&store, &options).await;
    let told = |what: String| {
        let shown: Vec<_> = actions.iter().map(ToString::to_string).collect();
        told(format!("{what}\n {report:?}\n  - {}", shown.join("\n  - ")))
    };
    if (planned.adopted, planned.left, planned.beyond)
        != (report.adopted, report.left, report.beyond)
    {
        return told(format!("a rehearsal said {planned:?}: {plans:#?}"));
    }
    let after = window(&store).await;
    let found = match visible(&after) {
        Ok(found) => found,
        Err(twice) => return told(twice),
    };
    let mut left = missing(&found);
    if let Some(segment) = &broken {
        if report.beyond == 0 {
            return told(format!("nothing says that {segment} cannot be used"));
        }
        left.retain(|name| name != segment);
    }
    let is_told = |name: &String| {
        let is_it = |action: &Action| match action {
            Action::Left { segment, why: Why::MayBeDouble { .. }, .. } => segment == name,
            _ => false,
        };
        actions.iter().any(is_it)
    };
    if !left.iter().all(is_told) {
        return told(format!("{left:?} are missing, gaps: {:?}", after.gaps));
    }
    let extra: Vec<_> = found.keys().filter(|name| !made.committed.contains_key(*name)).collect();
    let again_of = |name: &str| name.contains("000a-2-00000030") && found.contains_key(name);
    let is_double = extra.iter().any(|name| made.broken_off.contains(*name))
        && found.keys().any(|name| again_of(name));
    if is_double || extra.iter().any(|name| !made.broken_off.contains(*name)) {
        return told(format!("{extra:?} are there"));
    }
    let still = names(&objects).await;
    for name in made.committed.keys() {
        let layer = if broken.as_ref() == Some(name) { "/packets.parquet" } else { "/index" };
        if !still.iter().any(|of| of.contains(name.as_str()) && of.ends_with(layer)) {
            return told(format!("the layers of {name} were removed"));
        }
    }
    let (again, more) = repaired(&store, &options).await;
    let settled = Report { left: report.left, beyond: report.beyond, ..Report::default() };
    if again != settled {
        return told(format!("another repair comes to {again:?}: {more:?}"));
    }
    let mut wrong = found_damaged(&store).await;
    if report.beyond == 0 && !wrong.is_empty() {
        wrong.truncate(3);
        return told(format!("verify finds {wrong:?}"));
    }
    Ok(())
}

async fn found_damaged(store: &Store) -> Vec<String> {
    let findings = super::found(store).await;
    let damaged = findings.iter().filter(|of| of.severity() > verify::Severity::Note);
    damaged.map(ToString::to_string).collect()
}

#[tokio::test]
async fn loss_of_any_few_catalog_objects_loses_no_segment() {
    // CAPSTAN_LOSSES=FROM..TO tries other seeds.
    let asked = std::env::var("CAPSTAN_LOSSES").unwrap_or("0..150".to_owned());
    let (from, to) = asked.split_once("..").expect("two numbers");
    let seeds = from.parse().unwrap()..to.parse().unwrap();
    let mut wrong = Vec::new();
    for seed in seeds {
        wrong.extend(tried(seed).await.err());
    }
    let kinds: Vec<_> = wrong.iter().filter_map(|of| of.lines().next()).collect();
    let some: Vec<_> = wrong.iter().take(5).map(String::as_str).collect();
    let (many, kinds, some) = (wrong.len(), kinds.join("\n"), some.join("\n"));
    assert!(wrong.is_empty(), "{many} seeds of {asked}:\n{kinds}\n\n{some}");
}

/// A commit that was changed and can still be parsed names its segments for readers. As long as it counts they must not
/// be named a second time.
#[tokio::test]
async fn repair_does_not_name_segments_of_a_valid_commit_again() {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "golden").await.unwrap();
    let made = Made::default();
    let mut maker =
        Maker { objects: Arc::clone(&objects), store: store.clone(), made, next_ordinal: 0 };
    let info = info(WriterKind::Import, "a.pcap", None);
    let mut import = Recorder::start(&store, RecorderId(0xa), info).await.unwrap();
    for from in [0, 10, 20, 30] {
        let segment = maker.segment((0xa, 1), from..from + 10, 10).await;
        maker.commit(&mut import, vec![segment], None).await;
    }
    let of = GenerationId::new(RecorderId(0xa), Generation(1));
    let changed = full(paths::commit(of, 1).as_ref());
    let bytes = objects.get(&changed).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let other = text.replace("\"packets\":10", "\"packets\":9");
    assert_ne!(text, other);
    objects.put(&changed, other.into()).await.unwrap();
    objects.put(&full(paths::commit(of, 2).as_ref()), "".into()).await.unwrap();
    let names = names(&objects).await;
    let index = names.iter().find(|name| name.contains("-00000020/") && name.ends_with("/index"));
    objects.delete(&full(index.unwrap())).await.unwrap();

    for _ in 0..2 {
        let (report, actions) = repaired(&store, &NOW).await;
        assert_eq!((report.adopted.0, report.left.0), (0, 1), "{actions:?}");
        let found = window(&store).await;
        let all: Vec<u64> = found.segments.iter().map(|of| of.entry.first_ordinal).collect();
        assert_eq!(all, [0, 10, 30], "{actions:?}");
        assert_eq!(found.gaps.len(), 2);
    }
    // Without what hinders it the commit is replaced, and its segment named in its place.
    for name in names.iter().filter(|name| name.contains("-00000020/")) {
        objects.delete(&full(name)).await.unwrap();
    }
    let (report, actions) = repaired(&store, &NOW).await;
    assert_eq!((report.adopted.0, report.left.0), (1, 0), "{actions:?}");
    let found = window(&store).await;
    let all: Vec<u64> = found.segments.iter().map(|of| of.entry.first_ordinal).collect();
    assert_eq!((all, found.gaps.len()), (vec![0, 10, 30], 0), "{actions:?}");
}

/// That all layers of a segment but some were retired.
fn retired(entry: &SegmentEntry, but: &[Layer]) -> CommitDraft {
    let stays = |of: &&LayerEntry| but.iter().any(|layer| layer.name() == of.layer);
    let layers = entry.layers.iter().filter(|of| !stays(of)).cloned().collect();
    let change = Change {
        segment: entry.name.clone(),
        slots: entry.slots(),
        at: Time(7),
        what: What::LayersRetired { layers, why: "older than 7 d".to_owned() },
    };
    CommitDraft { facts: vec![Fact::Change(change)], ..CommitDraft::default() }
}

#[tokio::test]
async fn retired_layers_are_not_missing() {
    let objects = Arc::new(InMemory::new());
    let store = Store::on(Arc::clone(&objects) as Arc<dyn ObjectStore>, "golden").await.unwrap();
    let made = Made::default();
    let mut maker =
        Maker { objects: Arc::clone(&objects), store: store.clone(), made, next_ordinal: 0 };
    let live = info(WriterKind::Live, "", None);
    let mut recorder = Recorder::start(&store, RecorderId(0xa), live.clone()).await.unwrap();
    let mut segments = Vec::new();
    for from in [0, 10, 20] {
        let segment = maker.segment((0xa, 1), from..from + 10, 10).await;
        maker.commit(&mut recorder, vec![segment.clone()], None).await;
        segments.push(segment);
    }
    // Of the first the rows are left, of the second nothing; the objects are deleted later, or not yet.
    let mut keeper = Recorder::start(&store, RecorderId(0xb), live).await.unwrap();
    let kept = [Layer::Index, Layer::Flows, Layer::Packets];
    keeper.commit(retired(&segments[0], &kept)).await.unwrap();
    keeper.commit(retired(&segments[1], &[])).await.unwrap();
    let delete = async |entry: &SegmentEntry, layer: Layer| {
        objects.delete(&full(entry.path(layer).as_ref())).await.unwrap();
    };
    delete(&segments[0], Layer::Head).await;
    delete(&segments[1], Layer::Packets).await;
    let has = |window: &Window| -> Vec<(u64, usize)> {
        let of = |of: &Arc<Segment>| (of.entry.first_ordinal, of.layers().count());
        window.segments.iter().map(of).collect()
    };
    let all = segments[0].layers.len();
    for roll_up in [false, true] {
        if roll_up {
            maker.roll_up().await;
        }
        let found = window(&store).await;
        assert_eq!(has(&found), [(0, 3), (10, 0), (20, all)], "rolled up: {roll_up}");
        let head = found.segments[0].retired(Layer::Head).unwrap();
        assert_eq!((head.at, &*head.why), (Time(7), "older than 7 d"));
        assert_eq!(found.segments[0].now().layers.len(), 3);
        assert_eq!(super::found(&store).await, []);
        let (report, actions) = repaired(&store, &NOW).await;
        assert_eq!(report, Report::default(), "{actions:?}");
    }
    // The commits that named the first two are lost, and so is what was rolled up: only the first is named again.
    let of = GenerationId::new(RecorderId(0xa), Generation(1));
    for seq in [0, 1] {
        objects.delete(&full(paths::commit(of, seq).as_ref())).await.unwrap();
    }
    for name in names(&objects).await.iter().filter(|name| name.starts_with("catalog/date=")) {
        objects.delete(&full(name)).await.unwrap();
    }
    repaired(&store, &NOW).await;
    assert_eq!(has(&window(&store).await), [(0, 3), (20, all)]);
}
