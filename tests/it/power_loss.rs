//! What an import leaves in a folder if the power fails at any moment. The test records the system calls of the
//! import. After each of them it constructs two disks: one has only what was synced, the other has every name, but
//! files that were not synced are empty.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::capstan::{answer, over, row};
use crate::tools::can_trace;
use crate::traffic::Noise;

/// Four segments and commits: an hour of more than a mebibyte has one of its own.
const FILE: Noise = Noise { hours: 4, packets_an_hour: 1_500 };

/// The calls that make something last.
const TRACED: &str = "trace=write,writev,pwrite64,fsync,fdatasync,link,linkat,mkdir,mkdirat,rename,\
                      renameat,renameat2";

/// A system call that ended well: the lines of the record where it began and where its effect
/// was there.
#[derive(Debug, Clone)]
struct Call {
    began: usize,
    done: usize,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Write(String),
    Sync(String),
    MakeFolder(String),
    Link { from: String, to: String },
}

/// Reads what strace recorded.
fn calls(record: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut begun: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (number, line) in record.lines().enumerate() {
        let (thread, text) = line.split_once(' ').expect("a thread and its call");
        let text = text.trim_start();
        if let Some(beginning) = text.strip_suffix("<unfinished ...>") {
            begun.insert(thread, (number, beginning));
            continue;
        }
        let (began, beginning, end) = match text.strip_prefix("<... ") {
            Some(resumed) => {
                let (began, beginning) = begun.remove(thread).expect("it began");
                (began, beginning, resumed.split_once("resumed>").expect("resumed").1)
            }
            None => (number, text, ""),
        };
        let whole = format!("{beginning}{end}");
        let (Some((name, rest)), Some((_, result))) =
            (whole.split_once('('), whole.rsplit_once(" = "))
        else {
            continue;
        };
        // A name is of the directory that is open before it, unless it begins at the root.
        let quoted = |place: usize| {
            let (before, name) =
                (rest.split('"').nth(2 * place)?, rest.split('"').nth(2 * place + 1)?);
            let folder = before.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>'));
            let folder = folder.map_or("", |(folder, _)| folder);
            Some(Path::new(folder).join(name).to_str()?.to_owned())
        };
        let of_file = || Some(rest.split_once('<')?.1.split_once('>')?.0.to_owned());
        let failed = result.starts_with('-');
        let what = match name {
            // One that is there already was made by a call that has had its effect by now.
            "mkdir" | "mkdirat" if !failed || result.contains("EEXIST") => {
                quoted(0).map(What::MakeFolder)
            }
            _ if failed => None,
            "write" | "writev" | "pwrite64" => of_file().map(What::Write),
            "fsync" | "fdatasync" => of_file().map(What::Sync),
            "link" | "linkat" => quoted(0).zip(quoted(1)).map(|(from, to)| What::Link { from, to }),
            "rename" | "renameat" | "renameat2" => panic!("nothing is renamed: {line}"),
            _ => None,
        };
        let known = |what: &What| {
            matches!(what, What::MakeFolder(_)) && calls.iter().any(|call| call.what == *what)
        };
        if let Some(what) = what.filter(|what| !known(what)) {
            calls.push(Call { began, done: number, what });
        }
    }
    calls
}

/// What lies on a disk after the power went at some line of a record.
struct Disk<'a> {
    calls: &'a [Call],
    /// A folder that was there before.
    base: &'a Path,
    line: usize,
}

impl Disk<'_> {
    /// Whether `path` was synced between two lines.
    fn synced(&self, path: &str, after: usize, until: usize) -> bool {
        self.calls.iter().any(|call| {
            call.began > after
                && call.done <= until
                && matches!(&call.what, What::Sync(synced) if synced == path)
        })
    }

    /// Whether a file has all its bytes at a line.
    fn is_whole(&self, file: &str, line: usize) -> bool {
        let writes = self
            .calls
            .iter()
            .filter(|call| matches!(&call.what, What::Write(written) if written == file));
        let last = writes.map(|call| call.done).max();
        // One that nothing is written to is whole as soon as it is there.
        last.is_none_or(|last| self.synced(file, last, line))
    }

    /// Whether a folder is there for certain, all above it included.
    fn has_folder(&self, folder: &Path) -> bool {
        if folder == self.base {
            return true;
        }
        let (name, parent) = (text(folder), folder.parent().expect("below the base"));
        self.calls.iter().any(|call| {
            matches!(&call.what, What::MakeFolder(made) if *made == name)
                && self.synced(&text(parent), call.done, self.line)
        }) && self.has_folder(parent)
    }

    /// The names that may be there: what each is a link to, and whether it is there for certain.
    fn names(&self) -> BTreeMap<String, (String, bool)> {
        let links = self.calls.iter().filter(|call| call.began <= self.line);
        links
            .filter_map(|call| match &call.what {
                What::Link { from, to } => {
                    let folder = Path::new(to).parent().expect("a folder");
                    let certain =
                        self.synced(&text(folder), call.done, self.line) && self.has_folder(folder);
                    Some((to.clone(), (from.clone(), certain)))
                }
                _ => None,
            })
            .collect()
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of ours").to_owned()
}

