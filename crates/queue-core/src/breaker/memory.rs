//! The circuits of one process: the embedded mode's, and the specification of those in Redis.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Ask, BUCKET_MS, BUCKETS, Breakers, By, CALLS_MIN, CIRCUITS_MAX, Change, CircuitView, End, Ended, FORGET_MS, Leave,
    PROBE_MS, ProbeId, Refusal, State, cut, open_ms,
};
use crate::{
    dispatcher::DispatchError,
    ids::Name,
    journal::{BreakerMode, TargetSettings, Versioned},
    time::{Clock, Timestamp},
};

/// Circuits in memory.
pub struct MemoryBreakers {
    held: Mutex<Held>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Held {
    circuits: BTreeMap<Name, Circuit>,
    settings: BTreeMap<Name, Versioned<TargetSettings>>,
}

#[derive(Default)]
struct Circuit {
    /// By bucket: its number, calls, failures.
    buckets: [(i64, u32, u32); BUCKETS as usize],
    open: Option<Open>,
    touched: Timestamp,
}

struct Open {
    until: Timestamp,
    failed_probes: u32,
    reason: String,
    /// The probe, and when its place is lost.
    probe: Option<(ProbeId, Timestamp)>,
}

impl Circuit {
    fn count(&mut self, successes: u32, failures: u32, now: Timestamp) {
        let number = now.0.div_euclid(BUCKET_MS);
        let bucket = &mut self.buckets[number.rem_euclid(BUCKETS) as usize];
        if bucket.0 != number {
            *bucket = (number, 0, 0);
        }
        bucket.1 = bucket.1.saturating_add(successes.saturating_add(failures));
        bucket.2 = bucket.2.saturating_add(failures);
    }

    /// Calls and failures of the window.
    fn sums(&self, now: Timestamp) -> (u32, u32) {
        let number = now.0.div_euclid(BUCKET_MS);
        let recent = self.buckets.iter().filter(|bucket| number - bucket.0 < BUCKETS && bucket.0 <= number);
        recent.fold((0, 0), |(calls, failures), bucket| {
            (calls.saturating_add(bucket.1), failures.saturating_add(bucket.2))
        })
    }

    fn trip(&mut self, failed_probes: u32, for_ms: i64, reason: String, by: By, now: Timestamp) -> Change {
        let until = now.plus_ms(for_ms);
        self.buckets = Default::default();
        self.open = Some(Open { until, failed_probes, reason: reason.clone(), probe: None });
        Change::Opened(refused(by, until, reason, now))
    }

    fn close(&mut self) {
        *self = Self { touched: self.touched, ..Self::default() };
    }

    /// What stands against a call of this caller; `Ok(true)`: it would be the probe.
    fn admits(&self, by: By, probe: ProbeId, now: Timestamp) -> Result<bool, Refusal> {
        let Some(open) = &self.open else { return Ok(false) };
        if now < open.until {
            return Err(refused(by, open.until, open.reason.clone(), now));
        }
        match open.probe {
            Some((other, until)) if other != probe && until > now => {
                Err(refused(by, until, format!("{}; one call is trying it", open.reason), now))
            }
            _ => Ok(true),
        }
    }

