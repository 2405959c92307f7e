//! The asking side: rings that hold what other processes tell of the jobs that are watched here.
//!
//! A mirror follows the process that runs the job. Every piece names the number before its first event; when that is
//! not the last that is held, a message was lost, and the mirror asks for the rest. Only what the telling process no
//! longer holds is a gap.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use uuid::Uuid;

use super::wire::{Piece, Watch};
use crate::{
    events::{EventBody, JobEvent, Progress, Subscription, ring::Ring},
    ids::JobId,
};

/// Most jobs that are watched at once; as many as an API process lets watch.
const MIRRORS_MAX: usize = 4_096;
/// Renewals for which a mirror stays without a reader, so that one who reconnects finds it.
const IDLE_MAX: u8 = 2;
/// Processes whose positions are known of one job; of an earlier one everything is asked again.
const SOURCES_MAX: usize = 8;
/// Shortest time between two asks for what a mirror misses: answers are on their way.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

struct Mirror {
    ring: Ring,
    /// The process that runs the job, as far as known.
    source: Option<Uuid>,
    /// The last event that each process told, latest source last.
    told: Vec<(Uuid, u64)>,
    /// Whether the source has told all that it held.
    answered: watch::Sender<bool>,
    asked_again: Option<Instant>,
    idle: u8,
}

impl Mirror {
    fn new() -> Self {
        let answered = watch::channel(false).0;
        Self { ring: Ring::behind(0), source: None, told: vec![], answered, asked_again: None, idle: 0 }
    }

    fn watch(&self, job: JobId) -> Watch {
        Watch { job, source: self.source, after: self.source.map(|_| self.ring.last()) }
    }

    /// Takes a piece, or says what has to be asked first.
    fn accept(&mut self, source: Uuid, piece: Piece, now: Instant) -> Option<Watch> {
        if self.source == Some(source) {
            if piece.gap {
                self.ring.break_off(piece.previous);
            } else if piece.previous > self.ring.last() {
                return self.ask_again(self.watch(piece.job), now);
            }
        } else {
            let newer = self.source.is_none() || piece.turn > self.ring.turn();
            let starts = |event: &Arc<JobEvent>| matches!(event.body, EventBody::AttemptStarted { .. });
            // An attempt that begins now with smaller numbers: its worker's clock is behind.
            let behind = !newer && !piece.fresh && piece.events.iter().any(starts);
            if !newer && !behind {
                return None;
            }
            let known = self.told_by(source);
            if !behind && !piece.begins && !piece.fresh && known.is_none_or(|known| known < piece.previous) {
                let rest = Watch { job: piece.job, source: Some(source), after: known };
                return self.ask_again(rest, now);
            }
            self.follow(source, &piece, behind);
        }
        let Piece { events, fresh, more, progress, .. } = piece;
        let known = self.told_by(source).unwrap_or(0);
        for event in events.into_iter().filter(|event| event.sequence > known) {
            self.note(source, event.sequence);
            self.ring.hold(event);
        }
        if fresh && !more {
            self.ring.set_progress(progress);
        }
        if !more {
            self.answered.send_replace(true);
        }
        None
    }

    /// Goes on with what another process tells.
    fn follow(&mut self, source: Uuid, piece: &Piece, behind: bool) {
        let ends = piece.events.first().is_some_and(|event| event.body.is_end());
        if self.source.is_none() && !piece.gap {
            self.ring.begin_behind(piece.previous);
        } else if piece.gap || behind || !(self.ring.is_over() || ends) {
            // The last words of a worker that died may be lost.
            self.ring.break_off(piece.previous);
        }
        self.source = Some(source);
    }

    fn told_by(&self, source: Uuid) -> Option<u64> {
        self.told.iter().find(|(of, _)| *of == source).map(|(_, last)| *last)
    }

    fn note(&mut self, source: Uuid, last: u64) {
        if let Some((of, known)) = self.told.last_mut()
            && *of == source
        {
            *known = last;
            return;
        }
        self.told.retain(|(of, _)| *of != source);
        if self.told.len() >= SOURCES_MAX {
            self.told.remove(0);
        }
        self.told.push((source, last));
    }

    fn ask_again(&mut self, watch: Watch, now: Instant) -> Option<Watch> {
        if self.asked_again.is_some_and(|asked| now < asked + ASK_AGAIN_AFTER) {
            return None;
        }
        self.asked_again = Some(now);
        Some(watch)
    }
}

/// The mirrors of one process.
pub(super) struct Mirrors {
    by_job: HashMap<JobId, Mirror>,
    /// For readers that there is no room for: nothing is ever told here.
    silence: broadcast::Sender<Arc<JobEvent>>,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self { by_job: HashMap::new(), silence: broadcast::channel(1).0 }
    }
}

impl Mirrors {
    pub(super) fn len(&self) -> usize {
        self.by_job.len()
    }

    pub(super) fn contains(&self, job: JobId) -> bool {
        self.by_job.contains_key(&job)
    }

    /// Begins to watch a job, and says whether that is new; `None` if there is no room.
    pub(super) fn watch(&mut self, job: JobId) -> Option<(bool, watch::Receiver<bool>)> {
        let is_new = !self.by_job.contains_key(&job);
        if is_new && self.by_job.len() >= MIRRORS_MAX {
            return None;
        }
        let mirror = self.by_job.entry(job).or_insert_with(Mirror::new);
        mirror.idle = 0;
        Some((is_new, mirror.answered.subscribe()))
    }

