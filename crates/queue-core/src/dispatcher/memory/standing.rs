//! Who stands where in a rotation, by track.

use std::collections::BTreeMap;

use super::lane::Position;
use crate::dispatcher::tracks::{TRACK_COUNT, Track, Tracks};

/// An ordered map for each track. It knows in which of them anybody stands, so that the others cost nothing.
#[derive(Debug, Default)]
pub(super) struct Standing {
    by_track: [BTreeMap<Position, u32>; TRACK_COUNT],
    used: Tracks,
}

impl Standing {
    pub(super) fn used(&self) -> Tracks {
        self.used
    }

    pub(super) fn insert(&mut self, track: Track, at: Position, key: u32) {
        self.by_track[track.index()].insert(at, key);
        self.used.insert(track);
    }

    pub(super) fn remove(&mut self, track: Track, at: Position) {
        let map = &mut self.by_track[track.index()];
        map.remove(&at);
        if map.is_empty() {
            self.used.remove(track);
        }
    }

    /// Someone who stands at a place in some tracks goes to another place in others.
    pub(super) fn move_on(&mut self, from: Tracks, was: Position, to: Tracks, at: Position, key: u32) {
        from.iter().for_each(|track| self.remove(track, was));
        to.iter().for_each(|track| self.insert(track, at, key));
    }

    /// Who stands first, over these tracks.
    pub(super) fn first(&self, tracks: Tracks) -> Option<u32> {
        let heads = self.used.intersection(tracks).iter();
        let heads = heads.filter_map(|track| self.by_track[track.index()].first_key_value());
        heads.min_by_key(|(at, _)| **at).map(|(_, key)| *key)
    }

    /// Where the first of a track stands.
    pub(super) fn first_place(&self, track: Track) -> Option<Position> {
        self.by_track[track.index()].first_key_value().map(|(at, _)| *at)
    }

    /// Everyone; who stands in several tracks comes once for each.
    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        self.used.iter().flat_map(|track| self.by_track[track.index()].values().copied())
    }
}
