//! When a schedule is due, in words: `at 07:30 on weekdays, Europe/Berlin`.

use croner::{Cron, CronPattern};
use jiff::tz::TimeZone;

use super::{When, parse};

/// Times of a day up to which each is told.
const CLOCKS_MAX: usize = 4;
const MINUTES: usize = 60;
const HOURS: usize = 24;

const WEEKDAYS: [&str; 7] = ["Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl When {
    /// What it means in words; the expression itself where it cannot be read.
    pub fn words(&self) -> String {
        match self {
            Self::Cron { cron, time_zone } => match parse(cron) {
                Ok(parsed) => format!("{}, {time_zone}", of_cron(&parsed)),
                Err(_) => format!("{cron}, {time_zone}"),
            },
            Self::Every { every_ms, .. } => of_interval(*every_ms),
            Self::Once { at } => match jiff::Timestamp::from_millisecond(at.0) {
                Ok(at) => format!("once, on {}, UTC", at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d at %H:%M:%S")),
                Err(_) => format!("once, at {at}"),
            },
        }
    }
}

fn of_interval(every_ms: i64) -> String {
    let units = [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000), ("millisecond", 1)];
    let whole = units.into_iter().find(|(_, unit_ms)| every_ms % unit_ms == 0);
    let (unit, unit_ms) = whole.unwrap_or(("millisecond", 1));
    each(every_ms / unit_ms, unit)
}

/// When within a day.
enum Times {
    /// At these times.
    Clocks(String),
    /// Again and again.
    Rhythm(String),
}

