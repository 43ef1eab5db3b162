//! Telling work that it is no longer wanted.

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::future::Either;
use futures::future::Shared;
use std::convert::Infallible;
use std::pin::pin;

/// Why work was cancelled.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CancelReason {
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// Its deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
}

/// What a piece of work carries along to learn that it was cancelled.
///
/// Contexts form a tree: a child is cancelled with its parent, and a parent is not by its child.
/// A clone is the same context.
///
/// ```
/// # use mesh::{CancelContext, CancelReason};
/// # futures::executor::block_on(async {
/// # let timer = std::future::ready(());
/// let (context, token) = CancelContext::new().with_token();
/// let step = context.with_deadline(timer);
/// assert_eq!(
///     step.until_cancelled(std::future::pending::<()>()).await,
///     Err(CancelReason::DeadlineExceeded),
/// );
/// assert_eq!(context.reason(), None);
/// token.cancel();
/// assert_eq!(context.cancelled().await, CancelReason::Cancelled);
/// # });
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelContext {
    /// This context's and its ancestors'.
    sources: Vec<Source>,
}

/// Cancels a context. Dropping it cancels nothing; a clone cancels the same context.
#[derive(Debug, Clone)]
pub struct CancelToken(Signal);

#[derive(Debug, Clone)]
enum Source {
    Token(Signal),
    Deadline(Shared<BoxFuture<'static, ()>>),
}

/// A channel for nothing, whose closing is the signal. Both ends are kept, for dropping one closes it.
#[derive(Debug, Clone)]
struct Signal {
    sender: async_channel::Sender<Infallible>,
    receiver: async_channel::Receiver<Infallible>,
}

impl Signal {
    fn new() -> Self {
        let (sender, receiver) = async_channel::bounded(1);
        Self { sender, receiver }
    }
}

impl CancelToken {
    /// Cancels the context and its children, for good.
    pub fn cancel(&self) {
        self.0.sender.close();
    }

    /// Whether it did.
    pub fn is_cancelled(&self) -> bool {
        self.0.sender.is_closed()
    }
}

impl Source {
    fn reason(&self) -> Option<CancelReason> {
        match self {
            Self::Token(signal) => signal.sender.is_closed().then_some(CancelReason::Cancelled),
            Self::Deadline(timer) => timer
                .clone()
                .now_or_never()
                .map(|()| CancelReason::DeadlineExceeded),
        }
    }

    async fn wait(&self) -> CancelReason {
        match self {
            Self::Token(signal) => match signal.receiver.recv().await {
                Ok(nothing) => match nothing {},
                Err(_closed) => CancelReason::Cancelled,
            },
            Self::Deadline(timer) => {
                timer.clone().await;
                CancelReason::DeadlineExceeded
            }
        }
    }
}

impl CancelContext {
    /// A context that is never cancelled: the root of others.
    pub fn new() -> Self {
        Self::default()
    }

    /// A child that `CancelToken` cancels.
    pub fn with_token(&self) -> (Self, CancelToken) {
        let signal = Signal::new();
        (
            self.child(Source::Token(signal.clone())),
            CancelToken(signal),
        )
    }

    /// A child that is cancelled when `timer` completes.
    pub fn with_deadline(&self, timer: impl Future<Output = ()> + Send + 'static) -> Self {
        self.child(Source::Deadline(timer.boxed().shared()))
    }

    fn child(&self, source: Source) -> Self {
        let mut child = self.clone();
        child.sources.push(source);
        child
    }

    /// Whether the context is cancelled, and why; if for several reasons, the one nearest the root.
    pub fn reason(&self) -> Option<CancelReason> {
        self.sources.iter().find_map(Source::reason)
    }

    /// Waits until the context is cancelled.
    pub async fn cancelled(&self) -> CancelReason {
        if self.sources.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.sources.iter().map(|source| Box::pin(source.wait()));
        futures::future::select_all(waits).await.0
    }

