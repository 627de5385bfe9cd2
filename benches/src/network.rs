//! A network of two interfaces joined by a cable, in a namespace of its own: what is sent into one comes out of the
//! other, and there is no other traffic.

use std::process::{self, Command};

use crate::measure::run_by;

/// The end of the cable that is sent into.
pub(crate) const NEAR: &str = "near";
/// The end that is recorded.
pub(crate) const FAR: &str = "far";

/// The longest frame that the cable takes, bytes: captures of virtual interfaces have frames far
/// above 1,514 bytes, for segments are joined and cut by hardware that is not there.
pub(crate) const LONGEST_FRAME: usize = MTU + 14;
/// The largest that a veth pair allows.
const MTU: usize = 65_535;

/// The namespace. It is deleted, with all that is in it, at the end.
pub(crate) struct Network {
    name: String,
}

impl Network {
    /// Makes one, or says why that cannot be done here.
    pub(crate) fn new() -> Result<Network, String> {
        let network = Network { name: format!("capstan-bench-{}", process::id()) };
        ip(&["netns", "add", &network.name])?;
        // Without IPv6 and addresses nothing is sent that the sender did not send.
        let quiet = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || true";
        let mut shell = Command::new("sh");
        shell.args(["-c", quiet]);
        said(network.command(&shell))?;
        let link = |arguments: &str| {
            let words = ["-n", &network.name, "link"].into_iter().chain(arguments.split(' '));
            ip(&words.collect::<Vec<_>>())
        };
        link(&format!("add name {NEAR} type veth peer name {FAR}"))?;
        // For a server inside; nothing of the benchmark goes through it.
        link("set dev lo up")?;
        for end in [NEAR, FAR] {
            link(&format!("set dev {end} mtu {MTU} up"))?;
        }
        Ok(network)
    }

    /// A command as it runs inside.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let mut exec = Command::new("ip");
        exec.args(["netns", "exec", &self.name]);
        run_by(exec, command)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    said(command)
}

/// Runs a command; what it said is why it failed.
fn said(mut command: Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("ip cannot be run ({error}; apt-get install iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "a network namespace is needed, which needs root: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
