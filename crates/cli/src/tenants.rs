//! The tenants of the configuration, kept in the journal, where every process finds them.

use queue_core::{journal::TenantSettings, stores::Stores};

use crate::{config::Config, failure::Failure, stores::cannot_start};

/// Makes the journal say of tenants what the configuration says. Tenants that it does not name stay as they are.
pub(crate) async fn keep(config: &Config, stores: &Stores) -> Result<(), Failure> {
    let failed = cannot_start("the journal");
    if config.tenants.is_empty() {
        return Ok(());
    }
    let known = stores.catalog.tenants().await.map_err(&failed)?;
    let erased = stores.erasures.erasures().await.map_err(&failed)?;
    for (tenant, settings) in &config.tenants {
        if erased.iter().any(|erasure| erasure.tenant == *tenant) {
            tracing::warn!("the configuration names a tenant that was erased: `tenants.{tenant}` means nothing");
            continue;
        }
        let kept = known.get(tenant).map(|kept| kept.value.clone());
        let mut wanted = merged(settings, kept.clone().unwrap_or_default());
        if let Some(policy) = config.credential_policies.get(tenant) {
            wanted.credential_policy = *policy;
        }
        if kept.as_ref() != Some(&wanted) {
            stores.catalog.set_tenant(tenant, wanted).await.map_err(&failed)?;
        }
    }
    Ok(())
}

/// What the configuration says, and the pause that an operator has set: a restart resumes nobody. How often a tenant may ask is
/// as it was set, where the configuration does not say it.
fn merged(configured: &TenantSettings, kept: TenantSettings) -> TenantSettings {
    let rates = configured.rates.or(kept.rates);
    TenantSettings { backlog_max: configured.backlog_max, weight: configured.weight, rates, ..kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_outlives_the_configuration() {
        let kept = TenantSettings { paused: true, reason: Some("bill".into()), weight: 9, ..TenantSettings::default() };
        let configured = TenantSettings { backlog_max: Some(7), weight: 3, ..TenantSettings::default() };
        let merged = merged(&configured, kept);
        assert_eq!((merged.weight, merged.backlog_max, merged.paused), (3, Some(7), true));
        assert_eq!(merged.reason.as_deref(), Some("bill"));
    }
}
