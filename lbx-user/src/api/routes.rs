//! What is served where.

use axum::Router;

use crate::daemon::Handle;

/// Everything, for the unix socket.
pub fn all(handle: Handle) -> Router {
    Router::new().with_state(handle)
}

/// Only `/metrics`, for loopback.
pub fn metrics_only(handle: Handle) -> Router {
    Router::new().with_state(handle)
}
