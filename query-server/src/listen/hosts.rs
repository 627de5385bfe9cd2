//! The host names that a server accepts.
//!
//! A web page can have its own name resolve to this machine (DNS rebinding); the browser then lets the page read
//! the answers. Such a request names the page's host and not this machine, so a server that accepts only its own
//! names is safe from it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use capstan_model::{Failure, FailureKind};

use super::Refusal;

/// Longest part of a name that is repeated in a refusal, characters.
const SHOWN: usize = 100;

/// The accepted host names: those of this machine, and listed ones. The local address of a connection and every
/// loopback address are always accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// None if every name is accepted.
    hosts: Option<BTreeSet<Host>>,
}

/// A host as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    /// In lower case, without the dot of the root.
    Name(String),
    Address(IpAddr),
}

impl Default for Hosts {
    /// This machine's names.
    fn default() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Hosts::of_machine(name.trim())
    }
}

impl Hosts {
    /// `localhost`, and the machine's name with and without its domain.
    pub fn of_machine(name: &str) -> Hosts {
        let short = name.split('.').next().unwrap_or_default();
        let names = ["localhost", name, short];
        Hosts { hosts: Some(names.into_iter().filter_map(Host::parse).collect()) }
    }

    /// Every name: for answers that any web page may read.
    pub fn any() -> Hosts {
        Hosts { hosts: None }
    }

    /// Accepts this name or address, too. A port behind it is ignored.
    ///
    /// # Errors
    /// Of kind `Usage`: it is neither.
    pub fn allow(&mut self, host: &str) -> Result<(), Failure> {
        let known = Host::of_authority(host).ok_or_else(|| {
            let words = format!("'{host}' is not the name or address of a host");
            Failure::new(FailureKind::Usage, words)
        })?;
        if let Some(hosts) = &mut self.hosts {
            hosts.insert(known);
        }
        Ok(())
    }

    /// Checks whether a request on the local address `local` is accepted.
    pub(super) fn check(
        &self,
        version: Version,
        target: &Uri,
        headers: &HeaderMap,
        local: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let wrong = |words: &str| Refusal {
            status: StatusCode::BAD_REQUEST,
            words: words.to_owned(),
            hint: "set Host or :authority once",
        };
        let mut named = Vec::new();
        for value in headers.get_all(header::HOST) {
            named.push(value.to_str().map_err(|_| wrong("the Host of the request is not text"))?);
        }
        if named.len() > 1 {
            return Err(wrong("the request names several hosts"));
        }
        named.extend(target.authority().map(|authority| authority.as_str()));
        // Before HTTP/1.1 the host was optional. Browsers always send it.
        if named.is_empty() && version > Version::HTTP_10 {
            return Err(wrong("the request does not name the host it is for"));
        }
        match named.into_iter().find(|name| !self.knows(name, local)) {
            None => Ok(()),
            Some(foreign) => Err(Refusal {
                status: StatusCode::MISDIRECTED_REQUEST,
                words: format!(
                    "this server is not known as '{}'",
                    foreign.chars().take(SHOWN).collect::<String>()
                ),
                hint: "use an address or name of its machine, or start it with --allow-host NAME",
            }),
        }
    }

    fn knows(&self, authority: &str, local: Option<IpAddr>) -> bool {
        let Some(host) = Host::of_authority(authority) else { return false };
        let Some(hosts) = &self.hosts else { return true };
        match host {
            Host::Address(address) if address.is_loopback() => true,
            Host::Address(address) if local == Some(address) => true,
            host => hosts.contains(&host),
        }
    }
}

