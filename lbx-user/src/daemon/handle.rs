//! How everybody else talks to the core: a piece of work goes in, its result comes out.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Context, Result};
use lbx_common::target::State;
use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use crate::api::model::Changed;

/// Work on the core; it runs between other works, never beside one.
pub type Work = Box<dyn for<'a> FnOnce(&'a mut Core) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// The way to the core of a running daemon.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Work>);

impl Handle {
    /// A handle, and where its works come out.
    pub fn new() -> (Self, mpsc::Receiver<Work>) {
        let (sender, works) = mpsc::channel(64);
        (Self(sender), works)
    }

    /// Has something done that takes no waiting.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, result) = oneshot::channel();
        let work: Work = Box::new(move |core| {
            let value = work(core);
            Box::pin(async move { drop(reply.send(value)) })
        });
        self.0.send(work).await.ok().context("the daemon is stopping")?;
        result.await.context("the daemon is stopping")
    }

    /// Has something done that waits for the host.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn run<T: Send + 'static, F>(&self, work: F) -> Result<T>
    where
        F: for<'a> FnOnce(&'a mut Core) -> Pin<Box<dyn Future<Output = T> + 'a>> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let work: Work = Box::new(move |core| {
            Box::pin(async move {
                let value = work(core).await;
                drop(reply.send(value));
            })
        });
        self.0.send(work).await.ok().context("the daemon is stopping")?;
        result.await.context("the daemon is stopping")
    }

    /// [`Core::wish_state`], by the core.
    ///
    /// # Errors
    /// As there, or the daemon is stopping.
    pub async fn wish_state(&self, target: String, state: Option<State>) -> Result<Result<Changed>> {
        self.run(move |core| Box::pin(async move { core.wish_state(&target, state).await })).await
    }
}
