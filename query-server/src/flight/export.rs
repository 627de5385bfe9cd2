//! PCAPNG over Flight: the request and the format of the answer.
//!
//! The command is JSON in `FlightDescriptor.cmd`, which every Flight client can
//! write without a schema compiler:
//!
//! ```json
//! {"export": {"from": "2026-11-21T14:00:00Z", "to": "-5m",
//!             "hosts": ["10.0.0.0/8"], "ports": [443, "8000-8999"], "protocols": ["tls"],
//!             "namespaces": ["shop"], "order": "time"}}
//! ```
//!
//! Every field is optional; a field that is present must have a value, so that a program with an empty variable
//! does not get everything. `from` and `to` are nanoseconds since 1970 or what [`Time::parse`] reads; without
//! both, all packets are selected, also those without a time. A packet is selected if its flow has every one of
//! `hosts` (addresses or networks) and every one of `ports` (numbers or ranges) at one of its ends, and its protocol is
//! among `protocols`. `namespaces`, `pods`, `services`, `workloads`, `nodes` and `names` are as in [`Selection`]. `ips`
//! is another name of `hosts`. `order` is `time` (the default) or `recorded`.
//!
//! `GetFlightInfo` answers with one endpoint, whose ticket is the same JSON with `from` and `to` as nanoseconds.
//! `DoGet` streams record batches with the one column `pcapng` ([`DataType::Binary`], at most [`MAX_CHUNK`]
//! bytes a row): the rows, concatenated in order, are the file. A stream that ends with an error is an
//! incomplete file.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use capstan_export::Order;
use capstan_model::{Failure, FailureKind, Ports, Time, TimeRange};
use capstan_view::select::{By, Selection};
use datafusion::arrow::array::{BinaryArray, RecordBatch};
use datafusion::arrow::buffer::{Buffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::wire;

/// Most bytes of the file in a row.
pub const MAX_CHUNK: usize = 1 << 20;

/// Most addresses, ports or protocols a request can name.
const MAX_NAMED: usize = 10_000;

/// Which packets to export, and in which order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportRequest {
    /// Which packets.
    pub selection: Selection,
    /// In which order packets come.
    pub order: Order,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    export: Fields,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    from: Option<Moment>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    to: Option<Moment>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    ips: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<Port>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    protocols: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    namespaces: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pods: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    services: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    workloads: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    #[serde(default)]
    order: Order,
}

/// A port is a number, a range of ports a text.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a port is a number from 0 to 65535, or a range such as '8000-8999'")]
enum Port {
    Number(i64),
    Text(String),
}

/// Refuses null in a field that is present.
fn given<'de, D, T>(value: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(value).map(Some)
}

