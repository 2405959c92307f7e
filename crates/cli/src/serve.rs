//! `longshore serve`: one role in this process. The stores that processes can share are not built in this version.

use crate::{
    config::{Config, Dispatcher, Journal},
    failure::{Failure, Outcome},
};

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

/// What is said of stores that this version cannot open.
pub(crate) const NOT_BUILT: &str =
    "postgres is not built in this version; use `journal = \"sqlite:…\"` with `longshore up`";

/// Refuses a role that could not work: the memory dispatcher lives in one process.
pub(crate) fn run(role: Role, config: &Config) -> Outcome {
    check_built(config)?;
    let name = clap::ValueEnum::to_possible_value(&role).map(|value| value.get_name().to_owned()).unwrap_or_default();
    Err(Failure::usage(format!(
        "`serve {name}` needs stores that processes can share; `sqlite:` and `memory:` belong to one process: \
         use `longshore up`, which runs every role"
    )))
}

/// Refuses stores that this version cannot open.
pub(crate) fn check_built(config: &Config) -> Result<(), Failure> {
    match (&config.journal, &config.dispatcher) {
        (Journal::Sqlite(_), Dispatcher::Memory | Dispatcher::Redis(_)) => Ok(()),
        _ => Err(Failure::usage(NOT_BUILT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Flags, environment::Environment, failure::Exit};

    fn refusal(flags: Flags) -> Failure {
        let config = Config::load(&flags, None, &Environment::default()).unwrap();
        run(Role::Worker, &config).unwrap_err()
    }

    #[test]
    fn a_role_of_its_own_is_refused_with_what_to_do() {
        let failure = refusal(Flags::default());
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("serve worker") && failure.message.contains("longshore up"), "{failure}");
    }

    #[test]
    fn stores_that_are_not_built_are_refused() {
        let failure = refusal(Flags { journal: Some("postgres://h/db".into()), ..Flags::default() });
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("not built in this version"), "{failure}");
    }
}
