//! The provider as a witness: it does with each call what the call's prompt says, and writes down what it saw.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use testkit::{Behaviour, Director, SeenCall};

use super::history::{Ending, ProviderEvent, Wish, Work, Writer};

/// Writes the provider's history.
pub(crate) struct Witness {
    history: Writer,
    /// Marks whose first call was failed as asked.
    failed: Mutex<HashSet<String>>,
    broken: AtomicBool,
}

/// What a prompt says.
struct Prompt<'a> {
    mark: &'a str,
    ms: u64,
    fails_once: bool,
}

impl Witness {
    /// Writes to `history`.
    pub(crate) fn new(history: Writer) -> Arc<Self> {
        Arc::new(Self { history, failed: Mutex::default(), broken: AtomicBool::new(false) })
    }

    /// Whether a line could not be written: the history is then worth nothing.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    fn note(&self, event: ProviderEvent) {
        if self.history.note(event).is_err() {
            self.broken.store(true, Ordering::SeqCst);
        }
    }
}

/// The prompt of a job, from which the provider knows it.
pub(crate) fn prompt(wish: &Wish) -> String {
    let once = if wish.work == Work::LlmFailsOnce { "once" } else { "never" };
    format!("mark {} ms {} fail {once}", wish.mark, wish.ms)
}

impl<'a> Prompt<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["mark", mark, "ms", ms, "fail", fail] = words[..] else { return None };
        Some(Self { mark, ms: ms.parse().ok()?, fails_once: fail == "once" })
    }
}

impl Director for Witness {
    fn began(&self, number: u64, call: &SeenCall) -> (Duration, Behaviour) {
        let text = call.body.pointer("/messages/0/content").and_then(|text| text.as_str()).unwrap_or_default();
        // A call that is none of ours shows as one: its mark is in no client's history.
        let prompt = Prompt::read(text).unwrap_or(Prompt { mark: "unreadable", ms: 0, fails_once: false });
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let fails = prompt.fails_once && failed.insert(prompt.mark.to_owned());
        drop(failed);
        self.note(ProviderEvent::Began { call: number, mark: prompt.mark.to_owned() });
        (Duration::from_millis(prompt.ms), if fails { Behaviour::Status(500) } else { Behaviour::Answer })
    }

    fn ended(&self, number: u64, call: &SeenCall) {
        let how = match (call.answered, call.dropped) {
            (true, _) => Ending::Answered,
            (false, true) => Ending::Dropped,
            (false, false) => Ending::Failed,
        };
        self.note(ProviderEvent::Ended { call: number, how });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_read_as_it_was_written() {
        let wish = Wish {
            mark: "j7".into(),
            tenant: "t".into(),
            work: Work::LlmFailsOnce,
            ms: 12,
            run_at_ms: None,
            race: None,
        };
        let text = prompt(&wish);
        let read = Prompt::read(&text).unwrap();
        assert_eq!((read.mark, read.ms, read.fails_once), ("j7", 12, true));
        assert!(Prompt::read("Hello").is_none());
    }
}
