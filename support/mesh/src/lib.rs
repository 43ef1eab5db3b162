//! Typed messages between tasks and processes, and the numbered-field encoding of messages and saved state.
//!
//! [`channel`] and [`bounded`] make channels within a process; requests over them are messages that carry an [`Rpc`].
//! A message type that implements `Encode` and `Decode` for [`Attachments`] can also go to another process, file
//! descriptors ([`Fd`]) and requests included: the crate `mesh_remote` puts a socket between the two ends of a channel.
//!
//! Nothing here needs an executor: each future is woken by the other end of its channel.
#![forbid(unsafe_code)]

mod attachments;
mod channel;
mod decode_error;
pub mod encoding;
mod inspect;
mod packet;
pub mod payload;
mod remote_error;
mod rpc;
mod rpc_error;
pub mod saved_state;
mod wellformed;
pub mod wire;

pub use attachments::Attachments;
pub use channel::BoundedSender;
pub use channel::Receiver;
pub use channel::RecvError;
pub use channel::SendError;
pub use channel::Sender;
pub use channel::TryRecvError;
pub use channel::TrySendError;
pub use channel::bounded;
pub use channel::channel;
pub use inspect::InspectTree;
pub use packet::Fd;
pub use remote_error::RemoteError;
pub use rpc::Rpc;
pub use rpc::RpcReply;
pub use rpc_error::RpcError;
