//! That what is signed has a secret: a tenant gets one with its first job that needs it.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use queue_core::{
    credentials::SealError,
    ids::Name,
    job::NewJob,
    webhooks::{Owner, SecretError, ensure_secret},
};

use crate::{
    app::App,
    problem::{Cause, Problem},
};

/// Tenants that are remembered as having a secret; beyond it the journal is asked again.
const KNOWN_MAX: usize = 10_000;

/// The tenants that have a secret, as far as this process has asked. A secret is rotated and never taken away.
#[derive(Debug, Default)]
pub(crate) struct Signing(Mutex<HashSet<Name>>);

/// Sees to it that the tenants of jobs whose messages are signed have a secret. Jobs that tell nobody cost nothing.
pub(crate) async fn ensure(app: &App, jobs: &[NewJob]) -> Result<(), Problem> {
    let tenants: HashSet<&Name> = jobs.iter().filter(|job| job.webhook.is_some()).map(|job| &job.tenant).collect();
    for tenant in tenants {
        if app.signing.knows(tenant) {
            continue;
        }
        let (webhooks, keys) = (&*app.api.stores.webhooks, app.api.credentials.master_keys());
        ensure_secret(webhooks, &keys, &Owner::Tenant(tenant.clone()), app.now()).await.map_err(problem)?;
        app.signing.learn(tenant.clone());
    }
    Ok(())
}

impl Signing {
    fn knows(&self, tenant: &Name) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(tenant)
    }

    fn learn(&self, tenant: Name) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(tenant);
    }
}

/// Why there is no secret, and what to do.
pub(crate) fn problem(error: SecretError) -> Problem {
    match error {
        SecretError::Journal(error) => error.into(),
        SecretError::Contended => Problem::new(Cause::Unavailable, error.to_string()).retry_after(1),
        SecretError::Seal(SealError::NoMasterKey) => {
            let detail = "this server has no master key, so it cannot keep a secret to sign messages with; \
                          `longshore credential master-key` makes one, `credentials.master_key_file` names it";
            Problem::new(Cause::Unavailable, detail)
        }
        SecretError::Seal(error) => Problem::new(Cause::Internal, error.to_string()),
    }
}
