//! One task that owns a VMGS store, and the clients that ask it.
//!
//! [`Broker`] serves requests one at a time in the order they arrive. A [`VmgsClient`] is a cheap handle
//! for tasks; [`VmgsClient::blocking`] gives the same calls to threads that have no executor, such as
//! those that run virtual processors. A request whose caller stops waiting before its turn comes is not
//! carried out; one that has begun is carried out whole.
//!
//! After [`VmgsClient::save`] the store is sealed: what was saved stays true, because every change
//! fails with [`BrokerError::Sealed`] until [`VmgsClient::unseal`].
#![forbid(unsafe_code)]

mod blocking;
mod broker;
mod client;
mod non_volatile;
mod request;

pub use blocking::BlockingClient;
pub use broker::Broker;
pub use broker::RestoreError;
pub use client::VmgsClient;
pub use non_volatile::NonVolatileStore;
pub use request::BrokerError;
pub use request::Changes;
pub use request::FileContent;
pub use request::StoreInfo;
