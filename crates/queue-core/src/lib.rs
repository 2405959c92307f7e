//! What every part of Longshore agrees on: the job, its one state table, and the seams to the stores.
//!
//! The *journal* is the truth, the *dispatcher* is an index that can be lost at any moment. `api`, `worker` and
//! `scheduler` depend on this crate and never on each other. Nothing here calls a provider, and only `egress` speaks HTTP.

pub mod archive;
pub mod audit;
pub mod backup;
pub mod bodies;
pub mod breaker;
pub mod budget;
pub mod cache;
pub mod credentials;
pub mod dispatcher;
pub mod egress;
pub mod erasure;
pub mod error;
pub mod events;
pub mod fallback;
pub mod filter;
pub mod hex;
pub mod ids;
pub mod job;
pub mod journal;
pub mod keys;
pub mod ledger;
pub mod limiter;
pub mod location;
pub mod operations;
pub mod payload;
pub mod private;
pub mod progress;
pub mod request_limits;
pub mod retention;
pub mod retry;
pub mod route;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod schedule;
pub mod state;
pub mod stores;
pub mod telemetry;
pub mod time;
pub mod traces;
pub mod upkeep;
pub mod webhooks;
