//! Whole workers over real stores and providers that misbehave by script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod analysing;
mod analysis_attempts;
mod analysis_cache;
mod asking;
mod attempts;
mod breaker;
mod budgets;
mod coalescing;
mod credentials;
mod fallback;
mod handlers_analysis;
mod handlers_calls;
mod http_kind;
mod limits;
mod orders;
mod packing;
mod paid_answers;
mod progress;
mod provider_chat;
mod provider_embed;
mod provider_faults;
mod provider_simulated;
mod recovering;
mod response_cache;
mod retry_table;
mod rig;
mod script;
mod stuck;
mod usage_costs;
mod vectors;
