//! `longshore serve`: one role in this process. Not built in this version: `up` runs every role in one process.

use crate::failure::{Failure, Outcome};

/// A part of the product that can run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// The HTTP API
    Api,
    /// Runs jobs
    Worker,
    /// Reaps, reconciles, promotes
    Scheduler,
}

/// Refuses a role that could not work: the memory dispatcher lives in one process.
pub(crate) fn run(role: Role) -> Outcome {
    let name = clap::ValueEnum::to_possible_value(&role).map(|value| value.get_name().to_owned()).unwrap_or_default();
    Err(Failure::usage(format!(
        "`serve {name}` is not built in this version: use `longshore up`, which runs every role in one process, on Redis \
         and Postgres too"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_role_of_its_own_is_refused_with_what_to_do() {
        let failure = run(Role::Worker).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("serve worker") && failure.message.contains("longshore up"), "{failure}");
    }
}
