//! Numbers, times and states as people read them. Templates call these by path: `{{ crate::words::count(row.waiting) }}`.
//!
//! All take values and references alike, as templates pass either.

use std::fmt;

use askama::filters::HtmlSafe;
use jiff::{Timestamp, tz::TimeZone};

/// Letters of an id that tell it apart from others on a page.
const SHORT_CHARS: usize = 8;
/// Deepest indent of a document, in steps: what is deeper stands below each other.
const INDENT_MAX: usize = 40;
/// Nano-dollars of a dollar.
pub(crate) const NANOUSD: i128 = 1_000_000_000;

/// A value that templates pass as it is or by reference, as their expression happens to be.
pub(crate) trait Plain<T> {
    /// The value.
    fn plain(self) -> T;
}

macro_rules! plain {
    ($($of:ty),*) => {$(
        impl Plain<$of> for $of {
            fn plain(self) -> $of {
                self
            }
        }
        impl Plain<$of> for &$of {
            fn plain(self) -> $of {
                *self
            }
        }
        impl Plain<$of> for &&$of {
            fn plain(self) -> $of {
                **self
            }
        }
    )*};
}

plain!(u64, i64, f64, Timestamp);

/// HTML that was built from escaped parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Safe(String);

impl Safe {
    /// HTML whose variable parts went through [`escape`].
    pub(crate) fn new(html: String) -> Self {
        Self(html)
    }
}

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Safe {}

/// Text that is inert in HTML, also within a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A time of the API (RFC 3339).
pub(crate) fn timestamp(text: impl AsRef<str>) -> Option<Timestamp> {
    text.as_ref().parse().ok()
}

/// The same in milliseconds since 1970.
pub(crate) fn ms_of(text: impl AsRef<str>) -> Option<i64> {
    timestamp(text).map(Timestamp::as_millisecond)
}

/// The span between a time and now: `3 min ago`, `in 2 h`.
pub(crate) fn ago(text: impl AsRef<str>, now: impl Plain<Timestamp>) -> String {
    let Some(at) = timestamp(text.as_ref()) else { return text.as_ref().to_owned() };
    let past_ms = now.plain().as_millisecond() - at.as_millisecond();
    match past_ms {
        -999..=999 => "now".to_owned(),
        past if past > 0 => format!("{} ago", coarse(past)),
        ahead => format!("in {}", coarse(-ahead)),
    }
}