/// The values of a list; none where it was left out.
fn listed<T>(name: &str, list: Option<Vec<T>>) -> Result<Vec<T>, Failure> {
    let list = match list {
        None => return Ok(Vec::new()),
        Some(list) => list,
    };
    let wrong = match list.len() {
        0 => format!("'{name}' has no value: omit it or give it a value"),
        1..=MAX_NAMED => return Ok(list),
        many => format!("'{name}' has {many} values; at most {MAX_NAMED} are accepted"),
    };
    Err(Failure::new(FailureKind::Usage, wrong))
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a time is nanoseconds since 1970 or text")]
enum Moment {
    Nanoseconds(i64),
    Text(String),
}

impl Moment {
    fn time(&self, now: Time) -> Result<Time, Failure> {
        match self {
            Moment::Nanoseconds(nanoseconds) => Ok(Time(*nanoseconds)),
            Moment::Text(text) => Time::parse(text, now).map_err(usage),
        }
    }
}

impl ExportRequest {
    /// Whether bytes of a descriptor or ticket are meant as JSON. A protobuf message
    /// cannot start with a brace: it would open a group, which proto3 has not.
    pub(super) fn is_json(command: &[u8]) -> bool {
        command.trim_ascii_start().first() == Some(&b'{')
    }

    /// Reads a command; distances such as `-5m` count from `now`.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Usage`] with what is wrong.
    pub fn from_json(command: &[u8], now: Time) -> Result<Self, Failure> {
        let Command { export } = serde_json::from_slice(command).map_err(|error| {
            Failure::caused_by(FailureKind::Usage, "invalid JSON command", error)
        })?;
        let bound = |moment: &Option<Moment>, open: Time| {
            moment.as_ref().map_or(Ok(open), |moment| moment.time(now))
        };
        let (from, to) = (bound(&export.from, Time::MIN)?, bound(&export.to, Time::MAX)?);
        let range = TimeRange::new(from, to).map_err(usage)?;
        let mut selection = Selection::of_range(range);
        let ports = listed("ports", export.ports)?.into_iter().map(|port| match port {
            Port::Number(port) => port.to_string(),
            Port::Text(text) => text,
        });
        for (name, by, values) in [
            ("ips", By::Host, export.ips),
            ("hosts", By::Host, export.hosts),
            ("protocols", By::Protocol, export.protocols),
            ("namespaces", By::Namespace, export.namespaces),
            ("pods", By::Pod, export.pods),
            ("services", By::Service, export.services),
            ("workloads", By::Workload, export.workloads),
            ("nodes", By::Node, export.nodes),
            ("names", By::Name, export.names),
        ] {
            listed(name, values)?.iter().try_for_each(|text| selection.add(by, text))?;
        }
        ports.into_iter().try_for_each(|text| selection.add(By::Port, &text))?;
        selection.check()?;
        Ok(ExportRequest { selection, order: export.order })
    }

    /// The JSON of this command, with times as nanoseconds.
    ///
    /// # Errors
    ///
    /// None that is known; writing JSON can fail in principle.
    pub fn to_json(&self) -> Result<Bytes, Failure> {
        let bound = |time: Time, open: Time| (time != open).then_some(Moment::Nanoseconds(time.0));
        let Selection { range, hosts, ports, .. } = &self.selection;
        let texts = |by: By| Some(self.selection.values(by)).filter(|texts| !texts.is_empty());
        // Servers of earlier versions know addresses as `ips`.
        let is_plain = hosts.iter().all(|network| network.address().is_some());
        let (ips, hosts) = if is_plain { (texts(By::Host), None) } else { (None, texts(By::Host)) };
        let port = |ports: &Ports| match ports.one() {
            Some(port) => Port::Number(port.into()),
            None => Port::Text(ports.to_string()),
        };
        let export = Fields {
            from: bound(range.start, Time::MIN),
            to: bound(range.end, Time::MAX),
            ips,
            hosts,
            ports: (!ports.is_empty()).then(|| ports.iter().map(port).collect()),
            protocols: texts(By::Protocol),
            namespaces: texts(By::Namespace),
            pods: texts(By::Pod),
            services: texts(By::Service),
            workloads: texts(By::Workload),
            nodes: texts(By::Node),
            names: texts(By::Name),
            order: self.order,
        };
        let json = serde_json::to_vec(&Command { export }).map_err(|error| {
            Failure::caused_by(FailureKind::Other, "the export command cannot be written", error)
        })?;
        Ok(json.into())
    }
}

fn usage(error: impl std::error::Error) -> Failure {
    Failure::new(FailureKind::Usage, error.to_string())
}

/// The one column.
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![Field::new("pcapng", DataType::Binary, false)]))
    });
    Arc::clone(&SCHEMA)
}

/// The file as rows, without copying it.
pub(super) fn encode(chunks: BoxStream<'static, Result<Bytes, Failure>>) -> wire::Answer {
    let rows = chunks
        .map_ok(|chunk| {
            let mut rest = chunk;
            stream::iter(std::iter::from_fn(move || {
                let next = rest.split_to(rest.len().min(MAX_CHUNK));
                (!next.is_empty()).then(|| row(next))
            }))
        })
        .try_flatten();
    wire::encode(schema(), rows.boxed())
}

fn row(chunk: Bytes) -> Result<RecordBatch, Failure> {
    let lengths = OffsetBuffer::from_lengths([chunk.len()]);
    BinaryArray::try_new(lengths, Buffer::from(chunk), None)
        .and_then(|column| RecordBatch::try_new(schema(), vec![Arc::new(column)]))
        .map_err(|error| {
            Failure::caused_by(FailureKind::Other, "a piece of the file cannot be sent", error)
        })
}

#[cfg(test)]
mod tests {
    use capstan_model::Protocol;
    use proptest::prelude::*;

    use super::*;

    const NOW: Time = Time(1_700_000_000_000_000_000);

    fn read(json: &str) -> Result<ExportRequest, Failure> {
        ExportRequest::from_json(json.as_bytes(), NOW)
    }

