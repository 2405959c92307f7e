use proptest::prelude::*;

use super::*;
use crate::{
    dispatcher::Place,
    error::{ErrorClass, JobError},
    ids::Epoch,
    ledger::{Nanousd, Usage},
    state::Standing,
};

/// 2026-11-30T00:00:00Z.
const NOW: Timestamp = Timestamp(1_795_996_800_000);

fn read(text: &str) -> Filter {
    Filter::parse(text, NOW).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A dead letter of the queue `llm`, accepted two hours ago.
fn dead_letter() -> Job {
    Job {
        id: "01a229ac-0287-7027-8897-342d0c7f4846".parse().unwrap(),
        tenant: "acme".into(),
        queue: "llm".into(),
        kind: Kind::Llm,
        target: "openai:gpt-4o-mini:default".into(),
        priority: 5,
        standing: Standing::Dead,
        epoch: Epoch(3),
        attempts: 3,
        max_attempts: 3,
        recoveries: 0,
        releases: 0,
        run_at: NOW.plus_ms(-7_200_000),
        start_by: None,
        deadline: None,
        timeout_ms: None,
        accepted_at: NOW.plus_ms(-7_200_000),
        finished_at: Some(NOW.plus_ms(-600_000)),
        unique_key: None,
        concurrency_key: None,
        operation: Some("claim-extraction".into()),
        batch_id: None,
        tags: vec!["nightly".into(), "of \"us\"".into()],
        request_id: None,
        traceparent: None,
        error: Some(JobError::new(ErrorClass::Server, "503", "The server is overloaded")),
        usage: Usage::default(),
        cost: Some(Nanousd(50_000_000)),
        served_by: None,
        cancel_reason: None,
        redrives: 1,
        key_id: None,
        max_cost: None,
    }
}

#[test]
fn a_job_is_found_by_each_of_its_fields() {
    let job = dead_letter();
    let holds = [
        r#"queue = llm and state = dead and error.class = "server" and age > 1h"#,
        "id = 01A229AC-0287-7027-8897-342D0C7F4846",
        "kind in (llm, embedding) AND tenant != other",
        "target ~ GPT-4o and operation = claim-extraction",
        r#"tag = nightly and tag = "of \"us\"" and tag != weekly"#,
        r#"error.code in (502, 503) and error.message ~ "is OVERLOADED""#,
        "priority >= 5 and priority <= 5 and attempts > 2 and redrives != 0",
        "cost >= 0.05 and cost < 0.051",
        "ended_age > 5m and ended_age < 11m and accepted_at < 2026-11-29T22:00:00.001Z",
        "batch_id != x and unique_key not in (x, y) and served_by != openai/gpt-4o",
        "state not in (ready, running)",
    ];
    for text in holds {
        assert!(read(text).matches(&job, State::Dead, &Place::Unknown), "{text}");
    }
    let fails = [
        "queue = embed",
        "state in (ready, scheduled)",
        "age < 1h",
        "age > 3h",
        "tag = weekly",
        "batch_id = x",
        "unique_key ~ x",
        "cost > 0.05",
        "error.class = rate",
        "queue = llm and redrives = 0",
        "ended_age > 11m",
    ];
    for text in fails {
        assert!(!read(text).matches(&job, State::Dead, &Place::Unknown), "{text}");
    }
    let unpriced = Job { cost: None, finished_at: None, ..job };
    for text in ["cost >= 0", "cost < 1", "ended_age > 1s", "ended_age < 1000d"] {
        assert!(
            !read(text).matches(&unpriced, State::Dead, &Place::Unknown),
            "{text}: what a job has not lies nowhere"
        );
    }
    assert!(read("cost != 0.05").matches(&unpriced, State::Dead, &Place::Unknown));
}

#[test]
fn a_bad_filter_says_where_and_what_would_be_right() {
    let table = [
        ("", 1, "a condition is missing"),
        ("   ", 4, "a condition is missing"),
        ("colour = red", 1, "`colour` is not a field; age, ended_age, running_age, id, queue"),
        ("queue", 6, "=, !=, ~"),
        ("queue =", 8, "a value is missing"),
        ("queue llm", 7, "=, !=, ~"),
        ("queue = llm state = dead", 13, "only `and`"),
        ("queue = llm or state = dead", 13, "there is no `or`"),
        ("queue = llm and", 16, "a condition is missing"),
        ("queue > llm", 7, "`queue` is a text"),
        ("state ~ dea", 7, "one of some words"),
        ("state = dying", 9, "scheduled, ready, running, succeeded, dead, cancelled are"),
        ("error.class = Server", 15, "`Server` is no error.class"),
        ("age = 1h", 5, "an age is compared by"),
        ("age > yesterday", 7, "is not a duration"),
        ("state = dead and age > 2147483648h", 24, "`age`: an age is at most 36500d, not `2147483648h`"),
        ("ended_age <= 4294967296d", 14, "`ended_age`: an age is at most 36500d"),
        ("running_age >= 36501d", 16, "`running_age`: an age is at most 36500d"),
        ("cost > -1", 8, "`-1` is negative"),
        ("attempts > many", 12, "with a whole number"),
        ("run_at < soon", 10, "RFC 3339"),
        ("queue in llm", 10, "a list must follow"),
        ("queue in ()", 11, "a value must stand"),
        ("queue in (a b)", 13, "a comma or `)`"),
        ("queue in (a", 12, "`)` is missing"),
        ("queue not = a", 7, "only `in` may follow"),
        ("queue ! a", 7, "`!` stands alone"),
        ("queue = \"llm", 9, "has no end"),
        ("queue = \"l\\m\"", 11, "after a backslash"),
        ("queue = 'llm'", 9, "must stand in double quotes"),
        ("operation = \"\"", 13, "means nothing"),
        ("cost ~ 1", 6, "is no text"),
    ];
    for (text, at, words) in table {
        let error = Filter::parse(text, NOW).unwrap_err();
        assert!(error.at == at && error.reason.contains(words), "{text}: {error}");
    }
    let long = format!("operation = {}", "x".repeat(TEXT_MAX_BYTES));
    assert!(Filter::parse(&long, NOW).unwrap_err().reason.contains("bytes"));
    let many = vec!["attempts > 0"; 33].join(" and ");
    assert!(Filter::parse(&many, NOW).unwrap_err().reason.contains("32 conditions"));
    let list = format!("tag in ({})", vec!["x"; 201].join(","));
    assert!(Filter::parse(&list, NOW).unwrap_err().reason.contains("200 values"));
}

#[test]
fn ages_become_moments_that_stay() {
    let filter = read("state = dead and age >= 2h and ended_age < 10m");
    let told = filter.to_string();
    assert_eq!(
        told,
        "state = dead and accepted_at <= 2026-11-29T22:00:00.000Z and finished_at > 2026-11-29T23:50:00.000Z"
    );
    assert_eq!(Filter::parse(&told, NOW.plus_ms(99_000_000)).unwrap(), filter);
    let oldest = read("age < 36500d");
    assert_eq!(Filter::parse(&oldest.to_string(), NOW).unwrap(), oldest);
}

#[test]
fn the_journal_narrows_by_what_is_certain() {
    let narrowed =
        read("queue = llm and state = dead and error.class = server and tenant = acme and age > 1h").narrowed();
    assert_eq!((narrowed.queue, narrowed.standing), (Some("llm".into()), Some(Standing::Dead)));
    assert_eq!((narrowed.error_class.as_deref(), narrowed.tenant), (Some("server"), Some("acme".into())));
    assert_eq!(narrowed.until, Some(NOW.plus_ms(-3_600_000)));
    let loose =
        read("queue in (a, b) and kind != llm and state in (ready, dead) and age < 1h and operation ~ x").narrowed();
    assert_eq!((loose.queue, loose.kind, loose.standing, loose.operation), (None, None, None, None));
    assert_eq!(loose.since, Some(NOW.plus_ms(-3_600_000)));
    assert_eq!(read("state in (ready, running)").narrowed().standing, Some(Standing::Live));
    assert_eq!(
        read("state not in (ready, running, scheduled, succeeded, cancelled)").narrowed().standing,
        Some(Standing::Dead)
    );
    assert_eq!(read("accepted_at <= 2026-11-30T00:00:00Z").narrowed().until, Some(NOW.plus_ms(1)));
}

#[test]
fn jobs_that_are_named_are_known() {
    let [older, newer] = [Timestamp(1_000), Timestamp(2_000)].map(JobId::at);
    let ids = |text: &str| read(text).ids();
    assert_eq!(ids(&format!("id in (\"{older}\", {newer}, {newer}) and state = dead")), Some(vec![newer, older]));
    assert_eq!(ids(&format!("id = {older}")), Some(vec![older]));
    assert_eq!(ids("id = nobody"), Some(vec![]), "what is no id is no job's");
    for text in ["state = dead", &format!("id != {older}"), "id ~ 0192"] {
        assert_eq!(ids(text), None, "{text}");
    }
}

#[test]
fn a_callers_own_bounds_are_not_widened() {
    let job = dead_letter();
    let bound = read("state = dead and tenant in (acme, other)").and(Field::Tenant, "other");
    assert!(!bound.matches(&job, State::Dead, &Place::Unknown));
    assert!(read("state = dead").and(Field::Tenant, "acme").matches(&job, State::Dead, &Place::Unknown));
    assert!(read("state = dead and state = ready").states().is_empty());
}

fn condition() -> impl Strategy<Value = Condition> {
    let operators = prop::sample::select(vec![
        Operator::Is,
        Operator::IsNot,
        Operator::Contains,
        Operator::Below,
        Operator::AtMost,
        Operator::Above,
        Operator::AtLeast,
    ]);
    let fields = prop::sample::select(Field::ALL.to_vec());
    let texts = prop::collection::vec("\\PC{1,12}|and|or|in|not|\"|\\\\", 1..4);
    (fields, operators, texts, prop::collection::vec(0..4_000_000_000_i64, 4)).prop_map(
        |(field, operator, texts, numbers)| {
            let is_order = !matches!(operator, Operator::Is | Operator::IsNot | Operator::Contains);
            let (operator, values): (_, Vec<Value>) = match field.form() {
                Form::Text if is_order => (Operator::Contains, vec![Value::Text(texts[0].to_lowercase())]),
                Form::Text => (operator, texts.iter().map(|text| Value::Text(text.to_lowercase())).collect()),
                Form::Word => {
                    let words = field.words();
                    let value = |number: &i64| Value::Text(words[*number as usize % words.len()].to_owned());
                    (Operator::IsNot, numbers.iter().map(value).collect())
                }
                _ if operator == Operator::Contains => (Operator::Is, vec![Value::Number(numbers[0])]),
                _ => (operator, numbers.into_iter().map(Value::Number).collect()),
            };
            let one = !matches!(operator, Operator::Is | Operator::IsNot);
            Condition { field, operator, values: if one { values[..1].to_vec() } else { values } }
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_what_it_was(conditions in prop::collection::vec(condition(), 1..8)) {
        let filter = Filter { conditions };
        let told = filter.to_string();
        if told.len() <= TEXT_MAX_BYTES {
            prop_assert_eq!(Filter::parse(&told, NOW), Ok(filter), "{}", told);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}|[a-z.=<>!~\"\\\\(), ]{0,80}") {
        if let Ok(filter) = Filter::parse(&text, NOW) {
            prop_assert!(!filter.conditions().is_empty());
            filter.matches(&dead_letter(), State::Dead, &Place::Unknown);
        }
    }

    #[test]
    fn the_journal_finds_every_job_that_matches(condition in condition(), state in prop::sample::select(State::ALL.to_vec())) {
        let job = Job { standing: state.standing(), ..dead_letter() };
        let filter = Filter { conditions: vec![condition] };
        if filter.matches(&job, state, &Place::Unknown) {
            let narrowed = filter.narrowed();
            prop_assert!(narrowed.queue.is_none_or(|queue| queue == job.queue));
            prop_assert!(narrowed.standing.is_none_or(|standing| standing == job.standing));
            prop_assert!(narrowed.since.is_none_or(|since| job.accepted_at >= since));
            prop_assert!(narrowed.until.is_none_or(|until| job.accepted_at < until));
        }
    }
}

#[test]
fn an_attempt_has_an_age_while_it_runs() {
    let job = Job { standing: Standing::Live, finished_at: None, ..dead_letter() };
    let session = crate::ids::SessionId::generate();
    let held = |started_at| Place::Leased { epoch: Epoch(3), session, started_at };
    let long = held(Some(NOW.plus_ms(-3_700_000)));
    assert!(read("state = running and running_age > 1h").matches(&job, State::Running, &long));
    assert!(!read("running_age < 1h").matches(&job, State::Running, &long));
    for place in [held(None), Place::Unknown] {
        assert!(!read("running_age > 0s").matches(&job, State::Running, &place), "{place:?}");
    }
}
