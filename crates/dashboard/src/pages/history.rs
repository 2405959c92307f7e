//! How the queues stood within the last hour, and the charts of it.

use serde::Deserialize;

use crate::{
    chart::{self, Series, Svg},
    client::query,
    words,
};

/// Minutes over which an error rate is told: less of them is noise, more of them is the past.
const LATELY: usize = 5;
/// Jobs that must have ended in that time before a rate means anything.
const ENDED_MIN: f64 = 10.0;
/// Seconds between two points of a chart: sixty of them are an hour.
const STEP_S: f64 = 60.0;

/// What the API remembers of the last hour.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// Since when the API process watches.
    pub(crate) watched_since: Option<String>,
    /// Oldest first.
    points: Vec<Point>,
}

/// A moment. Counts of what happened grow for as long as a queue exists.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Point {
    at: String,
    waiting: u64,
    active: u64,
    scheduled: u64,
    parked: u64,
    oldest_ready_seconds: f64,
    accepted: u64,
    completed: u64,
    died: u64,
}

/// Jobs a minute between two points; `NaN` where a point is missing.
struct Rate {
    accepted: f64,
    completed: f64,
    died: f64,
}

impl History {
    /// The route to ask for.
    pub(crate) const ROUTE: &str = "GET /v1/queues/metrics/history";

    /// Where it is: of one queue, or of all.
    pub(crate) fn path(queue: &str) -> String {
        format!("/v1/queues/metrics/history{}", query(&[("step", "60s"), ("queue", queue)]))
    }

    fn rates(&self) -> Vec<Rate> {
        let pairs = self.points.iter().zip(self.points.iter().skip(1));
        let rate = |(from, to): (&Point, &Point)| {
            let took_s = words::between_ms(&from.at, &to.at).unwrap_or_default() as f64 / 1_000.0;
            // A gap says nothing of each of its minutes.
            if took_s <= 0.0 || took_s > 3.0 * STEP_S {
                return Rate { accepted: f64::NAN, completed: f64::NAN, died: f64::NAN };
            }
            let per_minute = |from: u64, to: u64| to.saturating_sub(from) as f64 / took_s * 60.0;
            Rate {
                accepted: per_minute(from.accepted, to.accepted),
                completed: per_minute(from.completed, to.completed),
                died: per_minute(from.died, to.died),
            }
        };
        pairs.map(rate).collect()
    }

    /// Jobs that succeeded a minute, of late; `None` while too little is known.
    pub(crate) fn throughput(&self) -> Option<f64> {
        self.rates().last().map(|rate| rate.completed).filter(|rate| rate.is_finite())
    }

    /// The share of jobs that died, of those that ended of late; `None` where too few did.
    pub(crate) fn error_rate(&self) -> Option<f64> {
        let rates = self.rates();
        let lately = rates.iter().rev().take(LATELY).filter(|rate| rate.completed.is_finite());
        let (died, ended) =
            lately.fold((0.0, 0.0), |(died, ended), rate| (died + rate.died, ended + rate.died + rate.completed));
        (ended >= ENDED_MIN).then(|| died / ended)
    }

    /// Whether there is anything to draw.
    pub(crate) fn is_known(&self) -> bool {
        self.points.len() >= 2
    }

    /// What came and went.
    pub(crate) fn flow(&self) -> Svg {
        let rates = self.rates();
        let series = |name: &str, of: fn(&Rate) -> f64| Series::new(name, rates.iter().map(of).collect());
        let series = [
            series("succeeded", |rate| rate.completed),
            series("accepted", |rate| rate.accepted),
            series("died", |rate| rate.died),
        ];
        let labels: Vec<_> = self.points.iter().skip(1).map(|point| words::minute(&point.at)).collect();
        chart::line("Jobs a minute, last hour", "", &labels, &series)
    }

    /// What stood.
    pub(crate) fn levels(&self) -> Svg {
        let series = |name: &str, of: fn(&Point) -> f64| Series::new(name, self.points.iter().map(of).collect());
        let series = [
            series("waiting", |point| point.waiting as f64),
            series("running", |point| point.active as f64),
            series("parked", |point| point.parked as f64),
            series("scheduled", |point| point.scheduled as f64),
        ];
        chart::line("Jobs, last hour", "", &self.labels(), &series)
    }

    /// How long the oldest had waited.
    pub(crate) fn ages(&self) -> Svg {
        let ages = self.points.iter().map(|point| point.oldest_ready_seconds).collect();
        let series = [Series::new("oldest waiting job", ages)];
        chart::line("Seconds that the oldest job has waited, last hour", "s", &self.labels(), &series)
    }

    fn labels(&self) -> Vec<String> {
        self.points.iter().map(|point| words::minute(&point.at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(points: &[(&str, u64, u64)]) -> History {
        let point = |&(at, completed, died): &(&str, u64, u64)| Point {
            at: format!("2026-11-30T12:{at}Z"),
            completed,
            died,
            ..Point::default()
        };
        History { watched_since: None, points: points.iter().map(point).collect() }
    }

    #[test]
    fn rates_are_differences_over_their_time() {
        let history = history(&[("00:00", 100, 0), ("01:00", 160, 0), ("01:30", 190, 10)]);
        assert_eq!(history.throughput(), Some(60.0));
        assert_eq!(history.error_rate(), Some(20.0 / 140.0));
    }

    #[test]
    fn a_gap_and_a_restart_are_no_rates() {
        assert_eq!(history(&[("00:00", 100, 0), ("30:00", 160, 0)]).throughput(), None);
        assert_eq!(history(&[("00:00", 100, 0), ("01:00", 0, 0)]).throughput(), Some(0.0));
        assert_eq!(history(&[("00:00", 100, 0)]).throughput(), None);
        assert_eq!(history(&[("00:00", 0, 0), ("01:00", 3, 1)]).error_rate(), None, "too few");
    }
}
