//! Only for the fault suite: see `queue_core::sabotage`.

use std::path::PathBuf;

use queue_core::{sabotage::Sabotage, stores::Stores};

use crate::{environment::Environment, failure::Failure};

/// The stores, spoilt as the environment says. Crashes leave their files in the working folder.
pub(crate) fn spoil(stores: Stores) -> Result<Stores, Failure> {
    let environment = Environment::of_process();
    let Some(name) = environment.get("LONGSHORE_SABOTAGE") else { return Ok(stores) };
    let Some(sabotage) = Sabotage::parse(name) else {
        return Err(Failure::usage(format!("LONGSHORE_SABOTAGE: there is no sabotage `{name}`")));
    };
    tracing::warn!("this process is sabotaged: {sabotage:?}");
    Ok(sabotage.spoil(stores, PathBuf::from(".")))
}
