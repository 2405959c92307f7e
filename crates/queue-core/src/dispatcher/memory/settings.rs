//! What stops claims, and what starts them again by itself.

use super::rotation::{Rotation, Tenant, Timer};
use crate::{
    dispatcher::Setting,
    ids::Name,
    journal::{QueueSettings, TargetSettings, TenantSettings, Versioned},
    time::Timestamp,
};

/// The version of what nobody has set.
const UNSET: i64 = -1;

impl Rotation {
    /// Returns the queue whose keys have another limit now.
    pub(super) fn apply(&mut self, setting: Setting, now: Timestamp) -> Option<u32> {
        match setting {
            Setting::Queue(name, settings) => {
                let key = self.queue(&name);
                let was = self.queues[key].key_concurrency();
                self.set_queue(key, settings, now);
                return (self.queues[key].key_concurrency() != was).then_some(key);
            }
            Setting::TargetConcurrency(name, limit) => self.set_limit(name, limit),
            Setting::ParkTarget { target, until, reason } => {
                let key = self.target(&target);
                if until <= now {
                    self.targets[key].tried = None;
                }
                self.park_for_longer(key, until, reason, now);
                self.drop_idle_target(key);
            }
            Setting::TryTarget { target, from, reason } => {
                let key = self.target(&target);
                self.targets[key].tried = Some(reason.clone());
                self.park_for_longer(key, from, reason, now);
            }
            Setting::Target(name, settings) => self.set_target(&name, settings, now),
            Setting::ParkTenant { tenant, until, reason } => {
                self.park_tenant(tenant, Some((until, reason)).filter(|_| until > now));
            }
            Setting::Tenant(tenant, settings) => self.set_tenant(tenant, settings, now),
        }
        None
    }

    fn set_queue(&mut self, key: u32, settings: Versioned<QueueSettings>, now: Timestamp) {
        let held = &self.queues[key].settings;
        if held.as_ref().is_some_and(|held| held.version > settings.version) {
            return;
        }
        if let Some(until) = held.as_ref().and_then(|held| held.value.paused_until) {
            self.timers.remove(&(until, Timer::Queue(key)));
        }
        let QueueSettings { paused, paused_until, .. } = settings.value;
        self.queues[key].paused = paused && paused_until.is_none_or(|until| until > now);
        if let Some(until) = paused_until.filter(|_| self.queues[key].paused) {
            self.timers.insert((until, Timer::Queue(key)));
        }
        self.queues[key].settings = Some(settings);
        self.refresh_queue(key);
    }

    fn set_target(&mut self, name: &Name, settings: Versioned<TargetSettings>, now: Timestamp) {
        let key = self.target(name);
        let known = self.targets[key].settings.as_ref();
        if known.is_some_and(|known| known.version > settings.version) {
            return;
        }
        if let (_, Some(until), _) = known.map(|known| known.value.held()).unwrap_or_default() {
            self.timers.remove(&(until, Timer::HeldTarget(key)));
        }
        let hold = settings.value.hold(now);
        if let Some((Some(until), _)) = hold {
            self.timers.insert((until, Timer::HeldTarget(key)));
        }
        self.targets[key].held = hold.is_some();
        self.targets[key].settings = Some(settings);
        self.refresh_target(key);
    }

    fn set_tenant(&mut self, name: Name, settings: Versioned<TenantSettings>, now: Timestamp) {
        let mut parked = None;
        if let Some(known) = self.tenants.get(&name) {
            if known.settings.version > settings.version {
                return;
            }
            if let Some(until) = known.settings.value.paused_until {
                self.timers.remove(&(until, Timer::Tenant(name.clone())));
            }
            parked = known.parked.clone();
        }
        let TenantSettings { paused, paused_until, .. } = settings.value;
        let paused = paused && paused_until.is_none_or(|until| until > now);
        if let Some(until) = paused_until.filter(|_| paused) {
            self.timers.insert((until, Timer::Tenant(name.clone())));
        }
        self.tenants.insert(name.clone(), Tenant { settings, paused, parked });
        self.refresh_tenant(&name);
    }

    fn park_tenant(&mut self, name: Name, parked: Option<(Timestamp, String)>) {
        let unset = || Tenant {
            settings: Versioned { version: UNSET, value: TenantSettings::default() },
            paused: false,
            parked: None,
        };
        let tenant = self.tenants.entry(name.clone()).or_insert_with(unset);
        if let Some((until, _)) = tenant.parked.take() {
            self.timers.remove(&(until, Timer::ParkedTenant(name.clone())));
        }
        if let Some((until, _)) = &parked {
            self.timers.insert((*until, Timer::ParkedTenant(name.clone())));
        }
        tenant.parked = parked;
        let is_unset = tenant.settings.version == UNSET && tenant.parked.is_none();
        self.refresh_tenant(&name);
        if is_unset {
            self.tenants.remove(&name);
        }
    }

    /// Looks at every target when the name is a pattern: a thing of starts and of operators.
    fn set_limit(&mut self, name: Name, limit: Option<u32>) {
        let keys: Vec<u32> = match name.as_str().strip_suffix('*') {
            None => vec![self.target(&name)],
            Some(prefix) => {
                let concerned = self.target_keys.iter().filter(|(target, _)| target.as_str().starts_with(prefix));
                concerned.map(|(_, key)| *key).collect()
            }
        };
        match limit {
            Some(limit) => self.limits.insert(name, limit),
            None => self.limits.remove(&name),
        };
        for key in keys {
            self.targets[key].limit = self.limit_of(&self.targets[key].name);
            self.refresh_target(key);
            self.drop_idle_target(key);
        }
    }

    /// What two parts want is the longer of both; a moment that has passed ends all of it.
    fn park_for_longer(&mut self, key: u32, until: Timestamp, reason: String, now: Timestamp) {
        let held = self.targets[key].parked.as_ref().map(|(held, _)| *held);
        if until <= now || held.is_none_or(|held| until > held) {
            self.park(key, Some((until, reason)).filter(|_| until > now));
        }
    }

    fn park(&mut self, key: u32, parked: Option<(Timestamp, String)>) {
        if let Some((until, _)) = self.targets[key].parked.take() {
            self.timers.remove(&(until, Timer::Target(key)));
        }
        if let Some((until, _)) = &parked {
            self.timers.insert((*until, Timer::Target(key)));
        }
        self.targets[key].parked = parked;
        self.refresh_target(key);
    }

    /// Ends the pauses and parkings whose time has come. Returns the queues whose keys have yet to hear of their limit.
    pub(super) fn pass_time(&mut self, now: Timestamp) -> Vec<u32> {
        let mut reviews = Vec::new();
        while self.timers.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, timer)) = self.timers.pop_first() else { break };
            match timer {
                Timer::Target(key) => {
                    self.park(key, None);
                    self.drop_idle_target(key);
                }
                Timer::HeldTarget(key) => {
                    self.targets[key].held = false;
                    self.refresh_target(key);
                }
                Timer::Tenant(name) => {
                    if let Some(tenant) = self.tenants.get_mut(&name) {
                        tenant.paused = false;
                    }
                    self.refresh_tenant(&name);
                }
                Timer::ParkedTenant(name) => self.park_tenant(name, None),
                Timer::Queue(key) => {
                    self.queues[key].paused = false;
                    self.refresh_queue(key);
                }
                Timer::Keys(key) => reviews.push(key),
            }
        }
        reviews
    }
}
