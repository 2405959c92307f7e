//! Whose turn it is: queues take turns, and within a queue its lanes do.
//!
//! Three ordered maps nest: the open queues, each queue's open groups (a group is the lanes of one target), each
//! group's lanes. "Open" means that something in it can be claimed now, so a claim looks at the first of each and at
//! nothing that is blocked. Parking a target or reaching its limit takes its groups out, one for each queue, however
//! many lanes and entries they hold.
//!
//! Turns are weighted round robin by virtual time: a lane that is served moves one turn (divided by its weight) behind
//! the queue's present turn, and a lane that gets its first entry joins there too. So whoever comes waits for at most
//! one round, and whoever empties and comes again gains nothing by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    lane::{Lane, Lines, Position, Ready},
    slab::Slab,
    standing::Standing,
};
use crate::{
    dispatcher::{
        WEIGHT_MAX,
        tracks::{TRACK_COUNT, Track, Tracks},
    },
    ids::{JobId, Name},
    journal::{KEY_CONCURRENCY_DEFAULT, QueueSettings, TargetSettings, TenantSettings, Versioned},
    time::Timestamp,
};

/// Turns of a tenant's lanes in a round.
fn weight_of(settings: &TenantSettings) -> u32 {
    settings.weight.clamp(1, WEIGHT_MAX)
}

/// One turn of a lane of weight 1; a power of two, so that common weights divide it well.
const TURN: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Name,
    pub(super) settings: Option<Versioned<QueueSettings>>,
    /// Paused now: set by the settings, cleared by them or by the end of the pause.
    pub(super) paused: bool,
    pub(super) active: u64,
    pub(super) scheduled: u64,
    /// Due entries that wait for a place of their concurrency key.
    pub(super) blocked: u64,
    /// By target.
    pub(super) groups: HashMap<u32, u32>,
    /// The turn that was served last.
    turn: u64,
    open: Standing,
    /// Its own place among the queues, and in which tracks it stands there.
    at: Position,
    listed: Tracks,
}

impl Queue {
    /// Jobs of it that may run at once.
    pub(super) fn concurrency(&self) -> Option<u32> {
        self.settings.as_ref().and_then(|settings| settings.value.concurrency)
    }

    /// Jobs of one concurrency key that may run at once.
    pub(super) fn key_concurrency(&self) -> u32 {
        self.settings.as_ref().map_or(KEY_CONCURRENCY_DEFAULT, |settings| settings.value.key_limit())
    }

    fn admits(&self) -> bool {
        !self.paused && self.concurrency().is_none_or(|limit| self.active < u64::from(limit))
    }
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: Name,
    pub(super) limit: Option<u32>,
    pub(super) active: u32,
    /// Until when, and why; cleared when the time has come.
    pub(super) parked: Option<(Timestamp, String)>,
    /// It wakes with one job at a time, and why.
    pub(super) tried: Option<String>,
    pub(super) settings: Option<Versioned<TargetSettings>>,
    /// Held now: set by the settings, cleared by them or by the end of the pause.
    pub(super) held: bool,
    open: bool,
    groups: Vec<u32>,
}

impl Target {
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether nothing of it can be claimed, however many of its jobs run.
    pub(super) fn sleeps(&self) -> bool {
        self.held || self.parked.is_some()
    }

    /// Whether the one job that tries it is running.
    pub(super) fn is_being_tried(&self) -> bool {
        self.tried.is_some() && self.active > 0
    }

    fn admits(&self) -> bool {
        !self.sleeps() && !self.is_being_tried() && self.limit.is_none_or(|limit| self.active < limit)
    }
}

/// What is set for a tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) settings: Versioned<TenantSettings>,
    /// Paused now: set by the settings, cleared by them or by the end of the pause.
    pub(super) paused: bool,
    /// Until when and why a budget keeps it asleep; cleared when the time has come.
    pub(super) parked: Option<(Timestamp, String)>,
}

