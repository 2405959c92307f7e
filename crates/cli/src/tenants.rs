//! The tenants of the configuration, kept in the journal, where every process finds them.

use queue_core::stores::Stores;

use crate::{config::Config, failure::Failure, stores::cannot_start};

/// Makes the journal say of tenants what the configuration says. Tenants that it does not name stay as they are.
pub(crate) async fn keep(config: &Config, stores: &Stores) -> Result<(), Failure> {
    let failed = cannot_start("the journal");
    if config.tenants.is_empty() {
        return Ok(());
    }
    let known = stores.catalog.tenants().await.map_err(&failed)?;
    for (tenant, settings) in &config.tenants {
        if known.get(tenant).is_none_or(|kept| kept.value != *settings) {
            stores.catalog.set_tenant(tenant, settings.clone()).await.map_err(&failed)?;
        }
    }
    Ok(())
}
