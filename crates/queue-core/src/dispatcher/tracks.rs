//! What is kept apart in a lane, so that a session skips at once whatever it may not claim: a track for each kind, and
//! one for the isolated jobs of each kind.
//!
//! A lane still has one place in the rotation whatever kinds its entries are of, and a session that serves several
//! kinds takes them in the order of their ranks. So turns, weights and limits are the same with and without
//! `worker.kinds`. Each level of a rotation knows which tracks are in use: kinds that nobody submits cost nothing.

use super::{Entry, Suspicion};
use crate::job::Kind;

/// Number of tracks.
pub(super) const TRACK_COUNT: usize = Kind::ALL.len() * 2;

/// A track. The number is part of the layout of keys and records in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Track(u8);

impl Track {
    pub(super) fn new(kind: Kind, isolated: bool) -> Self {
        let kind = match kind {
            Kind::Llm => 0,
            Kind::Embedding => 1,
            Kind::Analysis => 2,
            Kind::Probe => 3,
            Kind::Http => 4,
            Kind::Custom => 5,
        };
        Self(kind * 2 + u8::from(isolated))
    }

    pub(super) fn of(entry: &Entry) -> Self {
        Self::new(entry.kind, entry.suspicion == Suspicion::Isolated)
    }

    pub(super) fn is_isolated(self) -> bool {
        self.0 % 2 == 1
    }

    pub(super) fn number(self) -> u8 {
        self.0
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of tracks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tracks(u16);

impl Tracks {
    pub(super) const ALL: Self = Self((1 << TRACK_COUNT) - 1);
    const PLAIN: Self = Self(0b0101_0101_0101);

    /// Those of a session that serves these kinds (none named: all).
    pub(super) fn serving(kinds: &[Kind]) -> Self {
        if kinds.is_empty() {
            return Self::ALL;
        }
        let tracks = kinds.iter().flat_map(|kind| [Track::new(*kind, false), Track::new(*kind, true)]);
        tracks.fold(Self::default(), |mut all, track| {
            all.insert(track);
            all
        })
    }

    /// What is left where no isolated job may be claimed.
    pub(super) fn plain(self) -> Self {
        self.intersection(Self::PLAIN)
    }

    pub(super) fn contains(self, track: Track) -> bool {
        self.0 & 1 << track.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn insert(&mut self, track: Track) {
        self.0 |= 1 << track.0;
    }

    pub(super) fn remove(&mut self, track: Track) {
        self.0 &= !(1 << track.0);
    }

    pub(super) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn meets(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// One bit a track.
    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Track> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let track = (rest != 0).then(|| Track(rest.trailing_zeros() as u8))?;
            rest &= rest - 1;
            Some(track)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_tracks_of_their_own() {
        let numbers: Vec<_> =
            Kind::ALL.iter().flat_map(|kind| [false, true].map(|apart| Track::new(*kind, apart).0)).collect();
        assert_eq!(numbers, (0..TRACK_COUNT as u8).collect::<Vec<_>>());
        let some = Tracks::serving(&[Kind::Embedding, Kind::Probe]);
        assert_eq!(some.iter().map(Track::number).collect::<Vec<_>>(), [2, 3, 6, 7]);
        assert!(some.plain().iter().all(|track| !track.is_isolated()));
        assert_eq!(Tracks::serving(&[]), Tracks::serving(&Kind::ALL));
    }
}