impl Tenant {
    /// Whether its lanes sleep.
    pub(super) fn asleep(&self) -> bool {
        self.paused || self.parked.is_some()
    }
}

/// The lanes of one target in one queue.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) queue: u32,
    pub(super) target: u32,
    by_tenant: HashMap<Name, u32>,
    lanes: Standing,
    /// Where it stands in its queue's open groups: at the place of its first lane.
    places: [Option<Position>; TRACK_COUNT],
    /// The tracks in which it stands there.
    listed: Tracks,
    /// Ready entries.
    pub(super) ready: u64,
    /// Those of them whose tenant sleeps.
    pub(super) asleep: u64,
    /// Lanes that have ready entries and whose tenant is awake.
    pub(super) busy: u64,
}

impl Group {
    /// Lanes that have ready entries; one that has entries of several tracks comes once for each.
    pub(super) fn lanes(&self) -> impl Iterator<Item = u32> {
        self.lanes.all()
    }
}

/// What changes by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Target(u32),
    /// The pause that its settings say.
    HeldTarget(u32),
    Tenant(Name),
    /// A budget's park.
    ParkedTenant(Name),
    Queue(u32),
    /// Keys of the queue have yet to hear of a new limit.
    Keys(u32),
}

/// An entry whose turn has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) id: JobId,
    pub(super) run_at: Timestamp,
    pub(super) lane: u32,
}

#[derive(Debug, Default)]
pub(super) struct Rotation {
    pub(super) queues: Slab<Queue>,
    pub(super) queue_keys: BTreeMap<Name, u32>,
    pub(super) targets: Slab<Target>,
    pub(super) target_keys: HashMap<Name, u32>,
    pub(super) groups: Slab<Group>,
    pub(super) lanes: Slab<Lane>,
    pub(super) tenants: HashMap<Name, Tenant>,
    /// Of targets, and of all that begin so where the name ends in `*`.
    pub(super) limits: HashMap<Name, u32>,
    open: Standing,
    turn: u64,
    sequence: u64,
    pub(super) timers: BTreeSet<(Timestamp, Timer)>,
    /// Queues in which something became claimable since it was last asked; may repeat.
    stirred: Vec<u32>,
}

impl Rotation {
    /// The lane of these three, made if it is new. The caller adds a reference.
    pub(super) fn lane(&mut self, queue: &Name, tenant: &Name, target: &Name) -> u32 {
        let queue = self.queue(queue);
        let target = self.target(target);
        let group = self.group(queue, target);
        if let Some(&lane) = self.groups[group].by_tenant.get(tenant) {
            return lane;
        }
        let set = self.tenants.get(tenant);
        let (weight, asleep) = set.map_or((1, false), |set| (weight_of(&set.settings.value), set.asleep()));
        let (tenant_name, lines) = (tenant.clone(), Lines::default());
        let lane = self.lanes.insert(Lane { group, tenant: tenant_name, weight, asleep, at: (0, 0), lines, refs: 0 });
        self.groups[group].by_tenant.insert(tenant.clone(), lane);
        lane
    }

    pub(super) fn queue(&mut self, name: &Name) -> u32 {
        if let Some(&key) = self.queue_keys.get(name) {
            return key;
        }
        let key = self.queues.insert(Queue {
            name: name.clone(),
            settings: None,
            paused: false,
            active: 0,
            scheduled: 0,
            blocked: 0,
            groups: HashMap::new(),
            turn: 0,
            open: Standing::default(),
            at: (0, 0),
            listed: Tracks::default(),
        });
        self.queue_keys.insert(name.clone(), key);
        key
    }

    pub(super) fn target(&mut self, name: &Name) -> u32 {
        if let Some(&key) = self.target_keys.get(name) {
            return key;
        }
        let name = name.clone();
        let limit = self.limit_of(&name);
        let key = self.targets.insert(Target {
            name: name.clone(),
            limit,
            active: 0,
            parked: None,
            tried: None,
            settings: None,
            held: false,
            open: limit != Some(0),
            groups: vec![],
        });
        self.target_keys.insert(name, key);
        key
    }

