//! The machine on which the numbers are measured.

use std::fs;

use serde::Serialize;

/// The machine, as far as numbers depend on it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Load average of the minute before: what else the machine did.
    pub(crate) load_before: String,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn this() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        Machine {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// The first processor this process may run on.
pub(crate) fn first_processor() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    first_of_list(&field(&status, "Cpus_allowed_list"))
}

/// The first number of a list such as `0-3,7`.
fn first_of_list(list: &str) -> String {
    let first: String = list.chars().take_while(char::is_ascii_digit).collect();
    if first.is_empty() { "0".to_owned() } else { first }
}

/// The value of a line `name: value`.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(field(text, "model name"), "Some CPU @ 2 GHz");
        assert_eq!(field(text, "absent"), "unknown");
    }

    #[test]
    fn the_first_processor_is_the_lists_first() {
        assert_eq!(first_of_list("0-1"), "0");
        assert_eq!(first_of_list("3,5-7"), "3");
        assert_eq!(first_of_list("unknown"), "0");
    }

    #[test]
    fn this_machine_has_a_core() {
        let machine = Machine::this();
        assert!(machine.cores >= 1 && machine.memory_mib > 0 && !machine.kernel.is_empty());
    }
}
