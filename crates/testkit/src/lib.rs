//! What tests need and no store or provider gives them: a model provider that misbehaves on command and keeps count,
//! and real servers to be stopped, flushed and frozen.
//!
//! A dev-dependency only. It shares no code with the rest of Longshore, so that what it sees is a witness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure in here is the failure of the test that uses it"
)]

mod age;
pub mod badinput;
mod browser;
mod certificate;
mod http;
mod monitoring;
mod oidc;
mod packages;
mod postgres;
mod provider;
mod proxy;
mod receiver;
mod redis;
mod watchdog;

pub use age::install_age;
pub use browser::{install_axe, install_browser};
pub use certificate::Certificate;
pub use monitoring::install_monitoring;
pub use oidc::{OidcProvider, OidcSeen};
pub use packages::{install as install_package, runs};
pub use postgres::{PostgresServer, SUPERUSER};
pub use provider::{Allowance, Behaviour, Director, Hold, MockProvider, SeenCall, Stream, Tally, UsageForm, Vectors};
pub use proxy::{TcpProxy, Weather};
pub use receiver::{Receiver, Taken};
pub use redis::{RedisCluster, RedisSentinel, RedisServer};
pub use watchdog::Watchdog;