    /// The limit that is set for this target: its own, or that of the longest pattern that speaks for it.
    pub(super) fn limit_of(&self, target: &Name) -> Option<u32> {
        let own = self.limits.get(target).copied();
        own.or_else(|| {
            let patterns =
                self.limits.iter().filter_map(|(name, limit)| Some((name.as_str().strip_suffix('*')?, *limit)));
            let spoken_for = patterns.filter(|(prefix, _)| target.as_str().starts_with(prefix));
            spoken_for.max_by_key(|(prefix, _)| prefix.len()).map(|(_, limit)| limit)
        })
    }

    fn group(&mut self, queue: u32, target: u32) -> u32 {
        if let Some(&key) = self.queues[queue].groups.get(&target) {
            return key;
        }
        let key = self.groups.insert(Group {
            queue,
            target,
            by_tenant: HashMap::new(),
            lanes: Standing::default(),
            places: [None; TRACK_COUNT],
            listed: Tracks::default(),
            ready: 0,
            asleep: 0,
            busy: 0,
        });
        self.queues[queue].groups.insert(target, key);
        self.targets[target].groups.push(key);
        key
    }

    /// Queue of a lane.
    pub(super) fn queue_of(&self, lane: u32) -> u32 {
        self.groups[self.lanes[lane].group].queue
    }

    pub(super) fn add_ref(&mut self, lane: u32) {
        self.lanes[lane].refs += 1;
    }

    /// Drops a lane that nothing refers to any more, and what is empty without it, so that tenants, targets and queues
    /// that come and go leave nothing behind.
    pub(super) fn drop_ref(&mut self, lane: u32) {
        self.lanes[lane].refs -= 1;
        if self.lanes[lane].refs > 0 {
            return;
        }
        let group = self.lanes[lane].group;
        self.lanes.remove(lane);
        self.groups[group].by_tenant.remove(&self.lanes[lane].tenant);
        if !self.groups[group].by_tenant.is_empty() {
            return;
        }
        let Group { queue, target, .. } = self.groups[group];
        self.groups.remove(group);
        self.queues[queue].groups.remove(&target);
        self.targets[target].groups.retain(|other| *other != group);
        self.drop_idle_target(target);
        if self.queues[queue].groups.is_empty() && self.queues[queue].settings.is_none() {
            self.queue_keys.remove(&self.queues[queue].name);
            self.queues.remove(queue);
        }
    }

    pub(super) fn drop_idle_target(&mut self, key: u32) {
        let target = &self.targets[key];
        if target.groups.is_empty() && target.parked.is_none() && target.tried.is_none() && target.settings.is_none() {
            self.target_keys.remove(&target.name);
            self.targets.remove(key);
        }
    }

    /// A ready entry joins its lane.
    pub(super) fn add(&mut self, lane: u32, track: Track, entry: Ready) {
        let key = lane;
        let group = self.lanes[lane].group;
        let queue = self.groups[group].queue;
        let used = self.lanes[lane].lines.used();
        if used.is_empty() {
            self.lanes[lane].at = self.behind(self.queues[queue].turn, self.lanes[lane].weight);
            self.groups[group].busy += u64::from(!self.lanes[lane].asleep);
        }
        let lane = &mut self.lanes[lane];
        lane.lines.insert(track, entry);
        let (at, asleep) = (lane.at, lane.asleep);
        self.groups[group].ready += 1;
        if asleep {
            self.groups[group].asleep += 1;
            return;
        }
        if !used.contains(track) {
            self.groups[group].lanes.insert(track, at, key);
            self.refresh_group(group);
        }
        if self.groups[group].listed.contains(track) && self.queues[queue].listed.contains(track) {
            self.stir(queue);
        }
    }

