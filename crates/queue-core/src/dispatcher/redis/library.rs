//! The scripts, as one library: loaded as a Redis Function, or sent as a script where there are no Functions.
//!
//! Its name carries the version and a digest of its text, so that processes of two versions can share a Redis during a
//! rolling update: each calls its own.

use std::sync::LazyLock;

use redis::Script;

use crate::{
    dispatcher::{
        ASKED_MAX_SESSIONS, CLAIM_MAX_JOBS, CLOSED_MS, HORIZON_MS, LEASE_MS, SESSION_MS,
        tracks::{TRACK_COUNT, Tracks},
    },
    job::{AGEING_MS_PER_POINT, PRIORITY_MAX},
    journal::KEY_CONCURRENCY_DEFAULT,
};

/// Changes with the layout of the keys: another version's data is not read, so its keys have another prefix too.
pub(super) const VERSION: u32 = 7;
/// Arguments of one Redis command that a script makes: far below the 8,000 values that Lua's stack holds.
const UNPACK_MAX: usize = 1_000;
/// Entries that come due, or leases that expire, in one call: bounds the time for which Redis does nothing else.
const DUE_MAX: usize = 1_000;
/// Lanes of one target that are looked at for the oldest entry, and Lua's time for it.
const LANES_MAX: usize = 1_000;
/// Lanes of an old generation that one call of the sweep unlinks.
const SWEEP_MAX: usize = 100;
/// Concurrency keys that a change of their limit reaches in one call.
const REVIEW_MAX: usize = 500;
/// Entries that one call brings into their lanes or takes out of them because of their keys: more than a push or
/// a claim of the largest size needs, so that only a change of the limit goes on with the next call.
const MOVES_MAX: usize = 5_000;
/// Entries that are counted at most to tell a job's place in its lane; beyond, its place is told as this number.
const PLACE_MAX: usize = 10_000;
/// A dead session is forgotten after this: a laptop that slept longer joins again.
const FORGET_MS: i64 = 600_000;
/// One turn of a lane of weight 1: many numbers divide it, so that common weights share exactly, and it is above the
/// number of lanes that take turns in one queue.
const TURN: u32 = 55_440;
/// A queue that is empty begins to count its turns anew behind this, before 2^53, where doubles lose integers: that is
/// months of one lane that never empties, and then only the order of equal places suffers.
const TURN_MAX: u64 = 1 << 50;

const SOURCES: [&str; 8] = [
    include_str!("../../../lua/1_base.lua"),
    include_str!("../../../lua/2_rotation.lua"),
    include_str!("../../../lua/3_entries.lua"),
    include_str!("../../../lua/4_claim.lua"),
    include_str!("../../../lua/5_sessions.lua"),
    include_str!("../../../lua/6_work.lua"),
    include_str!("../../../lua/7_rest.lua"),
    include_str!("../../../lua/8_keys.lua"),
];

/// The library in both forms.
pub(crate) struct Library {
    /// Name of the library and of its one function.
    pub(crate) name: String,
    /// For `FUNCTION LOAD`.
    pub(crate) function: String,
    /// For `EVALSHA`.
    pub(crate) script: Script,
    /// The same as text, to load it.
    pub(crate) script_text: String,
}

/// The library of this version.
pub(super) static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let constants = format!(
        "local HORIZON_MS, LEASE_MS, SESSION_MS, CLAIM_MAX = {HORIZON_MS}, {LEASE_MS}, {SESSION_MS}, {CLAIM_MAX_JOBS}\n\
         local AGEING_MS, PRIORITY_MAX = {AGEING_MS_PER_POINT}, {PRIORITY_MAX}\n\
         local FORGET_MS, CLOSED_MS, ASKED_MAX = {FORGET_MS}, {CLOSED_MS}, {ASKED_MAX_SESSIONS}\n\
         local UNPACK_MAX, DUE_MAX, LANES_MAX, SWEEP_MAX = {UNPACK_MAX}, {DUE_MAX}, {LANES_MAX}, {SWEEP_MAX}\n\
         local REVIEW_MAX, MOVES_MAX, KEY_LIMIT = {REVIEW_MAX}, {MOVES_MAX}, {KEY_CONCURRENCY_DEFAULT}\n\
         local PLACE_MAX, TURN, TURN_MAX = {PLACE_MAX}, {TURN}, {TURN_MAX}\n\
         local TRACKS, ALL_TRACKS, PLAIN_TRACKS = {TRACK_COUNT}, {}, {}\n",
        Tracks::ALL.bits(),
        Tracks::ALL.plain().bits(),
    );
    let body = format!("{constants}{}", SOURCES.concat());
    Library::of(&format!("longshore_{VERSION}"), &body)
});

impl Library {
    /// A library whose one function is `run(keys, args)` of `body`; its name also carries a digest of the text.
    pub(crate) fn of(name: &str, body: &str) -> Self {
        let digest = blake3::hash(body.as_bytes()).to_hex();
        let name = format!("{name}_{}", &digest[..12]);
        let script_text = format!("{body}return run(KEYS, ARGV)\n");
        Self {
            function: format!("#!lua name={name}\n{body}redis.register_function('{name}', run)\n"),
            script: Script::new(&script_text),
            script_text,
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_is_for() {
        for source in SOURCES {
            assert!(source.starts_with("-- Purpose: "));
            assert!(source.contains("-- Invariant: "));
        }
        assert!(LIBRARY.name.starts_with(&format!("longshore_{VERSION}_")));
    }
}
