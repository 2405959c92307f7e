//! The events of one job that are held: bounded in number and bytes, numbered so that they can be resumed anywhere.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::broadcast;

use super::{EventBody, JobEvent, Progress, Subscription};
use crate::time::Timestamp;

/// Events that are held of one job: a reader that reconnects misses nothing of an ordinary answer.
pub(super) const RING_MAX_EVENTS: usize = 4_096;
/// Bytes of text that are held of one job.
pub(super) const RING_MAX_BYTES: usize = 256 * 1024;
/// Events that a slow reader may be behind before it has to ask for them again.
const LIVE_MAX: usize = 1_024;
/// Bits of a number below the millisecond. With 11, numbers stay exact in JSON readers that hold 53 bits until 2109,
/// and a job would have to tell 2,048 events in every millisecond of its life to run ahead of the clock.
const BITS_BELOW_MS: u32 = 11;

/// The first number of a moment.
fn number_at(now: Timestamp) -> u64 {
    u64::try_from(now.0).unwrap_or(0) << BITS_BELOW_MS
}

/// The events of one job, oldest first, and those who listen.
pub(super) struct Ring {
    events: VecDeque<Arc<JobEvent>>,
    bytes: usize,
    /// The number before the first event that this ring ever had.
    base: u64,
    /// Everything behind this number, up to `last`, is held.
    floor: u64,
    last: u64,
    /// The number of the last beginning of an attempt or change of state.
    turn: u64,
    /// Whether that was a change of state: no attempt runs here any more.
    over: bool,
    /// Kept apart from the events: tokens may have pushed it out of them.
    progress: Option<Progress>,
    /// Made for the first listener: its room is a good part of a ring's memory.
    live: Option<broadcast::Sender<Arc<JobEvent>>>,
}

/// A part of a ring.
pub(super) struct Held {
    /// The number before the first of `events`.
    pub(super) previous: u64,
    /// Whether events between the asked position and `previous` are gone.
    pub(super) gap: bool,
    /// Whether there was nothing before `previous` in this ring.
    pub(super) begins: bool,
    /// Whether the ring holds more behind these.
    pub(super) more: bool,
    /// Oldest first.
    pub(super) events: Vec<Arc<JobEvent>>,
}

impl Ring {
    /// An empty ring whose numbers begin at `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        Self::behind(number_at(now))
    }

    /// An empty ring for events behind a number.
    pub(super) fn behind(base: u64) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            base,
            floor: base,
            last: base,
            turn: 0,
            over: false,
            progress: None,
            live: None,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    pub(super) fn set_progress(&mut self, progress: Option<Progress>) {
        self.progress = progress;
    }

    pub(super) fn listeners(&self) -> usize {
        self.live.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    /// Numbers an event and holds it.
    pub(super) fn push(&mut self, body: EventBody, now: Timestamp) {
        let sequence = number_at(now).max(self.last + 1);
        self.hold(Arc::new(JobEvent { sequence, body }));
    }

    /// Holds an event that has its number; one that is not behind the last is known and left out.
    pub(super) fn hold(&mut self, event: Arc<JobEvent>) {
        if event.sequence <= self.last {
            return;
        }
        self.last = event.sequence;
        match &event.body {
            EventBody::AttemptStarted { .. } => (self.turn, self.over, self.progress) = (self.last, false, None),
            EventBody::State { .. } => (self.turn, self.over) = (self.last, true),
            EventBody::Progress { done, total, step } => {
                self.progress = Some(Progress { done: *done, total: *total, step: step.clone() });
            }
            EventBody::Token { .. } | EventBody::ModelSwitched { .. } => {}
        }
        self.bytes += size_of_text(&event.body);
        self.events.push_back(event.clone());
        while self.events.len() > RING_MAX_EVENTS || self.bytes > RING_MAX_BYTES && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= size_of_text(&oldest.body);
                self.floor = oldest.sequence;
            }
        }
        if let Some(live) = &self.live {
            // Nobody listening is no failure.
            let _ = live.send(event);
        }
    }

    /// Up to `events_max` events behind `after` (`None`: from the beginning), and no more once they hold `bytes_max`
    /// bytes of text.
    pub(super) fn after(&self, after: Option<u64>, events_max: usize, bytes_max: usize) -> Held {
        let from = after.unwrap_or(self.base);
        // A number that was never given here says nothing about what its reader has seen: it gets everything.
        let known = (self.floor..=self.last).contains(&from);
        let previous = if known { from } else { self.floor };
        let mut bytes = 0;
        let first = self.events.partition_point(|event| event.sequence <= previous);
        let rest = self.events.range(first..);
        let left = rest.len();
        let wanted = rest.take(events_max).take_while(|event| {
            let fits = bytes < bytes_max;
            bytes += size_of_text(&event.body);
            fits
        });
        let events: Vec<_> = wanted.cloned().collect();
        Held { previous, gap: !known, begins: previous == self.base, more: events.len() < left, events }
    }

    pub(super) fn subscribe(&mut self, after: Option<u64>) -> Subscription {
        let Held { events, gap, .. } = self.after(after, usize::MAX, usize::MAX);
        let live = self.live.get_or_insert_with(|| broadcast::channel(LIVE_MAX).0).subscribe();
        Subscription { replay: events, gap, live }
    }

    /// Sets where an empty ring begins; who listens stays.
    pub(super) fn begin_behind(&mut self, base: u64) {
        (self.base, self.floor, self.last) = (base, base, base);
    }

    /// Begins anew behind a number because events before it are lost: who listens has to subscribe again, and is told.
    pub(super) fn break_off(&mut self, floor: u64) {
        *self = Self { base: 0, turn: self.turn, ..Self::behind(floor) };
    }
}

fn size_of_text(body: &EventBody) -> usize {
    match body {
        EventBody::Token { step, text, .. } => step.len() + text.len(),
        EventBody::ModelSwitched { step, from, to, .. } => step.len() + from.len() + to.len(),
        EventBody::Progress { step, .. } => step.len(),
        EventBody::AttemptStarted { .. } | EventBody::State { .. } => 0,
    }
}