    /// A waiting entry leaves its lane without having had its turn.
    pub(super) fn cut(&mut self, lane: u32, track: Track, entry: Ready) {
        let group = self.lanes[lane].group;
        let lane = &mut self.lanes[lane];
        lane.lines.remove(track, entry);
        let (at, asleep, used) = (lane.at, lane.asleep, lane.lines.used());
        self.groups[group].ready -= 1;
        self.groups[group].asleep -= u64::from(asleep);
        if used.is_empty() {
            self.groups[group].busy -= u64::from(!asleep);
        }
        if !used.contains(track) && !asleep {
            self.groups[group].lanes.remove(track, at);
            self.refresh_group(group);
        }
    }

    /// The entry whose turn it is, of these queues (none named: of all) and of these tracks. It counts as active
    /// from here on.
    pub(super) fn take(&mut self, queues: Option<&[u32]>, tracks: Tracks) -> Option<Taken> {
        let queue = match queues {
            None => self.open.first(tracks)?,
            Some(named) => {
                let open = named.iter().filter(|key| self.is_open(**key, tracks));
                *open.min_by_key(|key| self.queues[**key].at)?
            }
        };
        let group = self.queues[queue].open.first(tracks)?;
        let key = self.groups[group].lanes.first(tracks)?;
        let (track, entry) = self.lanes[key].lines.head(tracks)?;

        let was = self.lanes[key].at;
        self.queues[queue].turn = self.queues[queue].turn.max(was.0);
        let at = self.behind(self.queues[queue].turn, self.lanes[key].weight);
        let lane = &mut self.lanes[key];
        lane.at = at;
        let had = lane.lines.used();
        lane.lines.remove(track, entry);
        let used = lane.lines.used();
        let in_group = &mut self.groups[group];
        in_group.ready -= 1;
        if used.is_empty() {
            in_group.busy -= 1;
        }
        in_group.lanes.move_on(had, was, used, at, key);
        self.queues[queue].active += 1;
        let target = in_group.target;
        self.targets[target].active += 1;
        self.refresh_group(group);
        self.refresh_target(target);
        self.end_turn(queue);
        Some(Taken { id: entry.id, run_at: entry.run_at, lane: key })
    }

    /// A claim of this lane is held that was taken from another life of the dispatcher: limits count it, turns do not.
    pub(super) fn hold(&mut self, lane: u32) {
        let Group { queue, target, .. } = self.groups[self.lanes[lane].group];
        self.queues[queue].active += 1;
        self.targets[target].active += 1;
        self.refresh_target(target);
        self.refresh_queue(queue);
    }

    /// A claim of this lane ended.
    pub(super) fn release(&mut self, lane: u32) {
        let Group { queue, target, .. } = self.groups[self.lanes[lane].group];
        self.queues[queue].active -= 1;
        self.targets[target].active -= 1;
        self.refresh_target(target);
        self.refresh_queue(queue);
    }

    /// Whether something of the queue can be claimed by a session that may claim these tracks.
    pub(super) fn is_open(&self, queue: u32, tracks: Tracks) -> bool {
        self.queues[queue].listed.meets(tracks)
    }

    /// Likewise, of these queues (none named: of all).
    pub(super) fn any_open(&self, queues: &[Name], tracks: Tracks) -> bool {
        if queues.is_empty() {
            return self.open.used().meets(tracks);
        }
        let mut keys = queues.iter().filter_map(|name| self.queue_keys.get(name));
        keys.any(|key| self.is_open(*key, tracks))
    }

