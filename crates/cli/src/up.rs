//! `longshore up`: everything in one process, with a data folder of its own. What is opened, in which order, who gets
//! what; `process` is how each role is built and how all of them end.

use queue_core::keys::Secret;

use crate::{
    backups, certificate,
    client::Access,
    config::Config,
    data::{self, DataFolder},
    failure::{Failure, Outcome},
    greeting::{AdminKey, Greeting},
    logs, master_keys,
    output::Output,
    process::{self, Process, Signals},
    stores::{Opening, cannot_start},
    tokens,
};

/// Runs everything until a signal comes or a role breaks.
pub(crate) async fn run(config: Config, access: &Access, out: Output) -> Outcome {
    let levels = logs::install(&config);
    let signals = Signals::listen()?;
    let certificate = certificate::Reader::of(&config)?;
    let mut folder = DataFolder::take(&config.data)?;
    backups::before_migration(&config).await?;
    let mut process = Process::open(config, Opening::Up { leases: folder.file("leases") }).await?;
    process.obey_log_levels(levels);
    let admin_key = ensure_admin_key(&process, &folder).await?;
    let source = master_keys::of_up(&process.config.master_keys, &folder, &process.credentials)?;
    process.use_master_keys(source);
    let signing = tokens::of_up(&process.config.signing_keys, &folder)?;
    process.use_tokens(signing)?;
    process.use_certificate(certificate);
    process.use_backups()?;

    // Before anyone claims: a new generation, the operators' settings, the jobs that died with the last process.
    let clockwork = process.clockwork(true);
    let prepared = scheduler::prepare(&process.stores, &clockwork).await;
    let prepared = prepared.map_err(cannot_start("the dispatcher"))?;

    let listener = process::listen(&process.config.listen).await?;
    process.want_admin_key(&listener).await?;
    let url = process.url_of_api(&listener)?;
    // First the worker: the API looks at its loop.
    process.start_worker();
    process.start_api(listener, true);
    process.start_clockwork(clockwork, prepared);

    folder.announce(Some(url.clone()))?;
    Greeting { config: &process.config, access, folder: &folder, url: &url, admin_key: &admin_key }.print(out);
    // Nobody balances over one process.
    let wait = process.config.stop_wait.unwrap_or_default();
    process.until_the_end(signals, wait).await
}

/// Sees to it that there is an admin key: the one that was asked for, the one in the data folder, or a new one.
async fn ensure_admin_key(process: &Process, folder: &DataFolder) -> Result<AdminKey, Failure> {
    let (secret, found) = match (process::given_key(&process.config)?, data::stored_key(folder.path())?) {
        (Some(key), _) => (key, AdminKey::Given),
        (None, Some(key)) => (process::parse_key(&key, "the key in the data folder")?, AdminKey::Kept),
        (None, None) => {
            let secret = Secret::generate();
            // The file first: a crash in between leaves a key that the next start adds, not one that nobody knows.
            folder.keep_key(&secret.reveal())?;
            let key = secret.reveal();
            (secret, AdminKey::New(key))
        }
    };
    process.add_admin_key(&secret).await?;
    Ok(found)
}
