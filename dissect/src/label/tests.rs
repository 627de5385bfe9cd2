use capstan_model::Protocol::*;
use proptest::prelude::*;

use super::*;

/// The label of what a client sends to a port nothing is known about.
fn sent(payload: &[u8]) -> Option<Protocol> {
    label(TCP, 40_000, 31_234, true, payload)
}

/// The label of what a client sends to `port`.
fn sent_to(port: u16, payload: &[u8]) -> Option<Protocol> {
    label(TCP, 40_000, port, true, payload)
}

/// The label of what the server at `port` answers.
fn answered(port: u16, payload: &[u8]) -> Option<Protocol> {
    label(TCP, port, 40_000, false, payload)
}

#[test]
fn http_is_detected_by_its_first_line() {
    for payload in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"M-SEARCH * HTTP/1.1\r\n",
        b"FOO http://example.org/ HTTP/1.0\r\n",
        b"POST /a-path-that-is-cut-o",
        b"CONNECT example.org:443 HTTP/1.1\r\n",
        b"HTTP/1.1 404 Not Found\r\n",
        b"HTTP/1.0 200",
    ] {
        assert_eq!(sent(payload), Some(Http), "{}", payload.escape_ascii());
    }
    for payload in [
        &b"RTSP/1.0 200 OK\r\n"[..],
        b"OPTIONS sip:a@example.org SIP/2.0\r\n",
        b"GET / ICAP/1.0\r\n",
        b"HTTP/1.1x200",
        b"HTTP",
        b"GETTING",
        b"",
    ] {
        assert_eq!(sent(payload), None, "{}", payload.escape_ascii());
    }
    assert_eq!(sent_to(80, b"GET /\r\n"), Some(Http), "HTTP/0.9 where HTTP is served");
}

#[test]
fn http2_is_detected_by_preface_upgrade_and_frames() {
    assert_eq!(sent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"), Some(Http2));
    assert_eq!(sent(b"PRI * HTTP/2.0"), Some(Http2));
    let upgrade =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(answered(8080, upgrade), Some(Http2));
    let websocket = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(answered(8080, websocket), Some(Http));
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    assert_eq!(answered(31_234, settings), Some(Http2));
    let ping = b"\0\0\x08\x06\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
    assert_eq!(sent(ping), Some(Http2));
    let headers_and_data = b"\0\0\x01\x01\x04\0\0\0\x01\x83\0\0\x02\0\x01\0\0\0\x01hi";
    assert_eq!(sent(headers_and_data), Some(Http2));
    let data_alone = b"\0\0\x02\0\x01\0\0\0\x01hi";
    assert_eq!(sent(data_alone), None, "too little to be sure");
    let unknown_setting = b"\0\0\x06\x04\0\0\0\0\0\x77\x03\0\0\0\x64";
    assert_eq!(sent(unknown_setting), None);
}

/// A ClientHello for example.org that offers h2 and http/1.1.
fn hello() -> Vec<u8> {
    let name = b"example.org";
    let server_name = [&[0, 14, 0, 0, 11][..], name].concat();
    let alpn = [&[0, 12, 2][..], b"h2", &[8], b"http/1.1"].concat();
    let extension = |kind: u16, body: &[u8]| {
        [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat()
    };
    let extensions =
        [extension(10, &[0, 2, 0, 29]), extension(0, &server_name), extension(16, &alpn)].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0x13, 0x01],
        &[1, 0],
        &(extensions.len() as u16).to_be_bytes(),
        &extensions,
    ]
    .concat();
    let handshake = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
    [&[22, 3, 1][..], &(handshake.len() as u16).to_be_bytes(), &handshake].concat()
}