    /// Queues in which something became claimable since the last call; may repeat.
    pub(super) fn take_stirred(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.stirred)
    }

    /// Brings a tenant's lanes to what is set. Looks at every lane: a thing of starts and of operators.
    pub(super) fn refresh_tenant(&mut self, tenant: &Name) {
        let Some(set) = self.tenants.get(tenant) else { return };
        let (weight, asleep) = (weight_of(&set.settings.value), set.asleep());
        for key in self.lanes.keys_where(|lane| lane.tenant == *tenant && lane.refs > 0) {
            let lane = &mut self.lanes[key];
            lane.weight = weight;
            if std::mem::replace(&mut lane.asleep, asleep) == asleep {
                continue;
            }
            let (group, at, used, ready) = (lane.group, lane.at, lane.lines.used(), lane.lines.len());
            let of = &mut self.groups[group];
            if asleep {
                of.asleep += ready;
                of.busy -= u64::from(ready > 0);
                used.iter().for_each(|track| of.lanes.remove(track, at));
            } else {
                of.asleep -= ready;
                of.busy += u64::from(ready > 0);
                // Behind the others, as if it had just come: who slept has not saved turns up.
                let at = self.behind(self.queues[self.groups[group].queue].turn, weight);
                self.lanes[key].at = at;
                used.iter().for_each(|track| self.groups[group].lanes.insert(track, at, key));
            }
            self.refresh_group(group);
        }
    }

    /// A job of the lane has ended for good: its target works, as far as one job can tell.
    pub(super) fn note_end(&mut self, lane: u32) {
        let target = self.groups[self.lanes[lane].group].target;
        if self.targets[target].tried.is_some() && !self.targets[target].sleeps() {
            self.targets[target].tried = None;
            self.refresh_target(target);
        }
    }

    /// Looks again whether the target may be claimed from, and opens or closes its groups.
    pub(super) fn refresh_target(&mut self, key: u32) {
        let target = &mut self.targets[key];
        let open = target.admits();
        if open == target.open {
            return;
        }
        target.open = open;
        for at in 0..self.targets[key].groups.len() {
            self.refresh_group(self.targets[key].groups[at]);
        }
    }

    /// Looks again whether the queue has something to claim.
    pub(super) fn refresh_queue(&mut self, key: u32) {
        let admits = self.queues[key].admits();
        let queue = &self.queues[key];
        let open = if admits { queue.open.used() } else { Tracks::default() };
        let was = queue.listed;
        if open == was {
            return;
        }
        if was.is_empty() {
            self.queues[key].at = self.behind(self.turn, 1);
        }
        let at = self.queues[key].at;
        self.open.move_on(was, at, open, at, key);
        self.queues[key].listed = open;
        if !open.is_subset(was) {
            self.stir(key);
        }
    }

    fn refresh_group(&mut self, key: u32) {
        let Group { queue, target, listed, .. } = self.groups[key];
        let target_open = self.targets[target].open;
        for track in listed.union(self.groups[key].lanes.used()).iter() {
            let group = &mut self.groups[key];
            let place = if target_open { group.lanes.first_place(track) } else { None };
            let was = std::mem::replace(&mut group.places[track.index()], place);
            if place == was {
                continue;
            }
            let open = &mut self.queues[queue].open;
            if let Some(was) = was {
                open.remove(track, was);
                group.listed.remove(track);
            }
            if let Some(place) = place {
                open.insert(track, place, key);
                group.listed.insert(track);
            }
            if was.is_none() && self.queues[queue].listed.contains(track) {
                self.stir(queue);
            }
        }
        self.refresh_queue(queue);
    }

    /// The queue was served: it stands behind the others now.
    fn end_turn(&mut self, key: u32) {
        let was = self.queues[key].at;
        self.turn = self.turn.max(was.0);
        let at = self.behind(self.turn, 1);
        let queue = &mut self.queues[key];
        queue.at = at;
        self.open.move_on(queue.listed, was, queue.listed, at, key);
        self.refresh_queue(key);
    }

    /// The place one turn behind `turn`, after everyone who stands there already.
    fn behind(&mut self, turn: u64, weight: u32) -> Position {
        self.sequence += 1;
        (turn + TURN / u64::from(weight.max(1)), self.sequence)
    }

    fn stir(&mut self, queue: u32) {
        if self.stirred.last() != Some(&queue) {
            self.stirred.push(queue);
        }
    }
}
