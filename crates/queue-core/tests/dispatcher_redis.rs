//! The Redis dispatcher against real servers: the conformance suite, and what only a server can do to it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod redis_fixture;

use redis_fixture::Redis;

queue_core::dispatcher_conformance!(Redis::fresh().await);
