//! How long things took, and whether that is short enough for the scenario.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    super::{
        history::{self, ClientEvent, InjectorEvent, Line, ProviderEvent, Store},
        load::HERD,
        scenario::{Demands, Met},
    },
    Evidence, Faults, Report, Rule, SAME_MOMENT_US, Stretch,
    cases::Cases,
};

/// One sending of a request and what came of it.
struct Exchange {
    request: u64,
    sent_us: u64,
    ended_us: u64,
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted,
    /// With a status that says to come again.
    ToldToWait,
    /// The connection failed.
    Nothing,
}

impl Exchange {
    fn time(&self) -> Duration {
        Duration::from_micros(self.ended_us.saturating_sub(self.sent_us))
    }

    fn is_within(&self, stretches: &[Stretch]) -> bool {
        stretches.iter().any(|stretch| stretch.from <= self.sent_us && self.ended_us <= stretch.to)
    }

    fn touches(&self, stretches: &[Stretch]) -> bool {
        stretches.iter().any(|stretch| stretch.from <= self.ended_us && self.sent_us <= stretch.to)
    }
}

/// Measures all of it.
pub(super) fn measure(evidence: &Evidence, cases: &Cases<'_>, faults: &Faults, report: &mut Report) {
    let exchanges = exchanges(&evidence.clients);
    answers(evidence, &exchanges, faults, report);
    report.resumed = resumed(evidence);
    report.taken_over = taken_over(evidence, cases);
    for case in &cases.all {
        let (Some(run_at), Some(first)) = (case.wish.run_at_ms, case.calls.first()) else { continue };
        let late_ms = u64::try_from(first.began_ms - run_at).unwrap_or(0);
        let wait = Stretch { from: first.began_us.saturating_sub(late_ms * 1_000), to: first.began_us };
        let late_us = (late_ms * 1_000).saturating_sub(faults.outage_in(wait));
        report.late = report.late.max(Some(Duration::from_micros(late_us)));
    }
    let mut first_memory: HashMap<&str, u64> = HashMap::new();
    for line in &evidence.injector {
        match &line.event {
            InjectorEvent::Ready { after_ms, .. } => {
                let back = Stretch { from: line.mono_us.saturating_sub(after_ms * 1_000), to: line.mono_us };
                let alone_us = (after_ms * 1_000).saturating_sub(faults.outage_in(back));
                report.ready = report.ready.max(Some(Duration::from_micros(alone_us)));
            }
            InjectorEvent::Crashed { point, .. } => {
                report.crash_points.insert(point.clone());
            }
            InjectorEvent::Counted { metric, count } if metric == history::REDIS_KEYS => report.redis_keys = *count,
            InjectorEvent::Counted { metric, .. } if metric == history::REDIS_KEYS_BEFORE => {}
            InjectorEvent::Counted { count, .. } => report.fenced += count,
            InjectorEvent::Memory { process, rss_kib } => {
                let first = *first_memory.entry(process).or_insert(*rss_kib);
                report.growth_kib = report.growth_kib.max(rss_kib.saturating_sub(first));
            }
            _ => {}
        }
    }
}

