//! One owner of a VMGS store for all who use it, and the clients that ask it.
//!
//! A [`Broker`] serves requests one at a time in the order they arrive. A [`VmgsClient`] is a cheap handle, whose calls
//! are futures; a thread without an executor, such as one that runs a virtual processor, waits for them with
//! [`pal_async::block_on`]. A request whose caller stops waiting before its turn comes is not carried out; one that has
//! begun is carried out whole.
//!
//! After [`VmgsClient::save`] the store is sealed: every change fails with [`BrokerError::Sealed`] until
//! [`VmgsClient::unseal`], so that the saved state stays true.
#![forbid(unsafe_code)]

mod broker;
mod client;
mod request;

pub use broker::Broker;
pub use broker::RestoreStoreError;
pub use client::VmgsClient;
pub use request::BrokerError;
pub use request::StoreInfo;
