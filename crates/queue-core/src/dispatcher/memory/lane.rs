//! One lane: the entries of one tenant for one target in one queue, in the order of their turn.

use std::collections::BTreeSet;

use crate::{
    dispatcher::tracks::{Track, Tracks},
    ids::{JobId, Name},
    job::{AGEING_MS_PER_POINT, PRIORITY_MAX},
    time::Timestamp,
};

/// Place in a rotation: the turn, then first come, first served.
pub(super) type Position = (u64, u64);

/// Place in a lane: the smaller, the sooner. It never changes while the entry waits: what is worth less priority
/// catches up because it became ready earlier.
pub(super) type Rank = (i64, JobId);

/// The rank of an entry.
pub(super) fn rank(priority: u8, run_at: Timestamp, id: JobId) -> Rank {
    (run_at.0.saturating_sub(i64::from(priority.min(PRIORITY_MAX)) * AGEING_MS_PER_POINT), id)
}

/// A waiting entry, as far as its lane knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) priority: u8,
    pub(super) run_at: Timestamp,
    pub(super) id: JobId,
}

impl Ready {
    pub(super) fn rank(&self) -> Rank {
        rank(self.priority, self.run_at, self.id)
    }
}

/// Entries by priority, then by due time. Within a priority that is the order of ranks, and the oldest entry of a
/// priority is its first, so both the next and the oldest entry cost one look at each priority in use.
#[derive(Debug, Default)]
pub(super) struct Line {
    bands: Vec<Band>,
    len: usize,
}

#[derive(Debug)]
struct Band {
    priority: u8,
    entries: BTreeSet<(Timestamp, JobId)>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn insert(&mut self, entry: Ready) {
        let band = match self.bands.iter().position(|band| band.priority == entry.priority) {
            Some(at) => &mut self.bands[at],
            None => {
                self.bands.push(Band { priority: entry.priority, entries: BTreeSet::new() });
                let last = self.bands.len() - 1;
                &mut self.bands[last]
            }
        };
        if band.entries.insert((entry.run_at, entry.id)) {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, entry: Ready) {
        if let Some(band) = self.bands.iter_mut().find(|band| band.priority == entry.priority)
            && band.entries.remove(&(entry.run_at, entry.id))
        {
            self.len -= 1;
        }
    }

    /// The entry whose turn is next.
    pub(super) fn head(&self) -> Option<Ready> {
        let heads = self
            .bands
            .iter()
            .filter_map(|band| band.entries.first().map(|&(run_at, id)| Ready { priority: band.priority, run_at, id }));
        heads.min_by_key(Ready::rank)
    }

    /// When the entry that has waited longest became ready.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.bands.iter().filter_map(|band| band.entries.first().map(|&(run_at, _)| run_at)).min()
    }

    /// How many entries rank before `rank`, counted up to `bound`.
    pub(super) fn ahead_of(&self, rank: Rank, bound: usize) -> usize {
        let mut ahead = 0;
        for band in &self.bands {
            let of_band = |&&(run_at, id): &&(Timestamp, JobId)| self::rank(band.priority, run_at, id) < rank;
            ahead += band.entries.iter().take(bound - ahead).take_while(of_band).count();
        }
        ahead
    }
}

/// Ready entries by track. Tracks that had an entry once keep their empty line until the lane goes: there are few.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<(Track, Line)>);

impl Lines {
    /// The tracks that have entries.
    pub(super) fn used(&self) -> Tracks {
        let mut used = Tracks::default();
        self.0.iter().filter(|(_, line)| !line.is_empty()).for_each(|(track, _)| used.insert(*track));
        used
    }

    pub(super) fn insert(&mut self, track: Track, entry: Ready) {
        match self.0.iter_mut().find(|(of, _)| *of == track) {
            Some((_, line)) => line.insert(entry),
            None => {
                let mut line = Line::default();
                line.insert(entry);
                self.0.push((track, line));
            }
        }
    }

    pub(super) fn remove(&mut self, track: Track, entry: Ready) {
        if let Some((_, line)) = self.0.iter_mut().find(|(of, _)| *of == track) {
            line.remove(entry);
        }
    }

    /// The entry whose turn is next, of the tracks that may be claimed.
    pub(super) fn head(&self, tracks: Tracks) -> Option<(Track, Ready)> {
        let may = self.0.iter().filter(|(track, _)| tracks.contains(*track));
        let heads = may.filter_map(|(track, line)| Some((*track, line.head()?)));
        heads.min_by_key(|(_, head)| head.rank())
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(_, line)| line.len as u64).sum()
    }

    /// When the entry that has waited longest became ready.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(|(_, line)| line.oldest()).min()
    }

    /// How many entries rank before `rank`, counted up to `bound`.
    pub(super) fn ahead_of(&self, rank: Rank, bound: usize) -> usize {
        self.0.iter().fold(0, |ahead, (_, line)| ahead + line.ahead_of(rank, bound - ahead))
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) group: u32,
    pub(super) tenant: Name,
    /// Turns in a round.
    pub(super) weight: u32,
    /// Its tenant sleeps: nothing of it can be claimed, and it stands nowhere.
    pub(super) asleep: bool,
    /// Its place in the rotation, while it has entries.
    pub(super) at: Position,
    pub(super) lines: Lines,
    /// Entries that refer to this lane: ready, due later, or leased. A lane that nothing refers to is dropped.
    pub(super) refs: usize,
}
