//! Which requests the Flight port accepts.

use arrow_flight::Empty;
use arrow_flight::flight_service_client::FlightServiceClient;
use tonic::Request;
use tonic::transport::Channel;

use super::fixture::Server;

async fn list(server: &Server, authority: Option<&str>) -> Result<(), tonic::Status> {
    let mut endpoint = Channel::from_shared(server.url()).expect("an address");
    if let Some(authority) = authority {
        let origin = format!("http://{authority}").parse().expect("an origin");
        endpoint = endpoint.origin(origin);
    }
    let channel = endpoint.connect().await.expect("the server runs");
    let mut client = FlightServiceClient::new(channel);
    client.list_actions(Request::new(Empty {})).await.map(|_| ())
}

#[tokio::test]
async fn calls_for_other_hosts_are_refused() {
    let server = Server::start().await;
    for own in [None, Some("localhost"), Some("127.0.0.1:1"), Some("[::1]:32010")] {
        list(&server, own).await.unwrap_or_else(|status| panic!("{own:?}: {status}"));
    }
    for foreign in ["evil.example", "evil.example:32010", "10.1.2.3"] {
        let status = list(&server, Some(foreign)).await.expect_err(foreign);
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
        assert!(status.message().contains("--allow-host"), "{status}");
    }
}