#[test]
fn client_hello_yields_server_name_and_alpn() {
    let hello = hello();
    assert_eq!(sent(&hello), Some(Tls));
    let found = client_hello(&hello).unwrap();
    assert_eq!(found.server_name, Some("example.org"));
    assert_eq!(found.alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    // Cut behind the name it still gives the name; before the extensions, nothing.
    let cut = client_hello(&hello[..hello.len() - 9]).unwrap();
    assert_eq!(cut.server_name, Some("example.org"));
    assert_eq!(cut.alpn().collect::<Vec<_>>(), [b"h2"]);
    assert_eq!(client_hello(&hello[..50]).and_then(|found| found.server_name), None);
    assert_eq!(client_hello(b"GET / HTTP/1.1\r\n"), None);
}

#[test]
fn tls_without_a_handshake_is_detected_by_whole_records_or_port() {
    let record = b"\x17\x03\x03\0\x04abcd";
    assert_eq!(sent(record), Some(Tls));
    assert_eq!(sent(&[&record[..], &record[..7]].concat()), Some(Tls));
    assert_eq!(sent(&record[..8]), None);
    assert_eq!(sent(&[&record[..], b"junk"].concat()), None);
    assert_eq!(sent_to(443, &record[..8]), Some(Tls));
    assert_eq!(answered(31_234, &[21, 3, 3, 0, 2, 2, 40]), Some(Tls), "handshake refused");
    assert_eq!(sent_to(443, b"SSH-2.0-OpenSSH\r\n"), None, "content beats the port");
    assert_eq!(sent_to(443, b"GET / HTTP/1.1\r\n\r\n"), Some(Http));
}

/// A query for "a.b", type A.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";

#[test]
fn complete_dns_is_detected_on_any_port() {
    for port in [53, 5353, 5355, 31_234] {
        assert_eq!(label(UDP, 40_000, port, true, QUESTION), Some(Dns), "{port}");
    }
    let answer = [
        &b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x01a\x01b\0\0\x01\0\x01"[..],
        b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01",
    ]
    .concat();
    assert_eq!(label(UDP, 31_234, 40_000, false, &answer), Some(Dns));
    assert_eq!(label(UDP, 31_234, 40_000, false, &answer[..answer.len() - 1]), None);
    assert_eq!(label(UDP, 53, 40_000, false, &answer[..answer.len() - 1]), Some(Dns));
    assert_eq!(label(UDP, 137, 137, true, QUESTION), None, "NetBIOS looks the same");
    assert_eq!(label(UDP, 40_000, 53, true, &[0xff; 30]), None, "content beats the port");
    assert_eq!(label(UDP, 40_000, 5353, true, &[0; 30]), None);
    let framed = [&(QUESTION.len() as u16).to_be_bytes()[..], QUESTION].concat();
    assert_eq!(sent(&framed), Some(Dns));
    assert_eq!(sent_to(53, &framed[..20]), Some(Dns), "cut by the segment");
    let loops = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01";
    assert_eq!(label(UDP, 40_000, 53, true, loops), None);
}

#[test]
fn redis_commands_are_detected_on_any_port_and_replies_by_port() {
    assert_eq!(sent(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"), Some(Redis));
    assert_eq!(sent(b"*2\r\n$3\r\nGE"), Some(Redis));
    assert_eq!(sent(b"*2\r\n:3\r\n"), None);
    for reply in
        [&b"+OK\r\n"[..], b"-ERR no\r\n", b":12\r\n", b"$-1\r\n", b"$3\r\nabc\r\n", b"PING\r\n"]
    {
        assert_eq!(answered(6379, reply), Some(Redis), "{}", reply.escape_ascii());
        assert_eq!(answered(110, reply), None);
    }
    assert_eq!(answered(6379, b"+\x01\x02\r\n"), None);
}

#[test]
fn kafka_requests_have_a_name_and_answers_a_length() {
    let request = b"\0\0\0\x0f\0\x12\0\0\0\0\0\x01\0\x05admin";
    assert_eq!(sent(request), Some(Kafka));
    assert_eq!(sent(&request[..request.len() - 1]), None);
    assert_eq!(sent_to(9092, b"\0\0\x01\0\0\0\0\x02\0\0\0\x01\xff\xff"), Some(Kafka));
    let answer = b"\0\0\0\x06\0\0\0\x01\0\0";
    assert_eq!(answered(9092, answer), Some(Kafka));
    assert_eq!(answered(31_234, answer), None);
}

#[test]
fn amqp_headers_are_detected_on_any_port_and_frames_by_port() {
    assert_eq!(sent(b"AMQP\0\0\x09\x01"), Some(Amqp));
    assert_eq!(sent(b"AMQP\x03\x01\0\0"), Some(Amqp));
    assert_eq!(sent(b"AMQPxxxx"), None);
    let heartbeat = b"\x08\0\0\0\0\0\0\xce";
    assert_eq!(sent_to(5672, heartbeat), Some(Amqp));
    assert_eq!(sent(heartbeat), None);
    assert_eq!(sent_to(5672, b"\x01\0\0\0\0\0\x04\0\x0a\0\x0bX"), None, "no end mark");
    assert_eq!(sent_to(5672, b"\0\0\0\x20\x02\x00\0\0\0\x53\x10\xc0"), Some(Amqp));
}

#[test]
fn mysql_greets_and_commands_go_by_port() {
    let greeting = b"\x1a\0\0\0\x0a8.0.36\0\x01\0\0\0abcdefgh\0\xff\xff\x21\0";
    assert_eq!(answered(31_234, greeting), Some(Mysql));
    assert_eq!(sent(greeting), None, "clients do not greet");
    assert_eq!(sent_to(3306, b"\x09\0\0\0\x03select 1"), Some(Mysql));
    assert_eq!(sent_to(3306, b"\x09\0\0\0\xf3select 1"), None);
    assert_eq!(sent(b"\x09\0\0\0\x03select 1"), None);
    let refused = b"\x1c\0\0\0\xff\x6a\x04Host is not allowed here.";
    assert_eq!(answered(31_234, refused), Some(Mysql));
}

#[test]
fn postgresql_starts_up_anywhere_and_talks_on_its_port() {
    assert_eq!(sent(b"\0\0\0\x08\x04\xd2\x16\x2f"), Some(Postgresql));
    assert_eq!(sent(b"\0\0\0\x14\0\x03\0\0user\0alice\0\0"), Some(Postgresql));
    assert_eq!(sent(b"\0\0\0\x13\0\x03\0\0\x01\x02"), None);
    let query = b"Q\0\0\0\x0dselect 1\0";
    assert_eq!(sent_to(5432, query), Some(Postgresql));
    assert_eq!(sent(query), None);
    assert_eq!(answered(5432, b"S"), Some(Postgresql));
    assert_eq!(sent_to(5432, b"q\0\0\0\x0dselect 1\0"), None);
}

#[test]
fn mongodb_messages_are_whole_or_on_the_port() {
    let message = b"\x1a\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x05\0\0\0\0";
    assert_eq!(sent(message), Some(Mongodb));
    assert_eq!(sent(&message[..20]), None);
    assert_eq!(sent_to(27_017, &message[..20]), Some(Mongodb));
    assert_eq!(sent_to(27_017, b"\x1a\0\0\0\x01\0\0\0\0\0\0\0\xdd\x08\0\0"), None);
}

#[test]
fn quic_is_detected_by_a_known_version() {
    let initial = b"\xc3\0\0\0\x01\x08abcdefgh\0\0\x44\x9e";
    assert_eq!(label(UDP, 40_000, 443, true, initial), Some(Quic));
    let unknown = b"\xc3\x12\x34\x56\x78\x08abcdefgh\0\0\x44\x9e";
    assert_eq!(label(UDP, 40_000, 443, true, unknown), None);
    let long_id = b"\xc3\0\0\0\x01\x15abcdefghijklmnopqrstu\0\0";
    assert_eq!(label(UDP, 40_000, 443, true, long_id), None);
    let negotiation = b"\x80\0\0\0\0\0\x02ab\0\0\0\x01\xff\0\0\x1d";
    assert_eq!(label(UDP, 443, 40_000, false, negotiation), Some(Quic));
    let google = b"\x0dabcdefghQ043\x01";
    assert_eq!(label(UDP, 40_000, 443, true, google), Some(Quic));
}

#[test]
fn flow_without_a_label_has_its_transport_as_protocol() {
    assert_eq!(label(132, 1, 2, true, b"GET / HTTP/1.1\r\n"), None);
    assert_eq!(fallback(Network::V4, 6), Tcp);
    assert_eq!(fallback(Network::V6, 17), Udp);
    assert_eq!(fallback(Network::V6, 58), Icmp);
    assert_eq!(fallback(Network::V4, 47), Ip);
    assert_eq!(fallback(Network::Arp, 0), Arp);
    assert_eq!(fallback(Network::None, 0), Unknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn arbitrary_payload_does_not_panic(
        seed in prop::sample::select(vec![
            hello(),
            QUESTION.to_vec(),
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".to_vec(),
            b"\x1a\0\0\0\x0a8.0.36\0\x01\0\0\0abcdefgh\0\xff\xff\x21\0".to_vec(),
            b"\xc3\0\0\0\x01\x08abcdefgh\0\0\x44\x9e".to_vec(),
            Vec::new(),
        ]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        port in prop::sample::select(vec![53u16, 80, 443, 3306, 5432, 5672, 6379, 9092, 27_017, 9]),
        protocol in prop::sample::select(vec![TCP, UDP]),
        from_initiator in any::<bool>(),
    ) {
        let mut payload = seed;
        payload.truncate(cut.index(payload.len() + 1));
        payload.extend(tail);
        for (at, value) in changes {
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = value;
            }
        }
        let _ = label(protocol, port, 40_000, from_initiator, &payload);
        if let Some(hello) = client_hello(&payload) {
            prop_assert!(hello.alpn().count() <= payload.len());
        }
    }
}
