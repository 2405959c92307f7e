//! One line for each event: a JSON object, or words for people. Only fields of the list are written, whoever makes the event.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use queue_core::time::{Clock, SystemClock, Timestamp};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

use super::fields;

/// A library whose lines hold answers of models.
pub(super) const NEVER: &str = "async_openai";
/// Field of an event of the `log` crate that says where it comes from.
const LOG_TARGET: &str = "log.target";

/// How a line looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// For people.
    Human {
        /// Whether the level is coloured.
        colours: bool,
    },
    /// For machines.
    Json,
}

/// Writes the lines.
pub(super) struct Lines<W> {
    form: Form,
    out: W,
}

/// What an event or a span says, in its order; of a span only what a line may say.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
    /// Where an event of the `log` crate comes from.
    target: Option<String>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Values that are displayed come here, too, and so does the message. What is not written is not made into text.
        if field.name() == "message" || fields::is_allowed(field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            LOG_TARGET => self.target = Some(value.to_owned()),
            _ => self.keep(field, value.into()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }
}

impl Said {
    fn keep(&mut self, field: &Field, value: Value) {
        if fields::is_allowed(field.name()) {
            self.fields.retain(|(name, _)| *name != field.name());
            self.fields.push((field.name(), value));
        }
    }

    /// With what an enclosing span says, where this says nothing.
    fn within(&mut self, span: &Self) {
        for (name, value) in &span.fields {
            if !self.fields.iter().any(|(known, _)| known == name) {
                self.fields.push((name, value.clone()));
            }
        }
    }
}

impl<W> Lines<W> {
    pub(super) fn new(form: Form, out: W) -> Self {
        Self { form, out }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut said = Said::default();
        attributes.record(&mut said);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(said);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(said) = span.extensions_mut().get_mut::<Said>()
        {
            values.record(said);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let target = said.target.take().unwrap_or_else(|| event.metadata().target().to_owned());
        if target.starts_with(NEVER) {
            return;
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(around) = span.extensions().get::<Said>() {
                said.within(around);
            }
        }
        let (now, level) = (SystemClock.now(), *event.metadata().level());
        let line = match self.form {
            Form::Human { colours } => for_people(now, level, colours, &said),
            Form::Json => for_machines(now, level, &target, said),
        };
        // One write, so that lines of several threads do not mix. Nobody can be told that it failed.
        let _ = self.out.make_writer().write_all(line.as_bytes());
    }
}

/// The members that every line has in this order, as far as it has them; the others follow.
fn for_machines(now: Timestamp, level: Level, target: &str, said: Said) -> String {
    let mut line = String::with_capacity(512);
    let mut member = |name: &str, value: &Value| {
        line.push(if line.is_empty() { '{' } else { ',' });
        // Names are constants without quotes; writing to a string cannot fail.
        let _ = write!(line, "\"{name}\":{value}");
    };
    member("timestamp", &now.to_string().into());
    member("level", &level.as_str().into());
    member("message", &said.message.into());
    let (first, rest): (Vec<_>, Vec<_>) = said.fields.iter().partition(|(name, _)| fields::FIRST.contains(name));
    for name in fields::FIRST {
        if let Some((_, value)) = first.iter().find(|(known, _)| *known == name) {
            member(name, value);
        }
    }
    for (name, value) in rest {
        member(name, value);
    }
    member("module", &target.into());
    line.push_str("}\n");
    line
}

fn for_people(now: Timestamp, level: Level, colours: bool, said: &Said) -> String {
    let mut line = String::with_capacity(256);
    let (begin, end) = if colours { (colour(level), "\u{1b}[0m") } else { ("", "") };
    let _ = write!(line, "{now} {begin}{:>5}{end} ", level.as_str());
    push_plain(&mut line, &said.message);
    for (name, value) in &said.fields {
        let _ = write!(line, " {name}=");
        match value {
            Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                push_plain(&mut line, &value.to_string());
            }
            Value::String(text) => push_plain(&mut line, text),
            other => {
                let _ = write!(line, "{other}");
            }
        }
    }
    line.push('\n');
    line
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    }
}

/// What somebody else said must not begin a line of its own, or command a terminal.
fn push_plain(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(form: Form, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let out = kept.clone();
        let subscriber = tracing_subscriber::registry().with(Lines::new(form, move || out.clone()));
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    fn events() {
        let job = tracing::info_span!("attempt", job_id = "j-1", tenant = "outer", payload = "canary");
        let _inside = job.enter();
        tracing::info!(
            tenant = "acme",
            attempt = 2_u64,
            request_id = None::<&str>,
            trace_id = Some("t"),
            prompt = "canary",
            reason = %"a\nb c",
            "attempt {}",
            "ended"
        );
        tracing::warn!(target: "async_openai::client", "canary");
        tracing::error!(body = ?"canary");
    }

    #[test]
    fn a_line_for_machines_has_its_members_in_front_and_nothing_that_is_not_listed() {
        let text = logged(Form::Json, events);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(!text.contains("canary"), "{text}");
        let (at, rest) = lines[0].split_at("{\"timestamp\":\"2026-11-30T12:00:00.000Z\",".len());
        at.strip_prefix("{\"timestamp\":\"").unwrap()[..24].parse::<Timestamp>().unwrap();
        assert_eq!(
            rest,
            "\"level\":\"INFO\",\"message\":\"attempt ended\",\"trace_id\":\"t\",\"job_id\":\"j-1\",\"tenant\":\"acme\",\
             \"attempt\":2,\"reason\":\"a\\nb c\",\"module\":\"longshore::logs::line::tests\"}"
        );
        let second: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(
            (&second["level"], &second["job_id"], &second["tenant"]),
            (&"ERROR".into(), &"j-1".into(), &"outer".into())
        );
    }

    #[test]
    fn a_line_for_people_stays_one_line() {
        let text = logged(Form::Human { colours: false }, events);
        let (first, rest) = text.split_once('\n').unwrap();
        assert_eq!(&first[24..], "  INFO attempt ended tenant=acme attempt=2 trace_id=t reason=\"a\\nb c\" job_id=j-1");
        assert_eq!(rest.lines().count(), 1, "{text}");
        let coloured = logged(Form::Human { colours: true }, || tracing::warn!("x"));
        assert!(coloured.contains("\u{1b}[33m WARN\u{1b}[0m x\n"), "{coloured:?}");
    }
}