fn of_cron(cron: &Cron) -> String {
    let pattern = &cron.pattern;
    let is_common =
        !pattern.matches_dom_and_dow() && !pattern.days.has_modifiers() && !pattern.days_of_week.has_modifiers();
    let Some(times) = times(pattern).filter(|_| is_common) else { return in_the_parsers_words(cron) };
    let days = match (days(pattern), &times) {
        (None, Times::Clocks(_)) => Some("every day".to_owned()),
        (days, _) => days,
    };
    let (Times::Clocks(times) | Times::Rhythm(times)) = times;
    [Some(times), days, months(pattern)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What is rare (`L`, `W`, `#`, several seconds) is told as the parser tells it.
fn in_the_parsers_words(cron: &Cron) -> String {
    let words = cron.describe();
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn times(pattern: &CronPattern) -> Option<Times> {
    let [seconds, minutes, hours] = [&pattern.seconds, &pattern.minutes, &pattern.hours].map(|field| field.values());
    let [second] = seconds[..] else {
        let step = step_of(&seconds, MINUTES).filter(|_| minutes.len() == MINUTES && hours.len() == HOURS)?;
        return Some(Times::Rhythm(each(step, "second")));
    };
    let behind = if second == 0 { String::new() } else { format!(" at second {second}") };
    let rhythm = |text: String| Some(Times::Rhythm(format!("{text}{behind}")));
    let clocks = || {
        let all = hours.iter().flat_map(|hour| minutes.iter().map(|minute| clock(*hour, *minute, second)));
        Some(Times::Clocks(format!("at {}", listed(all.collect()))))
    };
    if hours.len() * minutes.len() <= CLOCKS_MAX {
        return clocks();
    }
    if let [minute] = minutes[..] {
        let (first, last) = (*hours.first()?, *hours.last()?);
        return match step_of(&hours, HOURS) {
            Some(step) if minute == 0 => rhythm(each(step, "hour")),
            Some(step) => rhythm(format!("{} at minute {minute}", each(step, "hour"))),
            None if is_run(&hours) => {
                rhythm(format!("every hour from {} to {}", clock(first, minute, 0), clock(last, minute, 0)))
            }
            None => clocks(),
        };
    }
    let (hour, last_hour, last_minute) = (*hours.first()?, *hours.last()?, *minutes.last()?);
    match (step_of(&minutes, MINUTES), step_of(&hours, HOURS)) {
        (Some(step), Some(1)) => rhythm(each(step, "minute")),
        (Some(step), None) if is_run(&hours) => rhythm(format!(
            "{} from {} to {}",
            each(step, "minute"),
            clock(hour, 0, 0),
            clock(last_hour, last_minute, 0)
        )),
        (Some(step), of_hours) => rhythm(format!("{} of {}", each(step, "minute"), hours_words(&hours, of_hours))),
        (None, of_hours) => {
            let minutes = listed(runs(&minutes, |minute| minute.to_string()));
            rhythm(format!("at minutes {minutes} of {}", hours_words(&hours, of_hours)))
        }
    }
}

fn hours_words(hours: &[u16], step: Option<i64>) -> String {
    match (step, hours) {
        (Some(1), _) => "every hour".to_owned(),
        (Some(step), _) => format!("every {} hour", ordinal(step)),
        (None, [hour]) => format!("the hour {hour}"),
        (None, _) => format!("the hours {}", listed(runs(hours, |hour| hour.to_string()))),
    }
}

/// On which days; nothing where it is all of them.
fn days(pattern: &CronPattern) -> Option<String> {
    let of_month = pattern.days.values();
    let mut of_week: Vec<usize> = pattern.days_of_week.values().iter().map(|day| usize::from(*day) % 7).collect();
    of_week.sort_unstable();
    of_week.dedup();
    let of_month = (!pattern.is_dom_wildcard()).then(|| {
        let step = i64::from(pattern.days.step);
        let is_stepped = pattern.days.from_wildcard && step > 1;
        match is_stepped && of_month.iter().copied().eq((1..=31).step_by(usize::from(pattern.days.step))) {
            true => format!("on every {} day of the month", ordinal(step)),
            false => format!("on the {}", listed(runs(&of_month, |day| ordinal(day.into())))),
        }
    });
    let names = |days: &[usize]| listed(days.iter().map(|day| WEEKDAYS[*day].to_owned()).collect());
    let is_whole_week = of_week.len() == WEEKDAYS.len();
    let of_week = (!pattern.is_dow_wildcard()).then(|| match of_week[..] {
        [1, 2, 3, 4, 5] => "on weekdays".to_owned(),
        [0, 6] => "on weekends".to_owned(),
        _ => format!("on {}", names(&of_week)),
    });
    match (of_month, of_week) {
        // Either is enough, as cron daemons have it.
        (_, Some(_)) if is_whole_week => None,
        (Some(of_month), Some(of_week)) => Some(format!("{of_month} or {of_week}")),
        (of_month, of_week) => of_month.or(of_week),
    }
}

/// In which months; nothing where it is all of them.
fn months(pattern: &CronPattern) -> Option<String> {
    let months = pattern.months.values();
    let name =
        |month: u16| MONTHS.get(usize::from(month).wrapping_sub(1)).map_or_else(String::new, |name| (*name).into());
    (months.len() < MONTHS.len()).then(|| format!("in {}", listed(runs(&months, name))))
}

fn clock(hour: u16, minute: u16, second: u16) -> String {
    if second == 0 { format!("{hour:02}:{minute:02}") } else { format!("{hour:02}:{minute:02}:{second:02}") }
}

fn each(count: i64, unit: &str) -> String {
    if count == 1 { format!("every {unit}") } else { format!("every {count} {unit}s") }
}

/// The step of values that begin with 0 and go round evenly.
fn step_of(values: &[u16], size: usize) -> Option<i64> {
    let step = size.checked_div(values.len()).filter(|step| values.len() > 1 && step * values.len() == size)?;
    let even = (0..size).step_by(step).eq(values.iter().map(|value| usize::from(*value)));
    even.then(|| i64::try_from(step).unwrap_or(1))
}

/// Whether each value follows the one before.
fn is_run(values: &[u16]) -> bool {
    values.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

/// Values, three and more that follow each other as `a to b`.
fn runs(values: &[u16], show: impl Fn(u16) -> String) -> Vec<String> {
    let mut told = Vec::new();
    for run in values.chunk_by(|a, b| *b == a + 1) {
        match run {
            [first, _, .., last] => told.push(format!("{} to {}", show(*first), show(*last))),
            few => told.extend(few.iter().map(|value| show(*value))),
        }
    }
    told
}

/// `a, b and c`.
fn listed(mut parts: Vec<String>) -> String {
    let Some(last) = parts.pop() else { return String::new() };
    if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) }
}

fn ordinal(number: i64) -> String {
    let suffix = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[rustfmt::skip] // a table
    const TABLE: &[(&str, &str)] = &[
        ("30 7 * * MON-FRI", "at 07:30 on weekdays"),
        ("30 2 * * *", "at 02:30 every day"),
        ("0 2,14 * * *", "at 02:00 and 14:00 every day"),
        ("15 10 2 * * *", "at 02:10:15 every day"),
        ("0 9 * * 6,0", "at 09:00 on weekends"),
        ("0 9 * * 7", "at 09:00 on Sundays"),
        ("0 9 * * 1,3,5", "at 09:00 on Mondays, Wednesdays and Fridays"),
        ("0 9 * * 0-6", "at 09:00 every day"),
        ("0 0 1 * *", "at 00:00 on the 1st"),
        ("0 0 1,15 * *", "at 00:00 on the 1st and 15th"),
        ("0 0 1-7,22 * *", "at 00:00 on the 1st to 7th and 22nd"),
        ("0 0 13 * FRI", "at 00:00 on the 13th or on Fridays"),
        ("0 0 */2 * *", "at 00:00 on every 2nd day of the month"),
        ("0 6 1 1 *", "at 06:00 on the 1st in January"),
        ("0 6 * 6-8,12 *", "at 06:00 every day in June to August and December"),
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("0,15,30,45 * * * *", "every 15 minutes"),
        ("30 */15 * * * *", "every 15 minutes at second 30"),
        ("* * * * * *", "every second"),
        ("*/20 * * * * *", "every 20 seconds"),
        ("0 * * * *", "every hour"),
        ("15 * * * *", "every hour at minute 15"),
        ("0 */6 * * *", "at 00:00, 06:00, 12:00 and 18:00 every day"),
        ("0 */2 * * *", "every 2 hours"),
        ("5 */2 * * *", "every 2 hours at minute 5"),
        ("0 9-17 * * 1-5", "every hour from 09:00 to 17:00 on weekdays"),
        ("*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:45 on weekdays"),
        ("* 9 * * *", "every minute from 09:00 to 09:59"),
        ("*/10 */2 * * *", "every 10 minutes of every 2nd hour"),
        ("*/10 0-5,22,23 * * *", "every 10 minutes of the hours 0 to 5, 22 and 23"),
        ("0,20,50 * * * *", "at minutes 0, 20 and 50 of every hour"),
        ("0-10 8 * * *", "at minutes 0 to 10 of the hour 8"),
        ("0 1,5,7,9,12 * * *", "at 01:00, 05:00, 07:00, 09:00 and 12:00 every day"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("@daily", "at 00:00 every day"),
        ("@weekly", "at 00:00 on Sundays"),
    ];

    #[test]
    fn an_expression_is_told_in_words() {
        for (cron, expected) in TABLE {
            let when = When::Cron { cron: (*cron).into(), time_zone: "Europe/Berlin".into() };
            assert_eq!(when.words(), format!("{expected}, Europe/Berlin"), "`{cron}`");
        }
    }

    #[test]
    fn what_is_rare_is_told_too() {
        for (cron, part) in [("0 0 L * *", "last day"), ("0 0 * * 5#2", "Friday"), ("0 0 15W * *", "weekday nearest")] {
            let words = When::Cron { cron: cron.into(), time_zone: "UTC".into() }.words();
            assert!(words.contains(part) && words.ends_with(", UTC"), "`{cron}`: {words}");
            assert!(words.starts_with(|first: char| first.is_lowercase()), "{words}");
        }
        let broken = When::Cron { cron: "nonsense".into(), time_zone: "UTC".into() };
        assert_eq!(broken.words(), "nonsense, UTC");
    }

    #[test]
    fn intervals_and_single_moments_are_told() {
        let from = Timestamp(1_790_000_000_000);
        for (every_ms, expected) in [
            (1_000, "every second"),
            (90_000, "every 90 seconds"),
            (900_000, "every 15 minutes"),
            (3_600_000, "every hour"),
            (172_800_000, "every 2 days"),
            (1_500, "every 1500 milliseconds"),
        ] {
            assert_eq!(When::Every { every_ms, from }.words(), expected);
        }
        assert_eq!(When::Once { at: from }.words(), "once, on 2026-09-21 at 14:13:20, UTC");
    }
}
