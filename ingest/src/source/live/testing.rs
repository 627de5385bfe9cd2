//! Test networks: a network namespace with its own interfaces, which carries only the test's
//! packets. It needs root and iproute2.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::sys;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace that is deleted, with all that is in it, at the end.
pub(super) struct Network {
    name: String,
}

impl Network {
    /// A new one with its loopback up, or none (and a printed line) where this
    /// process may not make one.
    pub(super) fn new() -> Option<Network> {
        let name = format!("capstan-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!("skipped, needs root: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                println!("skipped, needs iproute2: {error}");
                return None;
            }
        }
        let network = Network { name };
        // Without IPv6 nothing is sent that the test did not send.
        network.within(|| {
            for which in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
                let _ = fs::write(path, "1");
            }
        });
        network.ip("link set lo up");
        Some(network)
    }

    /// A new one with the two ends `a` and `b` of a cable, of this MTU.
    pub(super) fn with_cable(mtu: u32) -> Option<Network> {
        let network = Network::new()?;
        network.add_cable("a", "b", mtu);
        Some(network)
    }

    /// Adds a cable and switches its ends on.
    pub(super) fn add_cable(&self, one: &str, other: &str, mtu: u32) {
        self.ip(&format!("link add name {one} mtu {mtu} type veth peer name {other} mtu {mtu}"));
        self.switch_on([one, other]);
    }

    /// Switches both ends of a cable on, and waits until the kernel sends through it: it says so
    /// from a queue of its own, and drops what is sent before.
    pub(super) fn switch_on(&self, ends: [&str; 2]) {
        for end in ends {
            self.ip(&format!("link set dev {end} up"));
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        for end in ends {
            while !self.ip(&format!("link show dev {end}")).contains("state UP") {
                assert!(Instant::now() < deadline, "{end} does not come up");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Runs `ip` inside; its output.
    pub(super) fn ip(&self, arguments: &str) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split(' '))
            .output()
            .expect("ip was there a moment ago");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `what` in a thread of its own that is inside.
    pub(super) fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: integers only; it changes this thread alone.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "setns: {}", io::Error::last_os_error());
                what()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A socket that sends whole Ethernet frames out of an interface of the
/// network this thread is in.
pub(super) struct Sender(File);

impl Sender {
    pub(super) fn new(interface: &str) -> Sender {
        let link = super::Links::open().unwrap().list().unwrap();
        let index = link.iter().find(|link| link.name == interface).unwrap().index;
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap();
        let mut address = [0u8; 20];
        address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
        address[4..8].copy_from_slice(&index.to_ne_bytes());
        sys::bind(&socket, &address).unwrap();
        Sender(socket.into())
    }

    pub(super) fn send(&self, frame: &[u8]) {
        assert_eq!((&self.0).write(frame).unwrap(), frame.len());
    }
}

/// The far side of an interface without a link layer: what is written to it
/// comes in there, as IP packets; it gets the hardware type that is asked for.
pub(super) fn tun(name: &str, hardware: u16) -> File {
    const IFF_TUN_NO_INFO: u16 = 0x1001;
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&IFF_TUN_NO_INFO.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which has 40 bytes.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(made, 0, "TUNSETIFF: {}", io::Error::last_os_error());
    // SAFETY: TUNSETLINK takes an integer.
    let set =
        unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETLINK, libc::c_ulong::from(hardware)) };
    assert_eq!(set, 0, "TUNSETLINK: {}", io::Error::last_os_error());
    device
}

/// Makes the calling thread, and no other, a user without rights.
pub(super) fn drop_rights() {
    const NOBODY: libc::c_long = 65534;
    // SAFETY: integers only. The bare system call changes this thread alone,
    // which libc's wrapper would not.
    let dropped = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(dropped, 0, "setresuid: {}", io::Error::last_os_error());
}
