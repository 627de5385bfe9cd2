//! The S3 server of the benchmark, in the network that is recorded.

use std::path::{Path, PathBuf};
use std::process::Command;

use capstan_model::{Failure, FailureKind};

use crate::measure;
use crate::network::Network;

/// What starts one; scripts/bench runs where it lies.
const SCRIPT: &str = "scripts/ceph";

/// A Ceph cluster of one machine with its S3 gateway. It is stopped and removed at the end.
pub(super) struct Ceph<'a> {
    network: &'a Network,
    folder: PathBuf,
    /// What a command needs to reach it.
    environment: Vec<(String, String)>,
}

impl<'a> Ceph<'a> {
    /// Whether one can be started here.
    pub(super) fn is_there() -> bool {
        Path::new(SCRIPT).is_file()
    }

    /// Starts one in a folder that is not there yet.
    pub(super) fn start(
        network: &'a Network,
        folder: PathBuf,
        logs: &Path,
    ) -> Result<Ceph<'a>, Failure> {
        // It stands for other machines: it gets what the recorder and the sender leave.
        let mut start = Command::new("nice");
        start.args(["-n", "19", SCRIPT]).arg(&folder);
        // From here on its processes are stopped, whatever it says.
        let mut ceph = Ceph { network, folder, environment: Vec::new() };
        let said = measure::run(network.command(&start), logs)?.output;
        let exported =
            said.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        ceph.environment =
            exported.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(ceph)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// A place for stores.
    pub(super) fn bucket(&self) -> Result<PathBuf, Failure> {
        self.variable("CAPSTAN_TEST_S3").map(PathBuf::from).ok_or_else(|| {
            Failure::new(FailureKind::Other, format!("{SCRIPT} does not say where its bucket is"))
        })
    }

    /// Gives a command what it needs to reach it.
    pub(super) fn reached(&self, mut command: Command) -> Command {
        command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_PROFILE");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Ceph<'_> {
    fn drop(&mut self) {
        let mut stop = Command::new(SCRIPT);
        stop.arg("stop").arg(&self.folder);
        // There is nobody left to tell.
        let _ = self.network.command(&stop).output();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
