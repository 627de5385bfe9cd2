//! Sockets that listen.

use std::net::SocketAddr;

use capstan_model::{Failure, FailureKind};
use tokio::net::TcpListener;

/// The addresses that `host:port` stands for. `hint` says how to choose another place.
pub(super) async fn addresses(place: &str, hint: &str) -> Result<Vec<SocketAddr>, Failure> {
    match tokio::net::lookup_host(place).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(cannot_listen(place, hint, error)),
    }
}

/// A socket that listens on the first of these addresses that is free.
pub(super) async fn bind(
    place: &str,
    addresses: &[SocketAddr],
    hint: &str,
) -> Result<TcpListener, Failure> {
    TcpListener::bind(addresses).await.map_err(|error| cannot_listen(place, hint, error))
}

fn cannot_listen(place: &str, hint: &str, error: std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::AddrInUse => FailureKind::AlreadyThere,
        std::io::ErrorKind::PermissionDenied => FailureKind::Permission,
        std::io::ErrorKind::InvalidInput => FailureKind::Usage,
        _ => FailureKind::Unavailable,
    };
    Failure::caused_by(kind, format!("cannot listen on {place}; {hint}"), error)
}
