//! The program as its users start it: real processes, real stores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod audit;
mod backups;
mod bad_surroundings;
mod bodies;
mod browser;
mod canaries;
mod coalesced_crash;
mod concurrency_keys;
mod crash;
mod credentials;
mod dashboard;
mod dashboard_jobs;
mod dashboard_oidc;
mod dashboard_settings;
mod disk;
mod documented;
mod documents;
mod erase;
mod flush;
mod installation;
mod limits_at_runtime;
mod logs;
mod metrics;
mod migrate;
mod operations;
mod own_handler;
mod serve_roles;
mod server;
mod shared_stores;
mod streams;
mod stuck;
mod tenants_shared;
mod tls;
mod traces;
mod webhooks;