    fn view(&self, name: &Name, now: Timestamp) -> CircuitView {
        let (calls, failures) = self.sums(now);
        let open = self.open.as_ref();
        CircuitView {
            circuit: name.clone(),
            state: open.map_or(State::Closed, |open| if now < open.until { State::Open } else { State::HalfOpen }),
            until: open.map(|open| open.until),
            failed_probes: open.map_or(0, |open| open.failed_probes),
            probing: open.is_some_and(|open| open.probe.is_some_and(|(_, until)| until > now)),
            reason: open.map(|open| open.reason.clone()),
            calls,
            failures,
        }
    }
}

fn refused(by: By, until: Timestamp, reason: String, now: Timestamp) -> Refusal {
    Refusal { by, until: Some(until), wait_ms: Some(until.since_ms(now) as u64), reason }
}

impl Held {
    /// The circuit of this name, made if it is new; those that nobody uses any more go first, then closed ones, which know
    /// little: tenants can name models that nobody has, and those must not push an open one out.
    fn circuit(&mut self, name: &Name, now: Timestamp) -> &mut Circuit {
        if !self.circuits.contains_key(name) && self.circuits.len() >= CIRCUITS_MAX {
            self.circuits.retain(|_, circuit| now.since_ms(circuit.touched) < FORGET_MS);
            if self.circuits.len() >= CIRCUITS_MAX {
                let oldest = |open: bool| {
                    let of_state = self.circuits.iter().filter(|(_, circuit)| circuit.open.is_some() == open);
                    of_state.min_by_key(|(_, circuit)| circuit.touched).map(|(name, _)| name.clone())
                };
                if let Some(name) = oldest(false).or_else(|| oldest(true)) {
                    self.circuits.remove(&name);
                }
            }
        }
        let circuit = self.circuits.entry(name.clone()).or_default();
        circuit.touched = now;
        circuit
    }

    fn mode(&self, target: &Name) -> BreakerMode {
        self.settings.get(target).map_or(BreakerMode::Auto, |settings| settings.value.breaker)
    }

    fn enter(&mut self, ask: &Ask, now: Timestamp) -> Leave {
        if ask.successes > 0 {
            let circuit = self.circuit(&ask.target, now);
            if circuit.open.is_none() {
                circuit.count(ask.successes, 0, now);
            }
        } else {
            self.circuit(&ask.target, now);
        }
        if let Some((until, reason)) = self.settings.get(&ask.target).and_then(|settings| settings.value.hold(now)) {
            let wait_ms = until.map(|until| until.since_ms(now) as u64);
            return Leave::Refused(Refusal { by: By::Operator, until, wait_ms, reason });
        }
        let ignores = self.mode(&ask.target) == BreakerMode::Close;
        let admits = |name: &Name, by| match self.circuits.get(name) {
            Some(circuit) => circuit.admits(by, ask.probe, now),
            None => Ok(false),
        };
        let account = match admits(&ask.account, By::Account) {
            Ok(account) => account,
            Err(refusal) => return Leave::Refused(refusal),
        };
        let target = match admits(&ask.target, By::Failures) {
            _ if ignores => false,
            Ok(target) => target,
            Err(refusal) => return Leave::Refused(refusal),
        };
        for name in [target.then_some(&ask.target), account.then_some(&ask.account)].into_iter().flatten() {
            if let Some(open) = self.circuit(name, now).open.as_mut() {
                open.probe = Some((ask.probe, now.plus_ms(PROBE_MS)));
            }
        }
        if target || account { Leave::Probe { target, account } } else { Leave::Given }
    }

