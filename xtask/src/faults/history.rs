//! What clients, provider and injector saw, as they saw it: one file a writer, one JSON object a line, only ever
//! appended to. The checker reads these files and never asks the system under test.

mod events;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::events::{ClientEvent, Ending, Harm, InjectorEvent, ProviderEvent, Race, Store, Wish, Work};

/// The clients' file.
pub(crate) const CLIENTS: &str = "clients.jsonl";
/// The provider's file.
pub(crate) const PROVIDER: &str = "provider.jsonl";
/// How the keys in Redis are called among what is counted at the end.
pub(crate) const REDIS_KEYS: &str = "redis keys";
/// And before the load.
pub(crate) const REDIS_KEYS_BEFORE: &str = "redis keys before the load";
/// The injector's file.
pub(crate) const INJECTOR: &str = "faults.jsonl";

/// A line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line<E> {
    /// Counted from 0 in each file: a missing line shows.
    pub(crate) n: u64,
    /// Microseconds since the run began, by a clock that never jumps.
    pub(crate) mono_us: u64,
    /// Milliseconds since the Unix epoch, to compare with times in the journal.
    pub(crate) wall_ms: i64,
    /// What happened.
    pub(crate) event: E,
}

/// The clocks of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    fn mono_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "a witness has its own watch")]
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Appends to one history.
pub(crate) struct Writer {
    clock: Clock,
    // The number of the next line; the file is written under the same lock, so the lines are in order.
    state: Mutex<(u64, File)>,
}

impl Writer {
    /// Opens `name` in `folder`.
    pub(crate) fn open(folder: &Path, name: &str, clock: Clock) -> Result<Self> {
        let path = folder.join(name);
        let file = File::options().create_new(true).append(true).open(&path);
        Ok(Self { clock, state: Mutex::new((0, file.with_context(|| format!("{}", path.display()))?)) })
    }

    /// Appends one event with one write.
    pub(crate) fn note<E: Serialize>(&self, event: E) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line { n: state.0, mono_us: self.clock.mono_us(), wall_ms: wall_ms(), event };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        state.1.write_all(&text).context("a history cannot be written")?;
        state.0 += 1;
        Ok(())
    }
}

/// Reads a history and refuses one with a gap.
pub(crate) fn read<E: DeserializeOwned>(folder: &Path, name: &str) -> Result<Vec<Line<E>>> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    parse(&text).with_context(|| format!("{}", path.display()))
}

/// Reads a history's text.
pub(crate) fn parse<E: DeserializeOwned>(text: &str) -> Result<Vec<Line<E>>> {
    if !text.is_empty() && !text.ends_with('\n') {
        bail!("the last line is cut off");
    }
    let mut lines = Vec::new();
    let mut before = 0;
    for (at, text) in text.lines().enumerate() {
        let line: Line<E> = serde_json::from_str(text).with_context(|| format!("line {}", at + 1))?;
        ensure!(line.n == at as u64, "line {} has the number {}: there is a gap", at + 1, line.n);
        ensure!(line.mono_us >= before, "line {} is older than the one before it", at + 1);
        before = line.mono_us;
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(events: &[ProviderEvent]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::open(folder.path(), PROVIDER, Clock::start()).unwrap();
        events.iter().for_each(|event| writer.note(event).unwrap());
        fs::read_to_string(folder.path().join(PROVIDER)).unwrap()
    }

    #[test]
    fn what_is_noted_is_read_and_a_missing_line_is_refused() {
        let events: Vec<_> = (0..3).map(|call| ProviderEvent::Began { call, mark: format!("j{call}") }).collect();
        let text = written(&events);
        let read: Vec<ProviderEvent> = parse(&text).unwrap().into_iter().map(|line| line.event).collect();
        assert_eq!(read, events);
        let with_gap: String =
            text.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, l)| format!("{l}\n")).collect();
        let refused = parse::<ProviderEvent>(&with_gap).unwrap_err();
        assert!(refused.to_string().contains("gap"), "{refused}");
        assert!(parse::<ProviderEvent>(text.trim_end()).is_err(), "a cut line is refused");
    }
}
