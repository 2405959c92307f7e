//! Runs jobs: claims them, loads them, hands each to the handler of its kind, and settles what came of it.
//!
//! The path of a claimed job is [`pipeline`]; how many are claimed and when is [`claimer`]; what a kind does is in
//! [`handlers`]; who answers is in [`provider`].

pub mod context;
pub mod handlers;
pub mod provider;