    /// Runs `future` until the context is cancelled, and drops it then.
    ///
    /// If the context is cancelled already, `future` does not run at all; if both happen at once, the
    /// result of `future` is not lost.
    pub async fn until_cancelled<F: Future>(&self, future: F) -> Result<F::Output, CancelReason> {
        if let Some(reason) = self.reason() {
            return Err(reason);
        }
        match futures::future::select(pin!(future), pin!(self.cancelled())).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right((reason, _)) => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oneshot;
    use futures::executor::block_on;
    use std::future::pending;
    use std::future::ready;

    #[test]
    fn the_root_is_never_cancelled() {
        let context = CancelContext::new();
        assert_eq!(context.reason(), None);
        assert!(context.cancelled().now_or_never().is_none());
        assert_eq!(block_on(context.until_cancelled(ready(1))), Ok(1));
    }

    #[test]
    fn a_token_cancels_those_who_wait_and_those_who_come_later() {
        let (context, token) = CancelContext::new().with_token();
        let clone = context.clone();
        let mut waiting = Box::pin(clone.until_cancelled(pending::<()>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!token.is_cancelled());
        token.cancel();
        token.cancel();
        assert!(token.is_cancelled());
        assert_eq!(waiting.now_or_never(), Some(Err(CancelReason::Cancelled)));
        assert_eq!(context.reason(), Some(CancelReason::Cancelled));
        assert_eq!(
            context.until_cancelled(ready(1)).now_or_never(),
            Some(Err(CancelReason::Cancelled)),
        );
    }

    #[test]
    fn a_dropped_token_cancels_nothing() {
        let (context, token) = CancelContext::new().with_token();
        drop(token);
        assert_eq!(context.reason(), None);
        assert!(context.cancelled().now_or_never().is_none());
    }

    #[test]
    fn cancelling_goes_down_the_tree_only() {
        let (parent, parent_token) = CancelContext::new().with_token();
        let (child, child_token) = parent.with_token();
        let (sibling, _sibling_token) = parent.with_token();
        child_token.cancel();
        assert_eq!(child.reason(), Some(CancelReason::Cancelled));
        assert_eq!(sibling.reason(), None);
        assert_eq!(parent.reason(), None);
        let mut waiting = Box::pin(sibling.cancelled());
        assert!(waiting.as_mut().now_or_never().is_none());
        parent_token.cancel();
        assert_eq!(waiting.now_or_never(), Some(CancelReason::Cancelled));
    }

    #[test]
    fn a_deadline_passes_for_every_clone() {
        let (alarm, timer) = oneshot();
        let context = CancelContext::new().with_deadline(timer.map(drop));
        let clone = context.clone();
        let mut waiting = [Box::pin(context.cancelled()), Box::pin(clone.cancelled())];
        for waiting in &mut waiting {
            assert!(waiting.now_or_never().is_none());
        }
        assert_eq!(context.reason(), None);
        alarm.send(()).unwrap();
        // Nobody polled the timer since, and still it counts.
        assert_eq!(context.reason(), Some(CancelReason::DeadlineExceeded));
        for waiting in waiting {
            assert_eq!(waiting.now_or_never(), Some(CancelReason::DeadlineExceeded));
        }
    }

    #[test]
    fn a_thread_waits_for_another_to_cancel() {
        let (context, token) = CancelContext::new().with_token();
        let thread = std::thread::spawn(move || block_on(context.until_cancelled(pending::<()>())));
        token.cancel();
        assert_eq!(thread.join().unwrap(), Err(CancelReason::Cancelled));
    }

    #[test]
    fn a_result_is_not_lost_to_a_cancellation_at_the_same_time() {
        let (context, token) = CancelContext::new().with_token();
        let work = async {
            token.cancel();
            1
        };
        assert_eq!(block_on(context.until_cancelled(work)), Ok(1));
    }

    #[test]
    fn the_work_is_dropped_when_cancelled() {
        let (context, token) = CancelContext::new().with_token();
        let (held, mut gone) = oneshot::<()>();
        let work = async move {
            let _held = held;
            pending::<()>().await;
        };
        let mut running = Box::pin(context.until_cancelled(work));
        assert!(running.as_mut().now_or_never().is_none());
        token.cancel();
        assert!(running.as_mut().now_or_never().is_some());
        assert!(
            gone.try_recv()
                .is_err_and(|error| error == crate::TryRecvError::Closed)
        );
    }
}
