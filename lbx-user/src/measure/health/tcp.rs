//! A TCP connect.

use std::net::SocketAddr;
use std::time::Duration;

use lbx_common::health::Outcome;
use tokio::net::TcpStream;

use super::failed;

/// Connects, and hangs up.
pub(super) async fn probe(to: SocketAddr, timeout: Duration) -> (Outcome, String) {
    match connect(to, timeout).await {
        Ok(_) => (Outcome::Good, format!("connected to {to}")),
        Err(told) => told,
    }
}

/// A connection, or what its failure says.
pub(super) async fn connect(to: SocketAddr, timeout: Duration) -> Result<TcpStream, (Outcome, String)> {
    match tokio::time::timeout(timeout, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(&error, &to.to_string())),
        Err(_) => Err((Outcome::Silent, format!("no answer from {to} within {} ms", timeout.as_millis()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_found_and_its_absence_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(probe(to, Duration::from_secs(5)).await.0, Outcome::Good);
        drop(listener);
        assert_eq!(probe(to, Duration::from_secs(5)).await.0, Outcome::Refused);
    }
}
