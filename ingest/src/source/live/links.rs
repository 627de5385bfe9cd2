//! Lists network interfaces and reports changes: rtnetlink(7).
//!
//! A change notice only triggers a new listing, which is the single source of truth. A lost notice
//! (the socket buffer is small) then counts as a notice.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::sys;

/// Bytes of a netlink message header, and of the `ifinfomsg` after it.
const HEADER: usize = 16;
/// The kernel's answers come in pieces of 32 KiB at most.
const BUFFER: usize = 64 * 1024;
/// Maximum number of restarts of a listing because links changed meanwhile.
const LISTINGS: usize = 5;

/// A network interface, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number in this network namespace.
    pub(super) index: i32,
    /// Its name.
    pub(super) name: String,
    /// Its hardware type (`ARPHRD_*`).
    pub(super) hardware: u16,
    /// It is administratively up.
    pub(super) up: bool,
    /// It is the loopback interface.
    pub(super) loopback: bool,
    /// Its link-layer address; empty if none.
    pub(super) address: Vec<u8>,
}

/// The links of the network namespace in which this was opened.
#[derive(Debug)]
pub(super) struct Links {
    notices: File,
    requests: File,
    buffer: Vec<u8>,
}

impl Links {
    /// Opens a netlink socket; it needs no permission.
    pub(super) fn open() -> io::Result<Links> {
        let kind = libc::SOCK_RAW;
        let notices =
            sys::socket(libc::AF_NETLINK, kind | libc::SOCK_NONBLOCK, libc::NETLINK_ROUTE)?;
        let mut address = [0u8; 12];
        address[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
        address[8..].copy_from_slice(&(libc::RTMGRP_LINK as u32).to_ne_bytes());
        sys::bind(&notices, &address)?;
        let requests = sys::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)?;
        Ok(Links { notices: notices.into(), requests: requests.into(), buffer: vec![0; BUFFER] })
    }

    /// The descriptor to poll for changes.
    pub(super) fn notices(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }

    /// Takes all notices. Returns whether there were any.
    pub(super) fn take_notices(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            match self.notices.read(&mut self.buffer) {
                Ok(0) => return Ok(changed),
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Notices were lost, so there were some.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// All current links.
    pub(super) fn list(&mut self) -> io::Result<Vec<Link>> {
        for _ in 0..LISTINGS {
            self.requests.write_all(&list_request())?;
            let mut answer = Answer::default();
            while !answer.complete {
                match self.requests.read(&mut self.buffer) {
                    Ok(length) => answer.add(self.buffer.get(..length).unwrap_or_default())?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if !answer.interrupted {
                return Ok(answer.links);
            }
        }
        Err(io::Error::other("the list of interfaces changes faster than it can be read"))
    }
}

/// `RTM_GETLINK` for all links, without their counters.
fn list_request() -> Vec<u8> {
    const SKIP_COUNTERS: u32 = 1 << 3;
    let mut request = Vec::with_capacity(40);
    request.extend_from_slice(&40u32.to_ne_bytes());
    request.extend_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend_from_slice(&[0; 8]); // sequence and port: one request at a time
    request.extend_from_slice(&[0; 16]); // ifinfomsg: any link
    request.extend_from_slice(&8u16.to_ne_bytes());
    request.extend_from_slice(&libc::IFLA_EXT_MASK.to_ne_bytes());
    request.extend_from_slice(&SKIP_COUNTERS.to_ne_bytes());
    request
}

/// The pieces of an answer to [`list_request`], put together.
#[derive(Debug, Default)]
struct Answer {
    links: Vec<Link>,
    complete: bool,
    /// Links changed meanwhile: the list may lack some.
    interrupted: bool,
}

impl Answer {
    fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, flags, message, rest)) = next_message(bytes) {
            self.interrupted |= flags & libc::NLM_F_DUMP_INTR as u16 != 0;
            match i32::from(kind) {
                libc::NLMSG_DONE => {
                    self.complete = true;
                    return Ok(());
                }
                libc::NLMSG_ERROR => {
                    let code = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                _ if kind == libc::RTM_NEWLINK => self.links.extend(link(message)),
                _ => {}
            }
            bytes = rest;
        }
        Ok(())
    }
}

/// Splits a netlink message off: its type, flags and body, and what follows.
fn next_message(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let [a, b, c, d, e, f, g, h, ..] = *header;
    let length = u32::from_ne_bytes([a, b, c, d]) as usize;
    let body = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]), body, rest))
}

/// A link from the body of `RTM_NEWLINK`: `ifinfomsg`, then attributes.
fn link(message: &[u8]) -> Option<Link> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let [_, _, h0, h1, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    let flags = i32::from_ne_bytes([f0, f1, f2, f3]);
    let mut found = Link {
        index: i32::from_ne_bytes([i0, i1, i2, i3]),
        name: String::new(),
        hardware: u16::from_ne_bytes([h0, h1]),
        up: flags & libc::IFF_UP != 0,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        address: Vec::new(),
    };
    let mut attributes = message.get(HEADER..)?;
    while let Some(&[l0, l1, k0, k1]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = attributes.get(4..length) else { break };
        match u16::from_ne_bytes([k0, k1]) {
            libc::IFLA_IFNAME => {
                let name = value.split(|&byte| byte == 0).next().unwrap_or_default();
                found.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_ADDRESS => found.address = value.to_vec(),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (found.index > 0 && !found.name.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_listed() {
        let mut links = Links::open().unwrap();
        let list = links.list().unwrap();
        let lo = list.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.loopback && lo.hardware == libc::ARPHRD_LOOPBACK, "{lo:?}");
        assert!(!links.take_notices().unwrap());
    }

    #[test]
    fn damaged_messages_end_the_list_without_a_panic() {
        let mut message = [0u8; 40];
        message[..4].copy_from_slice(&40u32.to_ne_bytes());
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        for length in [0u16, 1, 3, 4, 5, 8, 9, 65535] {
            message[32..34].copy_from_slice(&length.to_ne_bytes());
            for cut in 0..=message.len() {
                let mut answer = Answer::default();
                let _ = answer.add(&message[..cut]);
                assert!(answer.links.is_empty());
            }
        }
        let mut error = vec![0u8; 20];
        error[..4].copy_from_slice(&20u32.to_ne_bytes());
        error[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        error[16..].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        let refused = Answer::default().add(&error).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    }
}
