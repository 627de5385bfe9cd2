//! Default memory budget of queries: a quarter of the machine's memory, at most half of the control group's
//! limit, and at most a quarter of the address space limit.

use std::path::Path;

/// Smallest default budget, bytes.
const LEAST: u64 = 64 << 20;

/// Limits of a machine, bytes; none if unknown or unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Machine {
    memory: Option<u64>,
    group: Option<u64>,
    addresses: Option<u64>,
}

/// The default memory budget of this machine, bytes.
pub fn budget() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = Machine {
        memory: total(&read("/proc/meminfo")),
        group: group(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"), &|path| {
            std::fs::read_to_string(path).ok()
        }),
        addresses: addresses(&read("/proc/self/limits")),
    };
    usize::try_from(share(machine)).unwrap_or(usize::MAX)
}

fn share(machine: Machine) -> u64 {
    let parts = [
        machine.memory.map(|bytes| bytes / 4),
        machine.group.map(|bytes| bytes / 2),
        machine.addresses.map(|bytes| bytes / 4),
    ];
    parts.into_iter().flatten().min().unwrap_or(512 << 20).max(LEAST)
}

/// `MemTotal` of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit of address space in `/proc/self/limits`.
fn addresses(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The lowest limit of the process's control group and those above it; `/proc/self/cgroup` has
/// lines `number:controllers:path`, without controllers in version 2.
fn group(membership: &str, mounted: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = membership.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            of if of.split(',').any(|one| one == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // A container may see its own group as the root.
        let own = root.join(path.trim_start_matches('/'));
        let groups = own.ancestors().take_while(|group| group.starts_with(&root));
        groups.filter_map(|group| limit(&read(&group.join(file))?)).min()
    });
    limits.min()
}

/// A limit of a group; none if it says `max`, or the number that version 1 has for that.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_minimum_of_machine_control_group_and_address_space() {
        const GIB: u64 = 1 << 30;
        let machine = |memory, group, addresses| Machine { memory, group, addresses };
        for (given, expected) in [
            (machine(Some(16 * GIB), None, None), 4 * GIB),
            (machine(Some(16 * GIB), Some(2 * GIB), None), GIB),
            (machine(Some(16 * GIB), Some(64 * GIB), Some(4 * GIB)), GIB),
            (machine(Some(100 << 20), None, None), LEAST),
            (machine(None, None, None), 512 << 20),
        ] {
            assert_eq!(share(given), expected, "{given:?}");
        }
    }

    #[test]
    fn both_versions_of_control_groups_are_read_up_to_the_root() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "/g/memory/pods/a/memory.limit_in_bytes" => "9223372036854771712\n",
                "/g/memory/pods/memory.limit_in_bytes" => "1073741824\n",
                "/g/unified/x/memory.max" | "/g/own/memory.max" => "max\n",
                "/g/memory.max" => "2147483648\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let of = |membership: &str| group(membership, Path::new("/g"), &files);
        assert_eq!(of("4:cpu:/x\n3:memory:/pods/a\n"), Some(1 << 30));
        assert_eq!(of("0::/own\n"), Some(2 << 30));
        assert_eq!(of("0::/../../elsewhere\n"), Some(2 << 30));
        assert_eq!(of("nonsense"), None);
    }

    #[test]
    fn kernel_memory_files_are_parsed() {
        assert_eq!(total("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000 << 10));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space  3221225472  unlimited  bytes\n";
        assert_eq!(addresses(limits), Some(3 << 30));
        assert_eq!(addresses("Max address space  unlimited  unlimited  bytes"), None);
        assert!(budget() >= LEAST as usize);
    }
}
