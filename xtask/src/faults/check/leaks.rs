//! Whether something grows that should not: memory of processes, keys in Redis, connections to both stores. Pure
//! functions over what the injector sampled.

use std::collections::BTreeMap;

use super::{
    super::{
        history::{self, InjectorEvent, Line, Store},
        scenario::Demands,
    },
    Evidence, Report, Rule,
};

/// The first of a process' life is not looked at: by then every trouble of a soak has come once, and pools, buffers and
/// the allocator's arenas have the size that they need for it.
const WARM_UP_US: u64 = 5 * 60 * 1_000_000;
/// Behind that a life has to be so long that a slope is more than its noise.
const SEEN_MIN_US: u64 = 10 * 60 * 1_000_000;
/// Most that the memory of a process may grow, in KiB a minute. At 300 jobs/s this is 15 bytes a job: less than the
/// smallest allocation, so that anything that is kept for each job is found.
const SLOPE_MAX_KIB: f64 = 256.0;
/// Keys that a Redis in use holds besides those of live jobs and those that were there before the load: the names and
/// lanes of one queue with its tenants and targets, limits, budgets and circuits of the provider, and what is still
/// remembered of workers that have died. A key that stays for each job, or for each killed worker, comes to more.
const KEYS_CONSTANT: u64 = 64;
/// Most by which connections may be more at the end than after the first quarter: one process' pool, since pools open
/// what a burst needs and close it ten minutes later.
const CONNECTIONS_MORE: u64 = 20;
/// Fewest samples from which a level is told.
const SAMPLES_MIN: usize = 16;

/// The roles, as processes are named after them.
const ROLES: [&str; 3] = ["api", "worker", "scheduler"];

/// What the samples say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Leaks {
    /// Growth of memory, in KiB a minute, of each process' life that was long enough.
    pub(crate) slopes: Vec<(String, f64)>,
    /// Whether the run was long enough for one.
    pub(crate) is_long: bool,
    /// Keys in Redis before the load.
    pub(crate) keys_before: Option<u64>,
    /// Jobs that were live at the end.
    pub(crate) live: u64,
    /// Connections to each store while nothing was wrong: in the second quarter of the run and in the last.
    pub(crate) connections: BTreeMap<Store, (u64, u64)>,
}

impl Leaks {
    /// The steepest of the slopes.
    pub(crate) fn steepest(&self) -> Option<&(String, f64)> {
        self.slopes.iter().max_by(|one, other| one.1.total_cmp(&other.1))
    }
}

/// Reads the samples.
pub(super) fn measure(evidence: &Evidence) -> Leaks {
    let mut leaks = Leaks::default();
    let mut counts: BTreeMap<Store, Vec<u64>> = BTreeMap::new();
    for line in &evidence.injector {
        match &line.event {
            InjectorEvent::Counted { metric, count } if metric == history::REDIS_KEYS_BEFORE => {
                leaks.keys_before = Some(*count);
            }
            InjectorEvent::Drained { live } => leaks.live = *live,
            InjectorEvent::Connected { store, count } => counts.entry(*store).or_default().push(*count),
            _ => {}
        }
    }
    let levels = counts.into_iter().filter_map(|(store, counts)| Some((store, level(&counts)?)));
    leaks.connections = levels.collect();
    let lives = lives(&evidence.injector);
    leaks.slopes = lives.iter().filter_map(|(name, life)| Some((name.clone(), growth(life)?))).collect();
    let ends = [evidence.injector.first(), evidence.injector.last()].map(|line| line.map_or(0, |line| line.mono_us));
    leaks.is_long = ends[1].saturating_sub(ends[0]) >= WARM_UP_US + SEEN_MIN_US;
    leaks
}