    #[test]
    fn a_full_command_is_read_and_written() {
        let request = read(
            r#"{"export": {"from": "-15m", "to": 1700000000000000000, "ips": ["10.0.0.7", "::1"],
                "ports": [443], "protocols": ["TLS", "h2"], "order": "recorded"}}"#,
        )
        .expect("a command");
        let start = Time(NOW.0 - 900_000_000_000);
        assert_eq!(request.selection.range, TimeRange { start, end: NOW });
        assert_eq!(request.selection.protocols, [Protocol::Tls, Protocol::Http2]);
        assert_eq!(request.order, Order::Recorded);
        let json = request.to_json().expect("JSON");
        assert_eq!(ExportRequest::from_json(&json, Time(0)).expect("ours"), request);
    }

    #[test]
    fn networks_ranges_and_identities_are_read_and_written() {
        let json = r#"{"export": {"hosts": ["10.0.0.0/8"], "ips": ["::1"], "ports": [443, "8000-8999"],
            "namespaces": ["shop"], "pods": ["shop/web-*"], "services": ["shop/web"],
            "workloads": ["shop/deployment/web"], "nodes": ["node-1"], "names": ["*.example"]}}"#;
        let request = read(json).expect("a command");
        assert_eq!(
            request.selection.words(),
            "ip ::1 and 10.0.0.0/8, port 443 and 8000-8999, namespace shop, pod shop/web-*, service shop/web, \
             workload shop/deployment/web, node node-1, name *.example"
        );
        let json = request.to_json().expect("JSON");
        assert_eq!(ExportRequest::from_json(&json, NOW).expect("ours"), request);
        // What earlier versions know is written as they know it.
        let plain =
            read(r#"{"export": {"hosts": ["10.0.0.7"], "ports": ["443"]}}"#).expect("a command");
        let json = plain.to_json().expect("JSON");
        assert_eq!(json, r#"{"export":{"ips":["10.0.0.7"],"ports":[443],"order":"time"}}"#);
    }

    #[test]
    fn empty_selection_selects_everything() {
        let request = read(r#" {"export": {}}"#).expect("a command");
        assert_eq!(request, ExportRequest::default());
        assert!(request.selection.range.is_all());
        let json = request.to_json().expect("JSON");
        assert!(ExportRequest::is_json(&json));
        assert_eq!(ExportRequest::from_json(&json, NOW).expect("ours"), request);
    }

    #[test]
    fn invalid_parameters_are_reported() {
        for (json, word) in [
            (r#"{"exprot": {}}"#, "exprot"),
            (r#"{"export": {"form": 1}}"#, "form"),
            (r#"{"export": {"from": 2, "to": 1}}"#, "upside down"),
            (r#"{"export": {"from": "teatime"}}"#, "teatime"),
            (r#"{"export": {"from": 1.5}}"#, "nanoseconds"),
            (r#"{"export": {"ips": ["10.0.0"]}}"#, "10.0.0"),
            (r#"{"export": {"ports": [70000]}}"#, "70000"),
            (r#"{"export": {"protocols": ["gopher"]}}"#, "gopher"),
            (r#"{"export": {"order": "size"}}"#, "size"),
            (r#"{"export": {"ips": []}}"#, "'ips' has no value"),
            (r#"{"export": {"ports": []}}"#, "'ports' has no value"),
            (r#"{"export": {"protocols": []}}"#, "'protocols' has no value"),
            (r#"{"export": {"ips": [""]}}"#, "'' is not an IP address"),
            (r#"{"export": {"hosts": []}}"#, "'hosts' has no value"),
            (r#"{"export": {"hosts": ["10.0.0.1/8"]}}"#, "write the network"),
            (r#"{"export": {"ports": ["9-8"]}}"#, "lower port"),
            (r#"{"export": {"pods": ["web"]}}"#, "namespace/name"),
            (r#"{"export": {"pods": [""]}}"#, "'pod' has no value"),
            (r#"{"export": {"names": ["a*b"]}}"#, "one end only"),
            (r#"{"export": {"ips": null}}"#, "null"),
            (r#"{"export": {"from": null}}"#, "nanoseconds"),
            (r#"{"export": {"from": ""}}"#, "''"),
            (r#"{"export": {"order": null}}"#, "expected value"),
            (r#"{"export": {"ips": ["::1"], "ips": ["::2"]}}"#, "duplicate"),
        ] {
            let failure = read(json).expect_err(json);
            assert_eq!(failure.kind(), FailureKind::Usage);
            let words = super::super::status::to_status(&failure).message().to_owned();
            assert!(words.contains(word), "{json}: {words}");
        }
    }

    #[tokio::test]
    async fn long_chunks_are_split_and_empty_ones_dropped() {
        let bytes = Bytes::from(vec![7_u8; 2 * MAX_CHUNK + 5]);
        let chunks = [Ok(Bytes::new()), Ok(bytes), Ok(Bytes::from_static(b"end"))];
        let messages: Vec<_> =
            encode(stream::iter(chunks).boxed()).try_collect().await.expect("messages");
        let bodies: Vec<_> = messages.iter().map(|message| message.data_body.len()).collect();
        assert_eq!(bodies.len(), 1 + 4);
        assert!(bodies.iter().all(|length| *length < MAX_CHUNK + 1024), "{bodies:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_crash_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ExportRequest::from_json(&bytes, NOW);
        }
    }
}
