//! Listening: the unix socket (0660, root and group `lbx`), and loopback for `/metrics` alone.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use axum::Router;
use nix::unistd::{Gid, Group, chown};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::daemon::Handle;

/// The running servers.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
    socket: PathBuf,
}

impl Server {
    /// Stops listening and removes the socket, so that the CLI sees at once that nobody is there.
    pub fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// Starts to serve.
///
/// # Errors
/// A socket could not be bound.
pub async fn serve(handle: Handle, socket: &Path, metrics: Option<SocketAddr>) -> Result<Server> {
    let listener = bind(socket)?;
    let mut tasks = vec![spawn(listener, super::routes::all(handle.clone()))];
    if let Some(address) = metrics {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot serve metrics on {address}"))?;
        tasks.push(spawn(listener, super::routes::metrics_only(handle)));
    }
    Ok(Server { tasks, socket: socket.to_owned() })
}

fn spawn<L>(listener: L, router: Router) -> JoinHandle<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the API stopped: {error}");
        }
    })
}

fn bind(socket: &Path) -> Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    // Left by a daemon that was killed; the lock says that none is running.
    let _ = fs::remove_file(socket);
    // Until its mode is set nobody else may connect.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    nix::sys::stat::umask(before);
    let listener = listener.with_context(|| format!("cannot listen on {}", socket.display()))?;
    let group: Option<Gid> = Group::from_name("lbx").ok().flatten().map(|group| group.gid);
    if group.is_some() {
        chown(socket, None, group)
            .with_context(|| format!("cannot give {} to group lbx", socket.display()))?;
    }
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", socket.display()))?;
    Ok(listener)
}
