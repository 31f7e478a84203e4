//! How users reach the gateway's process: what they ask for runs there, and ends with it wherever it stands.
//!
//! Users live on a host of their own, so that they outlive the gateway. While it is dead they wait at the hatch; whatever was inside when
//! it died has no answer, and nobody knows whether it happened.
//! Invariant: a use case runs to its end within one life of the gateway, or ends with it.
//! Not here: when the gateway dies (`wear`), what it consists of (`processes`).

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use gateway::drive::Core;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// How often somebody looks whether the gateway is there again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The gateway died with what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died;

type Work = Box<dyn FnOnce(Arc<Core>) -> LocalBoxFuture<'static, ()>>;

/// The hatch of the gateway's present life; clones are the same.
#[derive(Clone, Default)]
pub struct Hatch {
    inside: Rc<RefCell<Option<mpsc::UnboundedSender<Work>>>>,
}

impl Hatch {
    /// Does what is asked for, all of it side by side, until it is dropped; on the gateway's own host.
    pub async fn serve(&self, core: Arc<Core>) {
        let (sender, mut asked) = mpsc::unbounded_channel::<Work>();
        *self.inside.borrow_mut() = Some(sender);
        while let Some(work) = asked.recv().await {
            tokio::task::spawn_local(work(Arc::clone(&core)));
        }
    }

    /// Has the gateway do `work`, as soon as there is one.
    ///
    /// Errors: it died before the answer.
    pub async fn ask<T, F>(&self, work: impl FnOnce(Arc<Core>) -> F + 'static) -> Result<T, Died>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let answered_by = move |core: Arc<Core>| async move {
            // Whoever asked waits as long as the world lasts.
            drop(answer.send(work(core).await));
        };
        let mut work: Work = Box::new(move |core| answered_by(core).boxed_local());
        loop {
            let inside = self.inside.borrow().clone();
            if let Some(inside) = inside {
                match inside.send(work) {
                    Ok(()) => break,
                    Err(refused) => work = refused.0,
                }
            }
            sleep(LOOK_AGAIN).await;
        }
        answered.await.map_err(|_| Died)
    }

    /// As `ask`, while nobody ends the gateway.
    ///
    /// Errors: those of the work; the gateway died all the same.
    pub async fn ask_in_peace<T, F>(&self, work: impl FnOnce(Arc<Core>) -> F + 'static) -> Result<T, String>
    where
        T: 'static,
        F: Future<Output = Result<T, String>> + 'static,
    {
        let done = self.ask(work).await;
        done.unwrap_or_else(|Died| Err("the gateway died in peace".to_owned()))
    }
}