    pub(super) fn subscribe(&mut self, job: JobId, after: Option<u64>) -> Subscription {
        match self.by_job.get_mut(&job) {
            Some(mirror) => mirror.ring.subscribe(after),
            None => Subscription { replay: vec![], gap: true, live: self.silence.subscribe() },
        }
    }

    /// Takes what `source` tells, or says what has to be asked first.
    pub(super) fn accept(&mut self, source: Uuid, piece: Piece, now: Instant) -> Option<Watch> {
        self.by_job.get_mut(&piece.job)?.accept(source, piece, now)
    }

    /// How far a watched job is; `None` if nobody has told of it.
    pub(super) fn progress(&self, job: JobId) -> Option<Option<Progress>> {
        let mirror = self.by_job.get(&job)?;
        (mirror.source.is_some() && *mirror.answered.borrow()).then(|| mirror.ring.progress().cloned())
    }

    /// Everything that is watched.
    pub(super) fn watches(&self) -> Vec<Watch> {
        self.by_job.iter().map(|(job, mirror)| mirror.watch(*job)).collect()
    }

    /// Forgets what nobody reads any more.
    pub(super) fn sweep(&mut self) {
        self.by_job.retain(|_, mirror| {
            mirror.idle = if mirror.ring.listeners() > 0 { 0 } else { mirror.idle + 1 };
            mirror.idle <= IDLE_MAX
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn piece(job: JobId, previous: u64, begins: bool, turn: u64, bodies: Vec<EventBody>) -> Piece {
        let events =
            bodies.into_iter().zip(previous + 1..).map(|(body, sequence)| Arc::new(JobEvent { sequence, body }));
        let events = events.collect();
        Piece { job, previous, gap: false, begins, fresh: false, more: false, turn, progress: None, events }
    }

    fn token() -> EventBody {
        EventBody::Token { attempt: 1, step: "chat".into(), text: "x".into() }
    }

    fn started() -> EventBody {
        EventBody::AttemptStarted { attempt: 1 }
    }

    fn numbers(mirrors: &mut Mirrors, job: JobId) -> (Vec<u64>, bool) {
        let Subscription { replay, gap, .. } = mirrors.subscribe(job, None);
        (replay.iter().map(|event| event.sequence).collect(), gap)
    }

    #[test]
    fn what_was_lost_is_asked_for_and_leaves_no_gap() {
        let (mut mirrors, job, now) = (Mirrors::default(), JobId::generate(), Instant::now());
        mirrors.watch(job).unwrap();
        assert_eq!(mirrors.accept(ONE, piece(job, 10, true, 11, vec![started()]), now), None);
        let lost = Some(Watch { job, source: Some(ONE), after: Some(11) });
        assert_eq!(mirrors.accept(ONE, piece(job, 12, false, 11, vec![token()]), now), lost);
        assert_eq!(mirrors.accept(ONE, piece(job, 13, false, 11, vec![token()]), now), None, "asked a moment ago");
        assert_eq!(mirrors.accept(ONE, piece(job, 11, false, 11, vec![token(), token(), token()]), now), None);
        assert_eq!(mirrors.accept(ONE, piece(job, 12, false, 11, vec![token()]), now), None, "known");
        assert_eq!(numbers(&mut mirrors, job), (vec![11, 12, 13, 14], false));
    }

    #[test]
    fn a_worker_that_lost_its_job_is_not_followed_again() {
        let (mut mirrors, job, now) = (Mirrors::default(), JobId::generate(), Instant::now());
        mirrors.watch(job).unwrap();
        mirrors.accept(ONE, piece(job, 10, true, 11, vec![started()]), now);
        mirrors.accept(OTHER, piece(job, 20, true, 21, vec![started()]), now);
        assert_eq!(mirrors.accept(ONE, piece(job, 30, false, 11, vec![token()]), now), None);
        assert_eq!(numbers(&mut mirrors, job), (vec![21], true), "its last words may be lost");
        // Where the attempt ended in order, nothing is lost, whoever goes on.
        mirrors.accept(OTHER, piece(job, 21, false, 22, vec![EventBody::State { state: State::Ready }]), now);
        let again = Some(Watch { job, source: Some(ONE), after: Some(11) });
        assert_eq!(mirrors.accept(ONE, piece(job, 31, false, 32, vec![started()]), now), again, "30 was left out");
        let rest = Piece { fresh: true, ..piece(job, 11, false, 32, vec![]) };
        let event = |sequence, body| Arc::new(JobEvent { sequence, body });
        let events = vec![event(31, token()), event(32, started())];
        assert_eq!(mirrors.accept(ONE, Piece { events, ..rest }, now), None);
        assert_eq!(numbers(&mut mirrors, job).0, [21, 22, 31, 32]);
    }

    #[test]
    fn readers_without_room_are_told_so_and_nothing_else() {
        let mut mirrors = Mirrors::default();
        for _ in 0..MIRRORS_MAX {
            assert!(mirrors.watch(JobId::generate()).is_some());
        }
        let job = JobId::generate();
        assert!(mirrors.watch(job).is_none());
        let mut subscription = mirrors.subscribe(job, None);
        assert!(subscription.gap && subscription.replay.is_empty());
        assert_eq!(subscription.live.try_recv(), Err(broadcast::error::TryRecvError::Empty));
        for _ in 0..=IDLE_MAX {
            mirrors.sweep();
        }
        assert_eq!(mirrors.len(), 0);
    }
}
