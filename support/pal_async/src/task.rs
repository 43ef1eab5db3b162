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
        /// What the panic said.
        message: String,
    },
    /// The task's pool stopped.
    #[error("task {name} was cancelled: its pool stopped")]
    Cancelled {
        /// The task's name.
        name: Arc<str>,
    },
}

/// A task that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Unlike the name, unique among the tasks of a driver.
    pub id: u64,
    /// The name the task was spawned by.
    pub name: Arc<str>,
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

    /// The name the task was spawned by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets the task run to its end without anybody waiting for it. A panic is still logged.
    pub fn detach(self) {
        if let Some(task) = self.task {
            task.detach();
        }
    }

    /// Cancels the task and waits until it is gone with all it owned. Its output, if it got that far.
    pub async fn cancel(self) -> Option<T> {
        self.task?.cancel().await?.ok()
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(smol::Task::is_finished)
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
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// The error of a task that panicked. Also logs it: not every task is joined.
///
/// What the panic left behind is only seen by those who share state with the task, whose locks and
/// channels tell them; so whoever catches it may assert unwind safety.
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
        "(not a text)".to_owned()
    }
}