/// What breaks a promise of the store, whenever the power goes.
fn broken(calls: &[Call], base: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for call in calls {
        let What::Link { from, to } = &call.what else { continue };
        // Just before the name can be seen.
        let disk = Disk { calls, base, line: call.began };
        if !disk.is_whole(from, call.began) {
            broken.push(format!("{to} can be seen before its bytes are safe"));
        }
        if to.contains("/log/") {
            let mut before = disk.names();
            before.remove(to);
            let data = before.iter().filter(|(name, _)| name.contains("/data/"));
            let unsafe_data = data.filter(|(_, (_, certain))| !certain).map(|(name, _)| name);
            broken
                .extend(unsafe_data.map(|name| format!("{to} can be seen before {name} is safe")));
            let earlier = before.iter().filter(|(name, _)| {
                name.contains("/log/") || name.contains("/writers/") || name.ends_with("/format")
            });
            let unsafe_log = earlier.filter(|(_, (_, certain))| !certain).map(|(name, _)| name);
            broken.extend(unsafe_log.map(|name| format!("{to} can be seen before {name} is safe")));
        }
    }
    broken
}

/// Makes a store of some of the objects of another, which may be empty.
fn copy(names: &BTreeSet<(String, bool)>, from: &Path, to: &Path) {
    for (name, whole) in names {
        let file = to.join(Path::new(name).strip_prefix(from).expect("below the store"));
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a scratch folder");
        // Names of logs that have ended are removed again; there is nothing in them.
        let was_removed = name.contains("/open/") && !Path::new(name).exists();
        if *whole && !was_removed {
            std::fs::hard_link(name, file).expect("it is still there");
        } else {
            std::fs::write(file, "").expect("a scratch file");
        }
    }
}

#[test]
fn power_loss_keeps_commits_complete_and_other_data_invisible() {
    if !can_trace() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let base = std::fs::canonicalize(scratch.path()).expect("it is there");
    let (capture, store, record) =
        (base.join("noise.pcap"), base.join("store"), base.join("record"));
    FILE.write(&capture);
    let import = over(&store, "import");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-s", "0", "-e", TRACED, "-o"]).arg(&record);
    traced.arg(import.get_program()).args(import.get_args()).arg(&capture).stdin(Stdio::null());
    answer(&mut traced);
    let record = std::fs::read_to_string(&record).expect("what strace wrote");
    let calls = calls(&record);

    assert_eq!(broken(&calls, &base), Vec::<String>::new());
    // The record has what it takes to see a fault: without its syncs nothing holds.
    let folders_only: Vec<Call> = calls
        .iter()
        .filter(|call| !matches!(&call.what, What::Sync(path) if path.ends_with("#1")))
        .cloned()
        .collect();
    assert!(broken(&folders_only, &base).iter().any(|what| what.contains("its bytes")));
    let files_only: Vec<Call> = calls
        .iter()
        .filter(|call| !matches!(&call.what, What::Sync(path) if !path.ends_with("#1")))
        .cloned()
        .collect();
    assert!(broken(&files_only, &base).iter().any(|what| what.contains("is safe")));

    let mut seen = BTreeSet::new();
    let mut packets = 0;
    let lines = record.lines().count();
    for line in 0..=lines {
        let disk = Disk { calls: &calls, base: &base, line };
        let mut names = disk.names();
        // What the place was tried with is deleted again.
        names.retain(|name, _| !name.contains("/probe/"));
        let certain = names.iter().filter(|(_, (_, certain))| *certain);
        let certain: BTreeSet<_> = certain.map(|(name, _)| (name.clone(), true)).collect();
        let possible: BTreeSet<_> = names
            .iter()
            .map(|(name, (from, _))| (name.clone(), disk.is_whole(from, line)))
            .collect();
        for objects in [certain, possible] {
            let is_store = objects.iter().any(|(name, _)| name.ends_with("/default/format"));
            if !is_store || !seen.insert(objects.clone()) {
                continue;
            }
            let left: PathBuf = base.join(format!("left-{}", seen.len()));
            copy(&objects, &store, &left);
            answer(over(&left, "verify").arg("--deep"));
            let [found] = &row(&left, "select count(*) from packets")[..] else {
                panic!("one cell")
            };
            packets = packets.max(found.parse().expect("a number"));
        }
    }
    assert!(seen.len() > 20, "{} disks", seen.len());
    // When it has ended all is safe.
    let disk = Disk { calls: &calls, base: &base, line: lines };
    assert!(disk.names().values().all(|(_, certain)| *certain));
    assert_eq!(packets, FILE.packets());
}
