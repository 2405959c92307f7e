//! Random operations on the memory dispatcher, each compared with a model so simple that it is right at sight.
//!
//! The model keeps a list of jobs and scans it. What a step may return is not one answer but a set of right ones (any
//! lane may be next), so the model judges the claims that it sees instead of predicting them.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod machine;
mod model;

use machine::Machine;
use proptest::prelude::*;
use proptest_state_machine::prop_state_machine;

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model_says(sequential 1..120 => Machine);
}
