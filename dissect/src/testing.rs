//! Hand-built test packets, from the inside out, so that expected values do not come from the code
//! under test.

pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ethertype.to_be_bytes(), payload])
}

/// A tag behind an ethertype that was written already.
pub(crate) fn tag(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&id.to_be_bytes(), &ethertype.to_be_bytes(), payload])
}

pub(crate) const A: [u8; 4] = [10, 0, 0, 1];
pub(crate) const B: [u8; 4] = [10, 0, 0, 2];
pub(crate) const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(protocol, 0, &[], payload)
}

/// `fragment` is the word with the flags and the offset.
pub(crate) fn ipv4_with(protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let first = 0x45 + u8::try_from(options.len() / 4).unwrap();
    join(&[
        &[first, 0],
        &length.to_be_bytes(),
        &[0x12, 0x34],
        &fragment.to_be_bytes(),
        &[64, protocol, 0xab, 0xcd],
        &A,
        &B,
        options,
        payload,
    ])
}

pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    join(&[&[0x60, 0, 0, 0], &length.to_be_bytes(), &[next, 64], &A6, &B6, payload])
}

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    join(&[
        &source.to_be_bytes(),
        &destination.to_be_bytes(),
        &length.to_be_bytes(),
        &[0xcc, 0xdd],
        payload,
    ])
}

/// 4096 -> 80, sequence 1, acknowledgement 2, PSH and ACK, window 512.
pub(crate) fn tcp(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = u8::try_from(5 + options.len() / 4).unwrap() << 4;
    join(&[
        &[16, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2],
        &[offset, 0x18, 2, 0, 0xee, 0xff, 0, 0],
        options,
        payload,
    ])
}

pub(crate) fn vxlan(vni: u32, payload: &[u8]) -> Vec<u8> {
    join(&[&[8, 0, 0, 0], &(vni << 8).to_be_bytes(), payload])
}