/// Holds them against what must be.
pub(super) fn demand(demands: Demands, report: &mut Report) {
    if !demands.leaks_nothing {
        return;
    }
    let leaks = report.leaks.clone();
    for (process, slope) in leaks.slopes.iter().filter(|(_, slope)| *slope > SLOPE_MAX_KIB) {
        report
            .violate(Rule::Leak, format!("{process} grows by {slope:.0} KiB a minute, not by at most {SLOPE_MAX_KIB}"));
    }
    let unseen = |role: &&str| !leaks.slopes.iter().any(|(name, _)| name.starts_with(role));
    for role in ROLES.iter().filter(|role| leaks.is_long && unseen(role)) {
        report.violate(Rule::Witness, format!("no {role} lived long enough to show whether it grows"));
    }
    match leaks.keys_before {
        Some(before) if report.redis_keys > before + leaks.live + KEYS_CONSTANT => {
            let (after, live) = (report.redis_keys, leaks.live);
            let seen = format!("{after} keys in Redis, of which {before} were there before, with {live} jobs live");
            report.violate(Rule::Leak, seen);
        }
        Some(_) => {}
        None => report.violate(Rule::Witness, "nobody counted the keys in Redis before the load"),
    }
    for store in [Store::Redis, Store::Postgres] {
        match leaks.connections.get(&store) {
            Some((early, late)) if *late > early + CONNECTIONS_MORE => {
                report.violate(Rule::Leak, format!("{late} connections to {store:?} at the end, {early} before"));
            }
            Some(_) => {}
            None => report.violate(Rule::Witness, format!("too few looks at the connections to {store:?}")),
        }
    }
}

/// A sample of memory: when, in microseconds, and KiB.
type Sample = (u64, u64);

/// The samples of each life of each process.
fn lives(lines: &[Line<InjectorEvent>]) -> Vec<(String, Vec<Sample>)> {
    let mut open: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    let mut ended = Vec::new();
    for line in lines {
        match &line.event {
            InjectorEvent::Memory { process, rss_kib } => {
                open.entry(process).or_default().push((line.mono_us, *rss_kib));
            }
            InjectorEvent::Killed { process, .. }
            | InjectorEvent::Ended { process, .. }
            | InjectorEvent::Crashed { process, .. } => {
                ended.extend(open.remove(process.as_str()).map(|life| (process.clone(), life)));
            }
            _ => {}
        }
    }
    ended.extend(open.into_iter().map(|(process, life)| (process.to_owned(), life)));
    ended
}

/// By how many KiB a minute a process grew, once it was warm; `None`: its life was too short.
fn growth(life: &[Sample]) -> Option<f64> {
    let warm_at = life.first()?.0 + WARM_UP_US;
    let warm: Vec<(f64, f64)> = life
        .iter()
        .filter(|(at, _)| *at >= warm_at)
        .map(|(at, kib)| (at.saturating_sub(warm_at) as f64 / 60_000_000.0, *kib as f64))
        .collect();
    (life.last()?.0 >= warm_at + SEEN_MIN_US).then(|| slope(&warm)).flatten()
}

/// The slope of the straight line with the least squares.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let common: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    (spread > 0.0).then(|| common / spread)
}

/// The medians of the second and of the last quarter.
fn level(counts: &[u64]) -> Option<(u64, u64)> {
    let quarter = counts.len() / 4;
    let median = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    };
    if counts.len() < SAMPLES_MIN {
        return None;
    }
    Some((median(&counts[quarter..2 * quarter])?, median(&counts[counts.len() - quarter..])?))
}

#[cfg(test)]
mod tests {
    use super::{super::super::tables::Tables, *};

    const MINUTES: u64 = 30;
    const EVERY_S: u64 = 5;

    fn line(at_s: u64, event: InjectorEvent) -> Line<InjectorEvent> {
        Line { n: 0, mono_us: at_s * 1_000_000, wall_ms: 0, event }
    }

