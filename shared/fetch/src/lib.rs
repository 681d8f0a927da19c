//! Fetches templates from other people's servers: over https and from git repositories.
//!
//! Names and servers are hostile until the contrary is shown. A name is resolved once, each of its addresses has to be
//! public (or the operator trusts the host), and only what was checked is dialled; every redirect starts anew. What comes
//! is limited in size and time, and ends up in memory as a [`ciab_template::Bundle`]. This crate must never run a program,
//! read git's or a proxy's configuration, or let a credential reach another origin than the source's.
#![warn(missing_docs)]

mod address;
mod client;
mod credential;
mod dial;
mod download;
mod fetcher;
mod git;
mod https;
mod limits;
mod network;
mod roots;
mod transport;

pub use fetcher::WebFetcher;
pub use limits::Limits;
pub use network::{Connector, NameError, Resolver, SystemResolver, TcpConnector};
pub use roots::Roots;
