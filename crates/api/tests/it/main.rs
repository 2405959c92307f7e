//! The API over real sockets, as its callers meet it: one executable, since linking thirty took minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod archives;
mod audit;
mod backlog;
mod backups;
mod budgets;
mod credentials;
mod erasures;
mod headers;
mod holds;
mod isolation;
mod jobs;
mod keys;
mod large_bodies;
mod limits;
mod log_level;
mod long_lists;
mod maintenance;
mod money;
mod operations;
mod packed_bodies;
mod permissions;
mod probes;
mod processes;
mod queue_verbs;
mod request_limits;
mod retention;
mod robust;
mod schedules;
mod server;
mod surface;
mod tls;
mod tokens;
mod watch;
mod webhooks;