    fn end(&mut self, ended: &Ended, now: Timestamp) -> Change {
        let Ended { circuit: name, probe, end, successes, reason } = ended;
        let by = if name.as_str().contains(":*:") { By::Account } else { By::Failures };
        let ignores = self.mode(name) == BreakerMode::Close;
        let circuit = self.circuit(name, now);
        if let Some(open) = &mut circuit.open {
            let is_probe = open.probe.is_some_and(|(other, _)| other == *probe);
            let failed = open.failed_probes + 1;
            return match end {
                End::Failure if !is_probe && !ignores && now < open.until => {
                    Change::StoodOpen(refused(by, open.until, open.reason.clone(), now))
                }
                _ if !is_probe => Change::None,
                End::Success | End::Answered => {
                    *circuit = Circuit { touched: now, ..Circuit::default() };
                    Change::Closed
                }
                End::Unknown => {
                    open.probe = None;
                    Change::None
                }
                End::Failure => circuit.trip(failed, open_ms(failed), probe_failed(reason), by, now),
                End::Exhausted(for_ms) => circuit.trip(failed, ms(*for_ms), cut(reason).to_owned(), by, now),
            };
        }
        if let End::Exhausted(for_ms) = end {
            return circuit.trip(0, ms(*for_ms), cut(reason).to_owned(), by, now);
        }
        let failed = *end == End::Failure;
        circuit.count(successes + u32::from(*end == End::Success), u32::from(failed), now);
        let (calls, failures) = circuit.sums(now);
        if ignores || !failed || calls < CALLS_MIN || failures.saturating_mul(2) < calls {
            return Change::None;
        }
        circuit.trip(0, open_ms(0), many_failed(failures, calls, reason), by, now)
    }
}

fn ms(for_ms: u64) -> i64 {
    i64::try_from(for_ms).unwrap_or(i64::MAX)
}

fn probe_failed(reason: &str) -> String {
    format!("the call that tried it failed: {}", cut(reason))
}

fn many_failed(failures: u32, calls: u32, reason: &str) -> String {
    format!("{failures} of {calls} calls failed within 30 s, the last with: {}", cut(reason))
}

impl MemoryBreakers {
    /// All circuits are closed.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { held: Mutex::default(), clock }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Breakers for MemoryBreakers {
    async fn enter(&self, ask: Ask) -> Result<Leave, DispatchError> {
        let now = self.clock.now();
        Ok(self.held().enter(&ask, now))
    }

    async fn end(&self, ended: Ended) -> Result<Change, DispatchError> {
        let now = self.clock.now();
        Ok(self.held().end(&ended, now))
    }

    async fn renew(&self, circuits: &[Name], probe: ProbeId) -> Result<(), DispatchError> {
        let now = self.clock.now();
        let mut held = self.held();
        for name in circuits {
            if let Some(open) = held.circuit(name, now).open.as_mut()
                && let Some((_, until)) = open.probe.as_mut().filter(|(other, _)| *other == probe)
            {
                *until = now.plus_ms(PROBE_MS);
            }
        }
        Ok(())
    }

    async fn set(&self, target: &Name, settings: Versioned<TargetSettings>) -> Result<(), DispatchError> {
        let mut held = self.held();
        if held.settings.get(target).is_some_and(|known| known.version > settings.version) {
            return Ok(());
        }
        if settings.value.breaker == BreakerMode::Close
            && let Some(circuit) = held.circuits.get_mut(target)
        {
            circuit.close();
        }
        held.settings.insert(target.clone(), settings);
        Ok(())
    }

    async fn close(&self, circuit: &Name) -> Result<(), DispatchError> {
        if let Some(circuit) = self.held().circuits.get_mut(circuit) {
            circuit.close();
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<CircuitView>, DispatchError> {
        let now = self.clock.now();
        let mut held = self.held();
        held.circuits.retain(|_, circuit| now.since_ms(circuit.touched) < FORGET_MS);
        Ok(held.circuits.iter().map(|(name, circuit)| circuit.view(name, now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    struct Memory(ManualClock, Arc<MemoryBreakers>);

    #[async_trait]
    impl crate::breaker::conformance::Fixture for Memory {
        fn breakers(&self) -> Arc<dyn Breakers> {
            self.1.clone()
        }

        fn now(&self) -> Timestamp {
            self.0.now()
        }

        fn advance_ms(&self, ms: i64) {
            self.0.advance_ms(ms);
        }
    }

    fn fresh() -> Memory {
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        Memory(clock.clone(), Arc::new(MemoryBreakers::new(Arc::new(clock))))
    }

    crate::breaker_conformance!(fresh());

    #[tokio::test]
    async fn circuits_have_a_bound() {
        let memory = fresh();
        for n in 0..CIRCUITS_MAX + 50 {
            let ask = Ask {
                target: Name::new(format!("p:{n}:c")),
                account: "p:*:c".into(),
                probe: ProbeId::generate(),
                successes: 0,
            };
            memory.1.enter(ask).await.unwrap();
        }
        assert_eq!(memory.1.list().await.unwrap().len(), CIRCUITS_MAX);
    }
}