/// Holds what was measured against what the scenario demands.
pub(super) fn demand(evidence: &Evidence, demands: Demands, report: &mut Report) {
    let limits = [
        ("a killed process was ready", report.ready, demands.ready_within),
        ("calls went on", report.resumed, demands.resumes_within),
        ("a request was refused", report.refusal, demands.refuses_within),
        ("a job was started", report.late, demands.starts_within),
        ("a client of the herd was answered", report.herd_p99, demands.herd_within),
    ];
    for (what, measured, limit) in limits {
        match (measured, limit) {
            (_, None) => {}
            (None, Some(_)) => {
                report.violate(Rule::Witness, format!("it was never seen that {what}: the run shows nothing"))
            }
            (Some(time), Some(limit)) if time > limit => {
                let seen = format!("{what} after {:.1} s, not within {:.1} s", time.as_secs_f64(), limit.as_secs_f64());
                report.violate(Rule::Slow, seen);
            }
            _ => {}
        }
    }
    if demands.accepts_without_redis && report.refused_without_redis > 0 {
        let seen = format!("{} requests were refused while only Redis was away", report.refused_without_redis);
        report.violate(Rule::Refusing, seen);
    }
    if let Some(limit) = demands.grows_mib.filter(|limit| report.growth_kib > limit * 1024) {
        let seen = format!("a process grew by {} MiB, not by at most {limit}", report.growth_kib / 1024);
        report.violate(Rule::Grown, seen);
    }
    let (first, second) = report.races;
    if first + second < demands.races || first.min(second) < demands.races / 100 {
        let seen = format!("{first} races were won by one side and {second} by the other: the run shows nothing");
        report.violate(Rule::Witness, seen);
    }
    for point in demands.crash_points.lines().filter_map(|line| line.split(' ').next()) {
        if !report.crash_points.contains(point) {
            report.violate(Rule::Witness, format!("nobody crashed at {point}: the run shows nothing of it"));
        }
    }
    let unmet: Vec<Met> = demands.meets.iter().copied().filter(|met| !is_met(*met, evidence, report)).collect();
    for met in unmet {
        report.violate(Rule::Witness, format!("the run did not meet {met:?}: it shows nothing of it"));
    }
    if report.taken_over < demands.taken_over {
        let seen = format!("{} jobs were taken over: the run shows nothing", report.taken_over);
        report.violate(Rule::Witness, seen);
    }
}

/// Whether something that a run has to meet was met.
fn is_met(met: Met, evidence: &Evidence, report: &Report) -> bool {
    let killed = |role: &str| {
        let is_of_role =
            |event: &InjectorEvent| matches!(event, InjectorEvent::Killed { process, .. } if process.starts_with(role));
        evidence.injector.iter().any(|line| is_of_role(&line.event))
    };
    match met {
        Met::KilledApi => killed("api"),
        Met::KilledWorker => killed("worker"),
        Met::KilledScheduler => killed("scheduler"),
        Met::EndedByJob => report.ended_by_jobs > 0,
        Met::Recycled => report.recycled > 0,
        Met::SentByTwo => {
            let second = |event: &ClientEvent| matches!(event, ClientEvent::Accepted { copy: 1.., .. });
            evidence.clients.iter().any(|line| second(&line.event))
        }
    }
}

/// Each sending with its end; one without an end is none.
fn exchanges(clients: &[Line<ClientEvent>]) -> Vec<Exchange> {
    let mut open: HashMap<(u64, u64), u64> = HashMap::new();
    let mut all = Vec::new();
    for line in clients {
        let (of, answer) = match &line.event {
            ClientEvent::Sent { request, copy, .. } => {
                open.insert((*request, *copy), line.mono_us);
                continue;
            }
            ClientEvent::Accepted { request, copy, .. } => ((*request, *copy), Answer::Accepted),
            ClientEvent::ComeAgain { request, copy, why } => {
                let is_status = why.starts_with(|c: char| c.is_ascii_digit());
                ((*request, *copy), if is_status { Answer::ToldToWait } else { Answer::Nothing })
            }
            _ => continue,
        };
        if let Some(sent_us) = open.remove(&of) {
            all.push(Exchange { request: of.0, sent_us, ended_us: line.mono_us, answer });
        }
    }
    all
}

/// When a store was surely away: from a moment after its end to its next start.
fn away(evidence: &Evidence, wanted: Store) -> Vec<Stretch> {
    let mut away = Vec::new();
    let mut down = None;
    for line in &evidence.injector {
        match line.event {
            InjectorEvent::Down { store } if store == wanted => down = Some(line.mono_us),
            InjectorEvent::Rising { store } if store == wanted => {
                away.extend(down.take().map(|from: u64| Stretch { from: from + SAME_MOMENT_US, to: line.mono_us }));
            }
            _ => {}
        }
    }
    away
}

