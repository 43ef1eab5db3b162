//! `mesh` channels to other processes, over connected SOCK_SEQPACKET Unix sockets.
//!
//! Each of two processes has one end of a socket, which carries the messages of one channel in one direction, and the
//! replies to the requests in them in the other. One process makes a [`sender`] of its end, the other a [`receiver`];
//! both have the types that [`mesh::bounded`] gives, so code that uses them is the same for another process and for
//! this one. File descriptors ([`mesh::Fd`]) travel as SCM_RIGHTS: an end of another socket, and so of another channel,
//! can be in a message.
//!
//! ```
//! use mesh::{Attachments, Rpc};
//! use minicbor::{Decode, Encode};
//! use pal_async::DefaultPool;
//!
//! #[derive(Encode, Decode)]
//! #[cbor(context_bound = "AsMut<Attachments>")]
//! enum Request {
//!     #[n(0)]
//!     #[cbor(map)]
//!     Double(#[n(1)] Rpc<u32, u32>),
//! }
//!
//! DefaultPool::run_with(async |driver| {
//!     let (here, there) = mesh_remote::socket_pair().unwrap();
//!     // In this process.
//!     let (requests, sending) = mesh_remote::sender(&driver, here).unwrap();
//!     sending.detach();
//!     // In another one.
//!     let (mut receiver, receiving) = mesh_remote::receiver(&driver, there).unwrap();
//!     receiving.detach();
//!     driver
//!         .spawn("server", async move {
//!             while let Ok(Request::Double(rpc)) = receiver.recv().await {
//!                 rpc.handle_sync(|number| 2 * number);
//!             }
//!         })
//!         .detach();
//!     assert_eq!(requests.call(Request::Double, 21).await, Ok(42));
//! });
//! ```
//!
//! # Limits
//!
//! A message or reply is one packet, of at most [`mesh::wire::MAX_BYTES`] and [`mesh::wire::MAX_FDS`]. A request
//! that is longer, or that nests deeper than [`mesh::payload::MAX_DEPTH`], fails with [`mesh::RpcError::Refused`]; any other
//! such message ends the channel. At most [`QUEUE_LEN`]
//! messages wait on either side, and at most [`MAX_REQUESTS`] requests for their replies: senders wait for room.
//!
//! # A peer that dies or lies
//!
//! When the other process is gone, the channel ends: every request that waits for a reply fails with
//! [`mesh::RpcError::NoReply`], a sender's messages with [`mesh::SendError`], and a receiver gets no more. The same
//! happens at the first packet that is not what it has to be, and the channel's task then gives the error.
//!
//! A process that sends an end of a socket may keep a duplicate. With it, it can take and send the end's packets, and it
//! can set the socket's options: with `SO_PASSPIDFD`, each packet that is received leaves a file descriptor open. So an end
//! is to be made by the process that trusts the other less, and sent to that one.
#![forbid(unsafe_code)]

mod error;
mod limits;
mod packet;
mod receiver;
mod sender;
mod socket;

pub use error::ChannelError;
pub use error::ChannelOpenError;
pub use error::ChannelTask;
pub use limits::MAX_REQUESTS;
pub use limits::QUEUE_LEN;
pub use receiver::receiver;
pub use sender::sender;
pub use socket::socket_pair;