    /// Half an hour in which each process has this much memory at each second, and each store so many connections.
    fn report(rss_kib: impl Fn(u64) -> u64, connections: impl Fn(u64) -> u64, keys: (u64, u64)) -> Report {
        let mut injector = Vec::new();
        let count = |metric: &str, count| InjectorEvent::Counted { metric: metric.to_owned(), count };
        injector.push(line(0, count(history::REDIS_KEYS_BEFORE, keys.0)));
        for at_s in (0..MINUTES * 60).step_by(EVERY_S as usize) {
            for role in ROLES {
                let process = format!("{role}-0");
                injector.push(line(at_s, InjectorEvent::Memory { process, rss_kib: rss_kib(at_s) }));
            }
            for store in [Store::Redis, Store::Postgres] {
                injector.push(line(at_s, InjectorEvent::Connected { store, count: connections(at_s) }));
            }
        }
        judged(injector, keys.1)
    }

    fn judged(injector: Vec<Line<InjectorEvent>>, redis_keys: u64) -> Report {
        let evidence = Evidence { clients: vec![], provider: vec![], injector, tables: Tables::default() };
        let mut report = Report { leaks: measure(&evidence), redis_keys, ..Report::default() };
        demand(Demands { leaks_nothing: true, ..Demands::default() }, &mut report);
        report
    }

    /// Up and down by a MiB, as memory does.
    fn noise(at_s: u64) -> u64 {
        (at_s * 7_919) % 1_024
    }

    #[test]
    fn what_only_wavers_and_warms_up_is_no_leak() {
        let warms = |at_s: u64| 60_000 + 300 * at_s.min(240) + noise(at_s);
        let wavers = |at_s: u64| 50 + at_s % 9;
        let report = report(warms, wavers, (40, 80));
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        assert_eq!(report.leaks.slopes.len(), 3);
        assert!(report.leaks.steepest().unwrap().1.abs() < 30.0, "{:?}", report.leaks.slopes);
    }

    #[test]
    fn sixteen_bytes_a_job_are_a_leak() {
        // 300 jobs/s.
        let leaks = |at_s: u64| 60_000 + at_s * 300 * 16 / 1_024 + noise(at_s);
        let report = report(leaks, |_| 50, (40, 80));
        assert_eq!(report.count(Rule::Leak), 3, "{:?}", report.violations);
    }

    #[test]
    fn a_key_that_stays_and_a_connection_that_is_not_closed_are_leaks() {
        let flat = |_| 60_000;
        assert_eq!(report(flat, |_| 50, (40, 40 + KEYS_CONSTANT + 1)).count(Rule::Leak), 1);
        // One connection for each trouble, every ten seconds.
        assert_eq!(report(flat, |at_s| 50 + at_s / 10, (40, 80)).count(Rule::Leak), 2);
    }

    #[test]
    fn each_life_of_a_process_is_judged_for_itself() {
        // It grows by a MiB a minute and is killed every 20: no two lives are one line.
        let mut injector = Vec::new();
        for at_s in (0..3_600).step_by(EVERY_S as usize) {
            let (process, life_s) = ("worker-1".to_owned(), at_s % 1_200);
            if life_s == 0 && at_s > 0 {
                injector.push(line(at_s, InjectorEvent::Killed { process: process.clone(), works: true }));
            }
            let rss_kib = 50_000 + life_s * 1_024 / 60;
            injector.push(line(at_s, InjectorEvent::Memory { process, rss_kib }));
        }
        let report = judged(injector, 0);
        let slopes: Vec<f64> = report.leaks.slopes.iter().map(|(_, slope)| slope.round()).collect();
        assert_eq!(slopes, [1_024.0; 3]);
        assert_eq!(report.count(Rule::Leak), 3);
    }

    #[test]
    fn a_long_run_in_which_nobody_lived_long_shows_nothing() {
        let mut injector = Vec::new();
        for at_s in (0..MINUTES * 60).step_by(60) {
            injector.push(line(at_s, InjectorEvent::Memory { process: "api-0".into(), rss_kib: 1 }));
            injector.push(line(at_s, InjectorEvent::Killed { process: "api-0".into(), works: false }));
        }
        // No slope of three roles, no count of keys, no level of two stores.
        assert_eq!(judged(injector, 0).count(Rule::Witness), 6);
    }
}