impl Host {
    /// Of `host`, `host:port`, `[address]` or `[address]:port`.
    fn of_authority(authority: &str) -> Option<Host> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address: std::net::Ipv6Addr = address.parse().ok()?;
                (Host::Address(IpAddr::V6(address).to_canonical()), port.strip_prefix(':'))
            }
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                (Host::parse(host)?, port)
            }
        };
        port.is_none_or(|port| port.parse::<u16>().is_ok()).then_some(host)
    }

    /// Of a name, or of an address without brackets.
    fn parse(text: &str) -> Option<Host> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Host::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        (!name.is_empty() && name.chars().all(plain)).then(|| Host::Name(name.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP_2: Version = Version::HTTP_2;

    fn asked(hosts: &Hosts, host: &str) -> Result<(), StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        let local = Some("192.0.2.7".parse().unwrap());
        let by_header = hosts.check(Version::HTTP_11, &Uri::from_static("/x"), &headers, local);
        let by_header = by_header.map_err(|refusal| refusal.status);
        if let Ok(target) = Uri::try_from(format!("http://{host}/x")) {
            // An absolute target, and :authority, say the same.
            let by_target = hosts.check(HTTP_2, &target, &HeaderMap::new(), local);
            assert_eq!(by_target.map_err(|refusal| refusal.status), by_header, "{host}");
        }
        by_header
    }

    #[test]
    fn own_host_names_are_accepted_and_others_refused() {
        let mut hosts = Hosts::of_machine("web1.example.com");
        hosts.allow("Capstan.example.net").unwrap();
        hosts.allow("[2001:db8::7]:80").unwrap();
        for own in [
            "localhost",
            "LOCALHOST:32080",
            "localhost.",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:32080",
            "[::ffff:127.0.0.1]",
            "192.0.2.7:32080",
            "web1",
            "web1.example.com:8080",
            "capstan.example.net",
            "[2001:db8::7]",
        ] {
            assert_eq!(asked(&hosts, own), Ok(()), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "web1.evil.example",
            "example.com",
            "192.0.2.8",
            "0.0.0.0",
            "[2001:db8::8]",
            "2130706433",
            "localhost:port",
            "localhost:99999",
            "user@localhost",
            "local host",
            "[::1",
            "",
        ] {
            assert_eq!(asked(&hosts, foreign), Err(StatusCode::MISDIRECTED_REQUEST), "{foreign}");
        }
    }

    #[test]
    fn every_host_name_of_a_request_must_be_accepted() {
        let hosts = Hosts::of_machine("web1");
        let check = |version, target: &'static str, named: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in named {
                headers.append(header::HOST, axum::http::HeaderValue::from_static(host));
            }
            let checked = hosts.check(version, &Uri::from_static(target), &headers, None);
            checked.map_err(|refusal| refusal.status.as_u16())
        };
        let both = check(Version::HTTP_11, "http://evil.example/", &["localhost"]);
        assert_eq!(both, Err(421));
        assert_eq!(check(HTTP_2, "http://localhost/", &["evil.example"]), Err(421));
        assert_eq!(check(HTTP_2, "http://localhost/", &["localhost"]), Ok(()));
        assert_eq!(check(Version::HTTP_11, "/", &["localhost", "localhost"]), Err(400));
        assert_eq!(check(Version::HTTP_11, "/", &[]), Err(400));
        assert_eq!(check(HTTP_2, "/", &[]), Err(400));
        assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(check(Version::HTTP_10, "/", &["evil.example"]), Err(421));
    }

    #[test]
    fn any_host_name_may_be_accepted_and_must_still_be_one() {
        let mut hosts = Hosts::any();
        assert_eq!(asked(&hosts, "prometheus-target.example"), Ok(()));
        hosts.allow("web1").unwrap();
        assert_eq!(asked(&hosts, "capstan-recorder.capstan.svc:32090"), Ok(()));
        assert_eq!(asked(&hosts, "local host"), Err(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn only_hosts_can_be_listed() {
        let mut hosts = Hosts::of_machine("");
        for wrong in ["", "*", "http://a", "a/b", "a b", "a:b"] {
            let failure = hosts.allow(wrong).unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Usage);
        }
        assert_eq!(hosts, Hosts::of_machine("localhost"));
    }
}
