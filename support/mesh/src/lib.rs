//! Typed message passing between tasks, and the numbered-field encoding of messages and saved state.
//!
//! Nothing here needs an executor: futures are woken by their counterparts, and where time matters (a
//! deadline) the caller brings the timer.
#![forbid(unsafe_code)]

mod cancel;
mod channel;
pub mod encoding;
mod oneshot;
pub mod payload;
mod rpc;
pub mod saved_state;
mod wellformed;

pub use cancel::CancelContext;
pub use cancel::CancelReason;
pub use cancel::CancelToken;
pub use channel::BoundedSender;
pub use channel::Receiver;
pub use channel::RecvError;
pub use channel::SendError;
pub use channel::Sender;
pub use channel::TryRecvError;
pub use channel::TrySendError;
pub use channel::bounded;
pub use channel::channel;
pub use oneshot::OneshotReceiver;
pub use oneshot::OneshotSender;
pub use oneshot::oneshot;
pub use rpc::FailableReply;
pub use rpc::FailableRpc;
pub use rpc::FailableRpcError;
pub use rpc::RemoteError;
pub use rpc::Rpc;
pub use rpc::RpcError;
pub use rpc::RpcReply;