/// How long ago, in its largest unit.
fn coarse(ms: i64) -> String {
    let s = ms / 1_000;
    match s {
        0..=119 => format!("{s} s"),
        120..=7_199 => format!("{} min", s / 60),
        7_200..=172_799 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// A time as an element: `2026-11-30 16:42:03`, always UTC.
pub(crate) fn clock(text: impl AsRef<str>) -> Safe {
    let text = text.as_ref();
    match timestamp(text) {
        Some(at) => {
            let zoned = at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string();
            Safe(format!("<time datetime=\"{}\" title=\"{zoned} UTC\">{zoned}</time>", escape(text)))
        }
        None => Safe(escape(text)),
    }
}

/// The same as the span to now, with the time itself in the title.
pub(crate) fn since(text: impl AsRef<str>, now: impl Plain<Timestamp>) -> Safe {
    let text = text.as_ref();
    match timestamp(text) {
        Some(at) => {
            let zoned = at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S");
            let span = ago(text, now);
            Safe(format!("<time datetime=\"{}\" title=\"{zoned} UTC\">{span}</time>", escape(text)))
        }
        None => Safe(escape(text)),
    }
}

/// A time of ours as text: `2026-11-30 16:42:03`.
pub(crate) fn clock_of(at: impl Plain<Timestamp>) -> String {
    at.plain().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time of day of a time: `16:42`.
pub(crate) fn minute(text: impl AsRef<str>) -> String {
    let at = timestamp(text.as_ref()).map(|at| at.to_zoned(TimeZone::UTC).strftime("%H:%M").to_string());
    at.unwrap_or_else(|| text.as_ref().to_owned())
}

/// The time between two times, in milliseconds; nothing where one is none.
pub(crate) fn between_ms(from: impl AsRef<str>, to: impl AsRef<str>) -> Option<i64> {
    Some(ms_of(to)? - ms_of(from)?)
}

/// A span in milliseconds: `340 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`.
pub(crate) fn duration(ms: impl Plain<i64>) -> String {
    let ms = ms.plain();
    if ms < 0 {
        return format!("-{}", duration(ms.saturating_neg().max(0)));
    }
    let two = |whole: i64, large: &str, rest: i64, small: &str| match rest {
        0 => format!("{whole} {large}"),
        rest => format!("{whole} {large} {rest} {small}"),
    };
    let s = ms / 1_000;
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=9_999 => format!("{s}.{} s", ms % 1_000 / 100),
        10_000..=119_999 => format!("{s} s"),
        120_000..=7_199_999 => two(s / 60, "min", s % 60, "s"),
        7_200_000..=172_799_999 => two(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// A span in seconds, with a fraction.
pub(crate) fn seconds(s: impl Plain<f64>) -> String {
    duration((s.plain() * 1_000.0) as i64)
}

/// A number with its thousands apart: `12,345`.
pub(crate) fn count(n: impl Plain<u64>) -> String {
    grouped(&n.plain().to_string())
}

fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number in three digits: `1.2k`, `34M`.
pub(crate) fn compact(n: impl Plain<f64>) -> String {
    let n = n.plain();
    let (scaled, unit) = match n.abs() {
        size if size >= 999_950_000.0 => (n / 1e9, "G"),
        size if size >= 999_950.0 => (n / 1e6, "M"),
        size if size >= 999.95 => (n / 1e3, "k"),
        _ => (n, ""),
    };
    let places = match scaled.abs() {
        large if large >= 99.95 => 0,
        some if some >= 0.095 => 1,
        _ => 3,
    };
    let text = format!("{scaled:.places$}");
    let text = if places > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// An amount of money as the API says it (decimal text, in US dollars): cents, and below a dollar so many digits that it is not
/// nothing. `$1,234.57`, `$0.05`, `$0.0012`.
pub(crate) fn usd(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    let Some(nanousd) = nanousd(text) else { return text.to_owned() };
    let (sign, size) = if nanousd < 0 { ("-", -nanousd) } else { ("", nanousd) };
    // Two digits after the first that is not 0, at most all nine.
    let places = match size {
        0 => 2,
        size if size >= NANOUSD / 10 => 2,
        size => (9 - size.ilog10() + 1).min(9),
    };
    let unit = 10_i128.pow(9 - places);
    let rounded = (size + unit / 2) / unit;
    let whole = rounded / 10_i128.pow(places);
    let fraction = rounded % 10_i128.pow(places);
    let fraction = format!("{fraction:0width$}", width = places as usize);
    let fraction = if places > 2 { trim_to(&fraction, 2) } else { &fraction };
    format!("{sign}${}.{fraction}", grouped(&whole.to_string()))
}

/// The text without zeros at its end, but at least so long.
fn trim_to(text: &str, least: usize) -> &str {
    let trimmed = text.trim_end_matches('0');
    &text[..trimmed.len().max(least).min(text.len())]
}

/// An amount as the API writes it: dollars with nine decimals.
pub(crate) fn decimal(nanousd: i128) -> String {
    let sign = if nanousd < 0 { "-" } else { "" };
    let size = nanousd.abs();
    format!("{sign}{}.{:09}", size / NANOUSD, size % NANOUSD)
}

/// Decimal text as nano-dollars; what is finer than those is cut.
pub(crate) fn nanousd(text: &str) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 18 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let size = whole.parse::<i128>().ok()? * NANOUSD + fraction.parse::<i128>().ok()?;
    Some(if negative { -size } else { size })
}

/// The first letters of an id; the whole belongs into a title. Ids begin with their time, so those made together differ at their
/// end: of a UUID these are the last letters.
pub(crate) fn short(id: impl AsRef<str>) -> String {
    let id = id.as_ref();
    let letters = id.chars().count();
    if letters <= SHORT_CHARS + 2 {
        return id.to_owned();
    }
    let is_uuid = letters == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_uuid {
        return format!("…{}", id.chars().skip(letters - SHORT_CHARS).collect::<String>());
    }
    format!("{}…", id.chars().take(SHORT_CHARS).collect::<String>())
}

/// A size: `340 B`, `1.5 KiB`, `20 MiB`.
pub(crate) fn bytes(n: impl Plain<u64>) -> String {
    let n = n.plain();
    let (unit, name) = match n {
        0..=1_023 => return format!("{n} B"),
        1_024..=1_048_575 => (1_u64 << 10, "KiB"),
        1_048_576..=1_073_741_823 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let tenths = (n as u128 * 10 + u128::from(unit) / 2) / u128::from(unit);
    match tenths {
        0..=99 if !tenths.is_multiple_of(10) => format!("{}.{} {name}", tenths / 10, tenths % 10),
        _ => format!("{} {name}", tenths.div_ceil(10).min(tenths / 10 + u128::from(tenths % 10 >= 5))),
    }
}

/// How many: `1 job`, `12,345 jobs`.
pub(crate) fn plural(n: impl Plain<u64>, one: &str) -> String {
    let n = n.plain();
    match (n, one) {
        (1, _) => format!("1 {one}"),
        (_, one) if one.ends_with('y') && !one.ends_with("ay") && !one.ends_with("ey") => {
            format!("{} {}ies", count(n), &one[..one.len() - 1])
        }
        (_, one) if one.ends_with('s') || one.ends_with("ch") => format!("{} {one}es", count(n)),
        (_, one) => format!("{} {one}s", count(n)),
    }
}

/// A share of 1 as percent: `0.4 %`, `12 %`.
pub(crate) fn percent(share: impl Plain<f64>) -> String {
    let percent = share.plain() * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        little if little < 0.1 => "< 0.1 %".to_owned(),
        some if some < 10.0 => format!("{some:.1} %"),
        much => format!("{much:.0} %"),
    }
}

/// JSON text with a line for each member, its keys and numbers as they are. What is no JSON is only broken up.
pub(crate) fn pretty_json(text: impl AsRef<str>) -> String {
    let mut out = String::with_capacity(text.as_ref().len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut letters = text.as_ref().chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(INDENT_MAX)));
    };
    while let Some(letter) = letters.next() {
        if in_text {
            out.push(letter);
            (in_text, escaped) = (escaped || letter != '"', letter == '\\' && !escaped);
            continue;
        }
        match letter {
            space if space.is_ascii_whitespace() => {}
            '"' => {
                in_text = true;
                out.push(letter);
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

/// A state as a badge: its word, with a mark and a colour beside it.
pub(crate) fn state(word: impl AsRef<str>) -> Safe {
    let word = word.as_ref();
    let (tone, mark) = match word {
        "succeeded" | "done" | "healthy" | "ok" | "closed" | "alive" | "active" | "completed" | "verified" | "on"
        | "delivered" => ("good", "✓"),
        "running" | "working" | "half_open" | "half-open" | "probing" => ("busy", "▶"),
        "ready" | "waiting" | "queued" | "pending" => ("calm", "●"),
        "scheduled" | "delayed" | "retrying" => ("calm", "◷"),
        "dead" | "failed" | "open" | "expired" | "revoked" | "unhealthy" | "lost" | "gone" | "spent" | "error" => {
            ("bad", "✕")
        }
        "paused" | "parked" | "draining" | "degraded" | "drained" | "warning" | "penalty" | "stale" => ("warn", "‖"),
        "cancelled" | "aborted" | "off" | "archived" | "skipped" | "erased" | "deleted" => ("dim", "–"),
        _ => ("calm", "●"),
    };
    let shown = escape(&word.replace('_', " "));
    Safe(format!("<span class=\"state {tone}\"><span aria-hidden=\"true\">{mark}</span>{shown}</span>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_at_a_glance() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        for (text, words) in [
            ("2026-11-30T11:59:59.500Z", "now"),
            ("2026-11-30T11:58:20Z", "100 s ago"),
            ("2026-11-30T11:57:00Z", "3 min ago"),
            ("2026-11-30T15:00:01Z", "in 3 h"),
            ("2026-11-20T12:00:00Z", "10 d ago"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(ago(text, now), words);
        }
        for (ms, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (4_250, "4.2 s"),
            (60_000, "60 s"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
            (356_400_000, "4 d 3 h"),
            (-5_000, "-5.0 s"),
        ] {
            assert_eq!(duration(ms), words);
        }
        assert_eq!(seconds(0.4), "400 ms");
    }

    #[test]
    fn numbers_are_grouped_and_named() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        let compacts =
            [(0.0, "0"), (0.04, "0.04"), (3.25, "3.2"), (999.0, "999"), (1_234.0, "1.2k"), (2_000_000.0, "2M")];
        for (n, text) in compacts {
            assert_eq!(compact(n), text);
        }
        assert_eq!((bytes(1_023), bytes(1_536), bytes(20 << 20)), ("1023 B".into(), "1.5 KiB".into(), "20 MiB".into()));
        assert_eq!((plural(1, "job"), plural(1_200, "job")), ("1 job".into(), "1,200 jobs".into()));
        assert_eq!(
            (plural(2, "retry"), plural(2, "day"), plural(0, "process")),
            ("2 retries".into(), "2 days".into(), "0 processes".into())
        );
        assert_eq!(
            (percent(0.0), percent(0.0004), percent(0.034), percent(0.5)),
            ("0 %".into(), "< 0.1 %".into(), "3.4 %".into(), "50 %".into())
        );
    }

    #[test]
    fn money_is_never_nothing_when_it_is_something() {
        for (text, words) in [
            ("0", "$0.00"),
            ("0.05", "$0.05"),
            ("0.5", "$0.50"),
            ("1234.567", "$1,234.57"),
            ("0.00123456", "$0.0012"),
            ("0.000000001", "$0.000000001"),
            ("-2.5", "-$2.50"),
            ("0.01", "$0.01"),
            ("0.099999", "$0.10"),
            ("a lot", "a lot"),
        ] {
            assert_eq!(usd(text), words, "{text}");
        }
        assert_eq!(nanousd("1.0000000019"), Some(1_000_000_001));
    }

    #[test]
    fn nothing_that_users_named_is_markup() {
        let hostile = "\"><script>alert(1)</script>'&";
        for safe in [state(hostile), clock(hostile), since(hostile, Timestamp::UNIX_EPOCH)] {
            let text = safe.to_string();
            assert!(!text.contains("<script") && !text.contains("\">&lt;"), "{text}");
        }
        assert_eq!(escape(hostile), "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;");
    }

    #[test]
    fn a_document_keeps_its_keys_and_numbers() {
        let text = r#"{"b":1.10,"a":[ ],"c":{"x\"},":[1,{"y":null}]}}"#;
        let pretty = "{\n  \"b\": 1.10,\n  \"a\": [],\n  \"c\": {\n    \"x\\\"},\": [\n      1,\n      {\n        \"y\": null\n      \
                      }\n    ]\n  }\n}";
        assert_eq!(pretty_json(text), pretty);
    }

    #[test]
    fn ids_made_together_look_different() {
        assert_eq!(short("0198c3a1-7f00-7000-8000-0123456789ab"), "…456789ab");
        assert_eq!((short("abcd1234"), short("sub:0123456789")), ("abcd1234".into(), "sub:0123…".into()));
    }
}
