//! Handles of tasks.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

/// A spawned task: a future of its output. Dropping it cancels the task; see [`Task::detach`].
#[must_use = "a task is cancelled when its handle is dropped"]
pub struct Task<T> {
    name: Arc<str>,
    /// `None` if the pool had stopped before the task was spawned.
    task: Option<smol::Task<Result<T, JoinError>>>,
}

/// Why a task has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The task panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The task's name.
        name: Arc<str>,
        /// The panic's message.
        message: String,
    },
    /// The task's pool stopped.
    #[error("task {name} was cancelled: its pool stopped")]
    Cancelled {
        /// The task's name.
        name: Arc<str>,
    },
}

impl<T> Task<T> {
    pub(crate) fn new(name: Arc<str>, task: smol::Task<Result<T, JoinError>>) -> Self {
        Self {
            name,
            task: Some(task),
        }
    }

    pub(crate) fn never_ran(name: Arc<str>) -> Self {
        Self { name, task: None }
    }

    /// Lets the task run to its end without anybody waiting for it. A panic is still logged.
    pub fn detach(self) {
        if let Some(task) = self.task {
            task.detach();
        }
    }

    /// Cancels the task and waits until all that it owned is dropped. Gives its output if it had ended before.
    pub async fn cancel(self) -> Option<T> {
        self.task?.cancel().await?.ok()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.task {
            Some(task) => Pin::new(task).poll(cx),
            None => Poll::Ready(Err(JoinError::Cancelled {
                name: self.name.clone(),
            })),
        }
    }
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The error of a task that panicked. Also logs it, because not every task is joined.
///
/// State that the panic left inconsistent is shared through locks and channels, which report the panic
/// themselves; so whoever catches it may assert unwind safety.
pub(crate) fn panicked(name: Arc<str>, payload: &(dyn Any + Send)) -> JoinError {
    let message = panic_message(payload);
    tracing::error!(task = %name, message, "task panicked");
    JoinError::Panicked { name, message }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(the panic has no text)".to_owned()
    }
}
