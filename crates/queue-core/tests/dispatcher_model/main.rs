//! Random operations on the dispatchers, each compared with a model so simple that it is right at sight.
//!
//! The model keeps a list of jobs and scans it. What a step may return is not one answer but a set of right ones (any
//! lane may be next), so the model judges the claims that it sees instead of predicting them.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod machine;
mod memory_fixture;
mod model;
#[path = "../redis_fixture/mod.rs"]
mod redis_fixture;

use machine::{Operation, Pair, operations};
use memory_fixture::Memory;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use redis_fixture::Redis;

/// A machine over one store. Operations do not depend on each other, so that any of them can be left out of a failing
/// sequence.
macro_rules! machine {
    ($name:ident, $fixture:expr) => {
        struct $name;

        impl ReferenceStateMachine for $name {
            type State = ();
            type Transition = Operation;

            fn init_state() -> BoxedStrategy<()> {
                Just(()).boxed()
            }

            fn transitions((): &()) -> BoxedStrategy<Operation> {
                operations()
            }

            fn apply((): (), _: &Operation) {}
        }

        impl StateMachineTest for $name {
            type SystemUnderTest = Pair;
            type Reference = Self;

            fn init_test((): &()) -> Pair {
                Pair::begin_with($fixture)
            }

            fn apply(mut pair: Pair, (): &(), operation: Operation) -> Pair {
                pair.apply(operation);
                pair
            }
        }
    };
}

machine!(OverMemory, async { Memory::fresh() });
machine!(OverRedis, Redis::fresh());

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model_says(sequential 1..120 => OverMemory);
}

prop_state_machine! {
    // Each operation is compared by dozens of calls: fewer cases take as long.
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn redis_does_as_the_model_says(sequential 1..120 => OverRedis);
}
