//! Where backups go, and who can open them.

use std::{collections::BTreeMap, path::PathBuf};

use queue_core::backup::{Identities, Keep, Place, Recipients};

use super::file;
use crate::{data, environment::Environment};

/// Variables of clients of buckets begin so; those of the second place have this before them, and those that it lacks are the first's.
const BUCKETS: [&str; 2] = ["AWS_", "GOOGLE_"];
const OFFSITE: &str = "OFFSITE_";
/// Most backups of a ladder: what a place lists in seconds.
const KEEP_MAX: usize = 1_000;

/// Where backups go.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    /// A folder or a bucket.
    pub(crate) url: String,
    /// A second one.
    pub(crate) offsite: Option<String>,
    /// To whom they are encrypted.
    pub(crate) recipients: std::sync::Arc<Recipients>,
    /// The file with what opens them.
    pub(crate) identity_file: Option<PathBuf>,
    /// How many are kept.
    pub(crate) keep: Keep,
    /// When one is made each day, in minutes of the UTC day.
    pub(crate) daily_at: Option<u32>,
    /// Whether each week the newest is restored and tried.
    pub(crate) drill: bool,
    /// An empty database's server, for drills; `None`: the journal's own.
    pub(crate) scratch: Option<String>,
    /// What its client is told, by the names of its variables.
    pub(crate) buckets: BTreeMap<String, String>,
    /// Likewise for the second place.
    pub(crate) buckets_offsite: BTreeMap<String, String>,
}

impl Backup {
    /// The place of backups.
    pub(crate) fn place(&self) -> Result<Place, String> {
        Place::open(&self.url, &self.buckets)
    }

    /// The second one.
    pub(crate) fn offsite(&self) -> Result<Option<Place>, String> {
        self.offsite.as_deref().map(|url| Place::open(url, &self.buckets_offsite)).transpose()
    }

    /// What opens backups, where it is on this machine.
    pub(crate) fn identities(&self) -> Result<Option<std::sync::Arc<Identities>>, String> {
        self.identity_file.as_deref().map(identities).transpose()
    }
}

/// The identities of a file.
pub(crate) fn identities(path: &std::path::Path) -> Result<std::sync::Arc<Identities>, String> {
    let said = |reason: String| format!("{}: {reason}", path.display());
    let text = data::read_small(path).map_err(|error| said(error.to_string()))?;
    Identities::parse(&text).map(std::sync::Arc::new).map_err(said)
}

/// What clients of buckets are told by the environment.
pub(crate) fn buckets(env: &Environment) -> BTreeMap<String, String> {
    BUCKETS.iter().flat_map(|prefix| env.beginning(prefix)).collect()
}

/// Checks `[backup]`; `None` where no place is named.
pub(super) fn backup(env: &Environment, file: file::BackupTable) -> Result<Option<Backup>, String> {
    let named = |variable: &str, file: Option<String>| env.get(variable).map(str::to_owned).or(file);
    let url = named("LONGSHORE_BACKUP_URL", file.url);
    let offsite = named("LONGSHORE_BACKUP_OFFSITE", file.offsite);
    let recipients = match env.get("LONGSHORE_BACKUP_RECIPIENTS") {
        Some(list) => list.split(',').map(str::to_owned).collect(),
        None => file.recipients,
    };
    let identity_file = env.get("LONGSHORE_BACKUP_IDENTITY_FILE").map(PathBuf::from).or(file.identity_file);
    let Some(url) = url else {
        return match offsite.is_some() || !recipients.is_empty() {
            true => Err("backup.url is missing: `file:PATH` or `s3://BUCKET/PREFIX`, where backups go".to_owned()),
            false => Ok(None),
        };
    };
    let recipients = Recipients::parse(&recipients).map_err(|reason| format!("backup.recipients: {reason}"))?;
    let shipped = Keep::default();
    let keep = Keep {
        daily: file.keep_daily.unwrap_or(shipped.daily),
        weekly: file.keep_weekly.unwrap_or(shipped.weekly),
        monthly: file.keep_monthly.unwrap_or(shipped.monthly),
    };
    if keep.daily == 0 || [keep.daily, keep.weekly, keep.monthly].iter().any(|kept| *kept > KEEP_MAX) {
        return Err(format!(
            "backup.keep_daily is 1 to {KEEP_MAX}, backup.keep_weekly and keep_monthly are at most that"
        ));
    }
    let drill = file.drill.unwrap_or(true);
    if let Some(scratch) = &file.scratch
        && !scratch.starts_with("postgres")
    {
        return Err(
            "backup.scratch is `postgres://…/DATABASE`, on whose server drills make and drop databases".to_owned()
        );
    }
    let buckets = buckets(env);
    let mut buckets_offsite = buckets.clone();
    let of_offsite = BUCKETS.iter().flat_map(|prefix| env.beginning(&format!("{OFFSITE}{prefix}")));
    buckets_offsite.extend(of_offsite.map(|(name, value)| (name.replacen("offsite_", "", 1), value)));
    Ok(Some(Backup {
        url,
        offsite,
        recipients: std::sync::Arc::new(recipients),
        identity_file,
        keep,
        daily_at: file.daily_at.as_deref().map(minutes).transpose()?,
        drill,
        scratch: file.scratch,
        buckets,
        buckets_offsite,
    }))
}

/// Minutes of the day that `03:30` means.
fn minutes(text: &str) -> Result<u32, String> {
    let read = || {
        let (hours, minutes) = text.split_once(':')?;
        let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    read().ok_or_else(|| format!("backup.daily_at is `{text}`; it is a time of the day in UTC such as 03:30"))
}
