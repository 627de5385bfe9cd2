//! Commands of a user without permissions: the error names the missing one, and nothing is changed.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::capstan::{answer, binary, fails, over};
use crate::sandbox::is_root;
use crate::tools::have;
use crate::traffic::Noise;

/// The user without rights, and their group.
const NOBODY: u32 = 65_534;

/// A folder where somebody without rights can start the binary, and a store of ours in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Option<Place> {
        if !is_root() || !have(&["setpriv"]) {
            return None;
        }
        let place = Place { folder: tempfile::tempdir().expect("a scratch folder") };
        allow(place.folder.path(), 0o755);
        // Where it was built may be nobody's business.
        std::fs::copy(binary(), place.path("capstan")).expect("room for the binary");
        Noise { hours: 1, packets_an_hour: 100 }.write(&place.path("noise.pcap"));
        answer(over(&place.path("store"), "import").arg(place.path("noise.pcap")));
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `capstan` as nobody.
    fn nobody(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(self.path("capstan")).args(arguments);
        command.env_clear().current_dir(self.folder.path());
        command
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn store_without_write_permission_is_only_read() {
    let Some(place) = Place::new() else { return };
    let other = place.path("other.pcap");
    Noise { hours: 1, packets_an_hour: 101 }.write(&other);
    let count = ["sql", "--store", "store", "--format", "csv", "select count(*) from packets"];
    assert_eq!(answer(&mut place.nobody(&count)), "count(*)\n100\n");
    fails(
        &mut place.nobody(&["import", "--store", "store", "other.pcap"]),
        4,
        &["Permission denied", "store"],
    );
    fails(
        &mut place.nobody(&["import", "--store", "new", "other.pcap"]),
        4,
        &["Permission denied", "new"],
    );
    assert!(!place.path("new").exists());
    assert_eq!(answer(&mut place.nobody(&count)), "count(*)\n100\n", "nothing was added");
    let export = ["export", "--store", "store", "-o", "all.pcapng"];
    fails(&mut place.nobody(&export), 4, &["all.pcapng", "Permission denied"]);
}

#[test]
fn unreadable_files_are_reported() {
    let Some(place) = Place::new() else { return };
    let status = ["status", "--store", "store"];
    allow(&place.path("store/default/format"), 0o600);
    fails(&mut place.nobody(&status), 4, &["format", "Permission denied"]);
    allow(&place.path("store/default/format"), 0o644);

    allow(&place.path("store/default/catalog"), 0o700);
    fails(&mut place.nobody(&status), 4, &["catalog", "Permission denied"]);
    allow(&place.path("store/default/catalog"), 0o755);

    allow(&place.path("store/default/data"), 0o700);
    // How many there are is in the catalog; how long they are is not.
    let count = ["sql", "--store", "store", "--format", "csv", "select count(*) from packets"];
    assert_eq!(answer(&mut place.nobody(&count)), "count(*)\n100\n");
    let sum = ["sql", "--store", "store", "select sum(length) from packets"];
    fails(&mut place.nobody(&sum), 4, &["data/", "Permission denied"]);
    let export = ["export", "--store", "store", "-o", "-"];
    fails(&mut place.nobody(&export), 4, &["data/", "Permission denied"]);
    allow(&place.path("store/default/data"), 0o755);

    allow(&place.path("noise.pcap"), 0o600);
    std::fs::create_dir(place.path("own")).expect("a scratch folder");
    chown(place.path("own"), Some(NOBODY), Some(NOBODY)).expect("root may");
    let import = ["import", "--store", "own/store", "noise.pcap"];
    fails(&mut place.nobody(&import), 4, &["noise.pcap", "Permission denied"]);
}

#[test]
fn capture_without_permission_reports_the_missing_capability() {
    let Some(place) = Place::new() else { return };
    std::fs::create_dir(place.path("own")).expect("a scratch folder");
    chown(place.path("own"), Some(NOBODY), Some(NOBODY)).expect("root may");
    let record = ["record", "--store", "own/store", "-i", "lo", "--duration", "1"];
    fails(&mut place.nobody(&record), 4, &["CAP_NET_RAW", "setcap"]);
    let up = [
        "up",
        "--store",
        "own/store",
        "-i",
        "lo",
        "--flight",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ];
    fails(&mut place.nobody(&up), 4, &["CAP_NET_RAW"]);
    // Ports below 1024 are root's here, unless the machine says otherwise.
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|first| first.trim() == "1024") {
        let serve =
            ["serve", "--store", "store", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:81"];
        fails(&mut place.nobody(&serve), 4, &["127.0.0.1:81", "Permission denied"]);
    }
}