fn answers(evidence: &Evidence, exchanges: &[Exchange], faults: &Faults, report: &mut Report) {
    let (without_journal, without_redis) = (away(evidence, Store::Postgres), away(evidence, Store::Redis));
    let (mut well, mut limping) = (Vec::new(), Vec::new());
    for exchange in exchanges {
        match exchange.answer {
            Answer::Accepted if exchange.is_within(&without_journal) => {
                report.violate(Rule::Premature, "a request was accepted while the journal was away".to_owned());
            }
            Answer::Accepted if exchange.is_within(&without_redis) => limping.push(exchange.time()),
            Answer::Accepted if !exchange.touches(&faults.outages) => well.push(exchange.time()),
            Answer::ToldToWait if exchange.is_within(&without_journal) => {
                report.refusal = report.refusal.max(Some(exchange.time()));
            }
            Answer::ToldToWait if exchange.is_within(&without_redis) => report.refused_without_redis += 1,
            _ => {}
        }
    }
    (report.accept_p99, report.accept_p99_without_redis) = (p99(well), p99(limping));
    let of_herd = |line: &Line<ClientEvent>| match &line.event {
        ClientEvent::Due { request, jobs } if jobs.iter().any(|job| job.mark.starts_with(HERD)) => Some(*request),
        _ => None,
    };
    let herd: HashSet<u64> = evidence.clients.iter().filter_map(of_herd).collect();
    let answered = exchanges.iter().filter(|one| one.answer == Answer::Accepted && herd.contains(&one.request));
    report.herd_p99 = p99(answered.map(Exchange::time).collect());
}

fn p99(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

/// The longest time from a moment at which calls may go on to the next one, while the load lasted.
fn resumed(evidence: &Evidence) -> Option<Duration> {
    let ended = evidence.clients.iter().find(|line| line.event == ClientEvent::LoadEnded)?.mono_us;
    let began = evidence.provider.iter().filter(|line| matches!(line.event, ProviderEvent::Began { .. }));
    let calls: Vec<u64> = began.map(|line| line.mono_us).collect();
    let may_go_on = evidence.injector.iter().filter(|line| {
        let event = &line.event;
        matches!(event, InjectorEvent::Flushed | InjectorEvent::Up { .. } | InjectorEvent::Healed { .. })
            && line.mono_us < ended
    });
    let gap = |line: &Line<InjectorEvent>| {
        let next = calls.get(calls.partition_point(|call| *call <= line.mono_us)).copied().unwrap_or(ended);
        Duration::from_micros(next.saturating_sub(line.mono_us))
    };
    may_go_on.map(gap).max()
}

/// Jobs whose call was under way when a worker stopped, and was made again before that worker went on.
fn taken_over(evidence: &Evidence, cases: &Cases<'_>) -> usize {
    let mut frozen: HashMap<&str, u64> = HashMap::new();
    let mut still = Vec::new();
    for line in &evidence.injector {
        match &line.event {
            InjectorEvent::Frozen { process } => _ = frozen.insert(process, line.mono_us),
            InjectorEvent::Thawed { process } => {
                still.extend(frozen.remove(process.as_str()).map(|from| Stretch { from, to: line.mono_us }));
            }
            _ => {}
        }
    }
    still.sort_unstable_by_key(|stretch| (stretch.from, stretch.to));
    let is_taken_over = |calls: &[super::cases::Call]| {
        let [before, after] = calls else { return false };
        let under_way = |at| before.began_us < at && before.end.is_none_or(|(ended, _)| ended > at);
        still.iter().any(|stretch| under_way(stretch.from) && (stretch.from..stretch.to).contains(&after.began_us))
    };
    cases.all.iter().filter(|case| case.calls.windows(2).any(is_taken_over)).count()
}
