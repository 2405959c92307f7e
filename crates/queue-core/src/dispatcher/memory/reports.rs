//! What people ask: numbers of queues, and what a job waits for.

use super::{core::Core, rotation::Queue, waiting::Waiting};
use crate::{
    dispatcher::{QueueDepth, Wait},
    ids::{JobId, Name},
    time::Timestamp,
};

/// Entries that are counted at most to tell a job's place in its lane; beyond, its place is told as this number.
const PLACE_MAX: usize = 10_000;

impl Core {
    pub(super) fn depths(&mut self, now: Timestamp) -> Vec<QueueDepth> {
        self.pass_time(now);
        let rotation = &self.rotation;
        rotation.queue_keys.iter().map(|(name, key)| self.depth(name, &rotation.queues[*key])).collect()
    }

    fn depth(&self, name: &Name, queue: &Queue) -> QueueDepth {
        let mut depth = QueueDepth { queue: Some(name.clone()), ..QueueDepth::default() };
        (depth.active, depth.scheduled, depth.parked) = (queue.active, queue.scheduled, queue.blocked);
        for key in queue.groups.values() {
            let group = &self.rotation.groups[*key];
            if queue.paused || self.rotation.targets[group.target].sleeps() {
                depth.parked += group.ready;
                continue;
            }
            depth.parked += group.asleep;
            depth.waiting += group.ready - group.asleep;
            let oldest = group.lanes().filter_map(|lane| self.rotation.lanes[lane].lines.oldest()).min();
            depth.oldest_ready_at = depth.oldest_ready_at.into_iter().chain(oldest).min();
        }
        depth
    }

    pub(super) fn explain(&mut self, id: JobId, now: Timestamp) -> Vec<Wait> {
        self.pass_time(now);
        let Some(waiting) = self.waiting.get(&id) else { return vec![] };
        let queue = &self.rotation.queues[self.rotation.queue_of(waiting.lane)];
        let mut waits = Vec::new();
        if waiting.later() {
            waits.push(Wait::Delayed { until: waiting.run_at });
        }
        self.explain_blocks(waiting, queue, &mut waits);
        self.explain_workers(waiting, queue, now, &mut waits);
        if !waiting.later() {
            waits.push(self.explain_key(id, waiting, queue).unwrap_or_else(|| self.explain_turn(id, waiting, queue)));
        }
        waits
    }

    fn explain_blocks(&self, waiting: &Waiting, queue: &Queue, waits: &mut Vec<Wait>) {
        if let Some(settings) = queue.settings.as_ref().filter(|_| queue.paused) {
            let (until, reason) = (settings.value.paused_until, settings.value.reason.clone());
            waits.push(Wait::QueuePaused { until, reason });
        }
        if let Some(limit) = queue.concurrency().filter(|limit| queue.active >= u64::from(*limit)) {
            waits.push(Wait::QueueConcurrency { limit });
        }
        let lane = &self.rotation.lanes[waiting.lane];
        let tenant = self.rotation.tenants.get(&lane.tenant);
        if let Some(set) = tenant.filter(|set| set.paused) {
            let (until, reason) = (set.settings.value.paused_until, set.settings.value.reason.clone());
            waits.push(Wait::TenantPaused { until, reason });
        }
        if let Some((until, reason)) = tenant.and_then(|set| set.parked.clone()) {
            waits.push(Wait::TenantParked { until, reason });
        }
        let group = &self.rotation.groups[lane.group];
        let target = &self.rotation.targets[group.target];
        if let Some((until, reason)) = &target.parked {
            let (until, reason) = (*until, reason.clone());
            waits.push(Wait::TargetParked { target: target.name.to_string(), until, reason });
        }
        if let Some(settings) = target.settings.as_ref().filter(|_| target.held) {
            let (_, until, reason) = settings.value.held();
            waits.push(Wait::TargetPaused { target: target.name.to_string(), until, reason });
        }
        if let Some(reason) = target.tried.as_ref().filter(|_| target.is_being_tried() && !target.sleeps()) {
            waits.push(Wait::TargetTried { target: target.name.to_string(), reason: reason.clone() });
        }
        if let Some(limit) = target.limit.filter(|limit| target.active >= *limit) {
            waits.push(Wait::TargetConcurrency { target: target.name.to_string(), limit });
        }
    }

    fn explain_workers(&self, waiting: &Waiting, queue: &Queue, now: Timestamp, waits: &mut Vec<Wait>) {
        let mut serving =
            self.sessions.alive(now).filter(|session| session.serves(&queue.name, waiting.track)).peekable();
        if serving.peek().is_none() {
            waits.push(Wait::NoWorker);
        } else if waiting.track.is_isolated() && !serving.any(|session| session.may_claim_isolated()) {
            waits.push(Wait::OtherIsolated);
        }
    }

    /// Where its key keeps it out of its lane.
    fn explain_key(&self, id: JobId, waiting: &Waiting, queue: &Queue) -> Option<Wait> {
        let rank = waiting.ready(id).rank();
        let key = self.keys.of(id).filter(|key| key.is_blocked(rank))?;
        let (name, limit) = (key.name.to_string(), queue.key_concurrency());
        Some(Wait::ConcurrencyKey { key: name, limit, ahead: key.ahead_of(rank, PLACE_MAX) as u64 })
    }

    fn explain_turn(&self, id: JobId, waiting: &Waiting, queue: &Queue) -> Wait {
        let rank = waiting.ready(id).rank();
        let ahead = self.rotation.lanes[waiting.lane].lines.ahead_of(rank, PLACE_MAX);
        let groups = queue.groups.values().map(|key| &self.rotation.groups[*key]);
        let open = groups.filter(|group| self.rotation.targets[group.target].is_open());
        let lanes = open.map(|group| group.busy).sum::<u64>().max(1);
        Wait::Turn { ahead_in_lane: ahead as u64, lanes }
    }
}
