//! DST tables of three zones, and what is no expression, zone or interval.

use proptest::prelude::*;

use super::*;

fn cron(cron: &str, time_zone: &str) -> When {
    When::Cron { cron: cron.into(), time_zone: time_zone.into() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The ticks behind a moment, as a clock on the wall of the zone shows them, with its offset.
fn shown(when: &When, after: &str, count: usize) -> Vec<String> {
    let ticks = when.ticks().unwrap();
    let zone = TimeZone::get(when.time_zone()).unwrap();
    std::iter::successors(ticks.after(at(after)), |last| ticks.after(*last))
        .take(count)
        .map(|tick| {
            let zoned = jiff::Timestamp::from_millisecond(tick.0).unwrap().to_zoned(zone.clone());
            zoned.strftime("%d %H:%M:%S %z").to_string()
        })
        .collect()
}

/// Zone, expression, a moment, and the ticks behind it. Clocks go forward in Berlin on 2026-03-29 from 2:00 to 3:00, in New York on
/// 2026-03-08 from 2:00 to 3:00, on Lord Howe Island on 2026-10-04 from 2:00 to 2:30; and back on 2026-10-25 from 3:00 to 2:00, on
/// 2026-11-01 from 2:00 to 1:00, on 2026-04-05 from 2:00 to 1:30.
#[rustfmt::skip] // a table
const TABLE: &[(&str, &str, &str, &[&str])] = &[
    // A time that the day does not have: the first moment behind the gap, once.
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T00:00:00Z", &["28 02:30:00 +0100", "29 03:00:00 +0200", "30 02:30:00 +0200"]),
    ("America/New_York", "30 2 * * *", "2026-03-07T06:00:00Z", &["07 02:30:00 -0500", "08 03:00:00 -0400", "09 02:30:00 -0400"]),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02T12:00:00Z", &["03 02:15:00 +1030", "04 02:30:00 +1100", "05 02:15:00 +1100"]),
    ("Europe/Berlin", "15 10 2 * * *", "2026-03-29T00:00:00Z", &["29 03:00:00 +0200", "30 02:10:15 +0200"]),
    // Two such times of one day are one moment, and one tick.
    ("Europe/Berlin", "10,50 2 * * *", "2026-03-29T00:00:00Z", &["29 03:00:00 +0200", "30 02:10:00 +0200", "30 02:50:00 +0200"]),
    ("Europe/Berlin", "0 2,14 * * *", "2026-03-28T14:00:00Z", &["29 03:00:00 +0200", "29 14:00:00 +0200", "30 02:00:00 +0200"]),
    ("Europe/Berlin", "0 2,14 * * *", "2026-10-24T13:00:00Z", &["25 02:00:00 +0200", "25 14:00:00 +0100", "26 02:00:00 +0100"]),
    ("America/New_York", "0,30 1 * * *", "2026-10-31T12:00:00Z", &["01 01:00:00 -0400", "01 01:30:00 -0400", "02 01:00:00 -0500"]),
    // The time beside the gap is what it always is.
    ("Europe/Berlin", "0 3 * * *", "2026-03-28T12:00:00Z", &["29 03:00:00 +0200", "30 03:00:00 +0200"]),
    ("America/New_York", "59 1 * * *", "2026-03-08T00:00:00Z", &["08 01:59:00 -0500", "09 01:59:00 -0400"]),
    // A time that the day has twice: the first, once.
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00Z", &["25 02:30:00 +0200", "26 02:30:00 +0100"]),
    ("America/New_York", "30 1 * * *", "2026-10-31T12:00:00Z", &["01 01:30:00 -0400", "02 01:30:00 -0500"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00:00Z", &["05 01:45:00 +1100", "06 01:45:00 +1030"]),
    // A moment between the two: that was today's.
    ("Europe/Berlin", "30 2 * * *", "2026-10-25T00:45:00Z", &["26 02:30:00 +0100"]),
    // A rhythm has no ticks in a gap, and goes on through both halves.
    ("Europe/Berlin", "*/30 * * * *", "2026-03-29T00:15:00Z", &["29 01:30:00 +0100", "29 03:00:00 +0200", "29 03:30:00 +0200"]),
    ("Europe/Berlin", "0 * * * *", "2026-10-24T23:30:00Z", &["25 02:00:00 +0200", "25 02:00:00 +0100", "25 03:00:00 +0100"]),
    ("America/New_York", "*/30 * * * *", "2026-11-01T05:15:00Z", &["01 01:30:00 -0400", "01 01:00:00 -0500", "01 01:30:00 -0500", "01 02:00:00 -0500"]),
    ("America/New_York", "0 * * * *", "2026-03-08T06:30:00Z", &["08 03:00:00 -0400", "08 04:00:00 -0400"]),
    ("Australia/Lord_Howe", "*/15 * * * *", "2026-10-03T15:20:00Z", &["04 02:30:00 +1100", "04 02:45:00 +1100"]),
    ("Australia/Lord_Howe", "*/15 * * * *", "2026-04-04T14:35:00Z", &["05 01:45:00 +1100", "05 01:30:00 +1030", "05 01:45:00 +1030", "05 02:00:00 +1030"]),
    ("Europe/Berlin", "*/20 * * * * *", "2026-03-29T00:59:35Z", &["29 01:59:40 +0100", "29 03:00:00 +0200", "29 03:00:20 +0200"]),
    // Without any of that.
    ("UTC", "0 0 12 * * MON-FRI", "2026-11-27T12:00:00Z", &["30 12:00:00 +0000", "01 12:00:00 +0000"]),
    ("UTC", "0 0 29 2 *", "2026-11-30T00:00:00Z", &["29 00:00:00 +0000"]),
    ("UTC", "0 0 L * *", "2027-02-01T00:00:00Z", &["28 00:00:00 +0000", "31 00:00:00 +0000"]),
];

#[test]
fn clocks_that_are_put_forward_and_back() {
    for (zone, expression, after, expected) in TABLE {
        let found = shown(&cron(expression, zone), after, expected.len());
        assert_eq!(found, *expected, "`{expression}` in {zone} behind {after}");
    }
}

#[test]
fn fractions_of_seconds_neither_repeat_nor_lose_a_tick() {
    let ticks = cron("* * * * * *", "UTC").ticks().unwrap();
    let tick = at("2026-11-30T10:00:01Z");
    for (after, expected) in [(-1, 0), (-1_000, 0), (-999, 0), (0, 1_000), (1, 1_000), (999, 1_000)] {
        assert_eq!(ticks.after(tick.plus_ms(after)), Some(tick.plus_ms(expected)), "{after}");
    }
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    for text in
        ["", "* * *", "60 * * * *", "* * * * * * 2027", "nonsense", "0 0 32 1 *", "1/0 * * * *", "\u{1F980} * * * *"]
    {
        assert!(matches!(cron(text, "UTC").ticks(), Err(WhenError::Cron(_))), "{text}");
    }
    assert!(matches!(cron(&"0,".repeat(600), "UTC").ticks(), Err(WhenError::Cron(_))));
    for name in ["", "Berlin", "Europe/Atlantis", "Etc/Unknown", "../../etc/passwd"] {
        assert!(matches!(cron("0 0 * * *", name).ticks(), Err(WhenError::TimeZone(_))), "{name}");
    }
}

/// No days, days that no month has, empty lists, a day of the week that is the last of nothing, and hours that the zone leaves out each time.
/// Each was searched for until the year 5000; the one with the empty hours took 6 s.
#[test]
fn an_expression_that_never_comes_is_refused() {
    let never = [
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0-59 0-1 30 2 *",
        "*/5 , * * *",
        "*/5 * * * ,",
        "*/5 * * * L",
        "0 0 15W * +",
        "*/5 * * 30 2  *",
        "*/10 2 * 3 SUN#L",
    ];
    for text in never {
        let refused = cron(text, "Europe/Berlin").ticks().unwrap_err();
        assert!(refused.to_string().contains("never comes: until the end of 2199"), "{text}: {refused}");
    }
}

/// As a whole the list skips them; each of its times comes when the clocks have gone on.
#[test]
fn a_list_of_times_that_the_zone_leaves_out_each_time_comes_behind_the_gap() {
    let skipped = cron("0,30 2 * 3 SUN#L", "Europe/Berlin").ticks().unwrap();
    assert_eq!(skipped.after(at("2027-01-01T00:00:00Z")), Some(at("2027-03-28T01:00:00Z")));
}

#[test]
fn the_rarest_days_come_and_behind_the_last_year_there_are_none() {
    let rare = cron("0 12 29 2 +MON", "UTC").ticks().unwrap();
    assert_eq!(rare.after(at("2072-03-01T00:00:00Z")), Some(at("2112-02-29T12:00:00Z")));
    let daily = cron("0 0 * * *", "UTC").ticks().unwrap();
    assert_eq!(daily.after(at("2199-12-30T12:00:00Z")), Some(at("2199-12-31T00:00:00Z")));
    for behind in [at("2199-12-31T00:00:00Z"), at("4000-01-01T00:00:00Z"), Timestamp(i64::MAX)] {
        assert_eq!(daily.after(behind), None, "{behind}");
    }
    assert_eq!(daily.after(Timestamp(-62_135_596_800_000)), Some(at("0001-01-02T00:00:00Z")));
}

#[test]
fn intervals_count_from_their_beginning() {
    let from = at("2026-11-30T10:00:00Z");
    let ticks = When::Every { every_ms: 90_000, from }.ticks().unwrap();
    assert_eq!(ticks.after(from.plus_ms(-1)), Some(from));
    assert_eq!(ticks.after(from), Some(from.plus_ms(90_000)));
    assert_eq!(ticks.after(from.plus_ms(179_999)), Some(from.plus_ms(180_000)));
    assert_eq!(ticks.after(Timestamp(i64::MAX)), None);
    let all: Vec<_> = ticks.between(from, from.plus_ms(270_000)).collect();
    assert_eq!(all, [1, 2, 3].map(|n| from.plus_ms(n * 90_000)));
    let once = When::Once { at: from }.ticks().unwrap();
    assert_eq!((once.after(from.plus_ms(-1)), once.after(from)), (Some(from), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever clocks do: ticks go forward, and asking from between two of them finds the second.
    #[test]
    fn ticks_go_forward(
        start_s in 1_750_000_000_i64..1_850_000_000,
        zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "UTC"]),
        expression in prop::sample::select(vec![
            "* * * * *", "30 2 * * *", "0,30 0-3 * * *", "*/7 1,2 * * *", "15 45 1 * * *", "0 0 * * 7", "*/20 59 1-2 * * *",
        ]),
    ) {
        let ticks = cron(expression, zone).ticks().unwrap();
        let mut last = Timestamp(start_s * 1_000);
        for _ in 0..20 {
            let next = ticks.after(last).unwrap();
            prop_assert!(next > last);
            prop_assert_eq!(ticks.after(next.plus_ms(-1)), Some(next));
            prop_assert_eq!(ticks.after(Timestamp(last.0 + (next.0 - last.0) / 2)), Some(next));
            last = next;
        }
    }
}
