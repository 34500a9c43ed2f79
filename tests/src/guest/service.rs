//! A TCP service that can be stopped (new connections are refused, open ones go on) and started again.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};

use super::state::State;

/// What is done with an accepted connection.
pub type Handler = fn(&State, TcpStream) -> io::Result<()>;

/// Threads need little: the buffers are on the heap. Hundreds of them must fit into a guest of 128 MB.
const STACK: usize = 128 * 1024;
const MAX_WORKERS: usize = 2048;

/// One port and its listener.
pub struct Service {
    /// The TCP port.
    pub port: u16,
    handler: Handler,
    state: Arc<State>,
    listener: Mutex<Option<Arc<TcpListener>>>,
    idle: AtomicUsize,
    workers: AtomicUsize,
}

impl Service {
    /// Makes the service, registers it with the state and starts it.
    pub fn start(state: &Arc<State>, port: u16, handler: Handler) -> io::Result<Arc<Self>> {
        let service = Arc::new(Self {
            port,
            handler,
            state: Arc::clone(state),
            listener: Mutex::new(None),
            idle: AtomicUsize::new(0),
            workers: AtomicUsize::new(0),
        });
        service.listen()?;
        state.register(Arc::clone(&service));
        Ok(service)
    }

    /// Opens the port, if it is not open.
    pub fn listen(self: &Arc<Self>) -> io::Result<()> {
        let mut slot = self.listener.lock().expect("no holder panics");
        if slot.is_none() {
            let listener = Arc::new(listener(self.port)?);
            *slot = Some(Arc::clone(&listener));
            self.spawn(listener)?;
        }
        Ok(())
    }

    /// Closes the port: from now on a SYN is answered with RST.
    pub fn stop(&self) {
        if let Some(listener) = self.listener.lock().expect("no holder panics").take() {
            // A thread blocked in accept() would keep the port open; shutdown() wakes it and ends the listening.
            let _ = nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }

    /// Workers accept themselves, and the last idle one starts the next: no thread is made per connection.
    fn spawn(self: &Arc<Self>, listener: Arc<TcpListener>) -> io::Result<()> {
        let service = Arc::clone(self);
        self.idle.fetch_add(1, Ordering::SeqCst);
        self.workers.fetch_add(1, Ordering::SeqCst);
        thread::Builder::new().stack_size(STACK).spawn(move || service.work(&listener)).map(|_| ())
    }

    fn work(self: Arc<Self>, listener: &Arc<TcpListener>) {
        loop {
            let accepted = listener.accept();
            let last_idle = self.idle.fetch_sub(1, Ordering::SeqCst) == 1;
            match accepted {
                Ok((stream, _)) => {
                    if last_idle && self.workers.load(Ordering::SeqCst) < MAX_WORKERS {
                        // Without another worker new connections wait in the backlog: slower, not wrong.
                        let _ = self.spawn(Arc::clone(listener));
                    }
                    self.state.connections.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.set_nodelay(true);
                    // A client that goes away is no fault of the server.
                    let _ = (self.handler)(&self.state, stream);
                }
                // EINVAL: stopped. ECONNABORTED and the like concern one connection only.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
                Err(_) => thread::sleep(std::time::Duration::from_millis(10)),
            }
            self.idle.fetch_add(1, Ordering::SeqCst);
        }
        self.workers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A listener on every address of both families, with a backlog that a burst of a load test fits into.
fn listener(port: u16) -> io::Result<TcpListener> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
    listen(&fd, Backlog::new(4096)?)?;
    Ok(TcpListener::from(fd))
}
