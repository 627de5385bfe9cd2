//! PCAPNG over Flight.

use arrow_flight::{FlightDescriptor, Ticket};
use bytes::Bytes;
use capstan_export::Order;
use capstan_model::{FailureKind, Protocol, Time, TimeRange};
use capstan_view::select::Selection;
use futures::TryStreamExt;

use super::super::ExportRequest;
use super::fixture::{Server, big};

fn request() -> ExportRequest {
    ExportRequest {
        selection: Selection {
            range: TimeRange { start: Time(5), end: Time(1_700_000_000_123_456_789) },
            hosts: vec!["10.0.0.7".parse().expect("an address")],
            ports: vec![443.into(), 53.into()],
            protocols: vec![Protocol::Dns],
            ..Selection::default()
        },
        order: Order::Recorded,
    }
}

#[tokio::test]
async fn the_file_arrives_whole_and_the_request_unchanged() {
    let server = Server::start().await;
    let pieces = server.client().await.export(&request()).await.expect("a file");
    let pieces: Vec<Bytes> = pieces.try_collect().await.expect("a whole file");
    assert!(pieces.iter().all(|piece| piece.len() <= 1 << 20));
    let mut expected = b"\n\r\r\n".to_vec();
    expected.extend(big());
    assert_eq!(pieces.concat(), expected);
    let asked = server.tables.exported.lock().expect("no panic").clone();
    assert_eq!(asked, Some(request()));
}

#[tokio::test]
async fn relative_times_are_resolved_when_the_export_is_offered() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    let descriptor = FlightDescriptor::new_cmd(r#"{"export": {"from": "-15m"}}"#);
    let info = client.get_flight_info(descriptor).await.expect("an offer").into_inner();
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket").ticket;
    let fixed = ExportRequest::from_json(&ticket, Time(0)).expect("our JSON");
    assert!(fixed.selection.range.start > Time(1_700_000_000_000_000_000), "{fixed:?}");
}

#[tokio::test]
async fn export_failures_are_reported_before_and_within_the_file() {
    let server = Server::start().await;
    let client = server.client().await;
    let with = |port: u16| ExportRequest {
        selection: Selection { ports: vec![port.into()], ..Selection::default() },
        ..ExportRequest::default()
    };
    for (port, kind) in [(404, FailureKind::NotFound), (500, FailureKind::Damaged)] {
        let pieces = client.export(&with(port)).await.expect("an offer");
        let failure = pieces.try_collect::<Vec<_>>().await.expect_err("not whole");
        assert_eq!(failure.kind(), kind, "{failure}");
    }
}

#[tokio::test]
async fn invalid_commands_are_refused() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    let paths = FlightDescriptor::new_path(vec!["packets".to_owned()]);
    let commands = ["", "SELECT 1", "{\"export\"", "\u{1}\u{2}"].map(FlightDescriptor::new_cmd);
    for descriptor in commands.into_iter().chain([paths]) {
        let status = client.get_flight_info(descriptor.clone()).await.expect_err("no command");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{descriptor:?}: {status}");
        assert!(!status.message().contains("DecodeError"), "{status}");
    }
    let status = client.do_get(Ticket::new("nonsense")).await.expect_err("no ticket");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
