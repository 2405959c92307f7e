//! How long a provider asks to wait, in its headers.

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The wish for a pause in milliseconds: `retry-after-ms`, else `retry-after` (seconds or a date), else the time
/// until the provider's own window opens again (`x-ratelimit-reset-*`).
pub(super) fn asked_for(headers: &HeaderMap) -> Option<u64> {
    let exact =
        ["retry-after-ms", "x-ms-retry-after-ms"].into_iter().find_map(|name| milliseconds(text(headers, name)?));
    exact.or_else(|| after(headers)).or_else(|| until_reset(headers))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(HeaderName::try_from(name).ok()?)?.to_str().ok().map(str::trim)
}

fn milliseconds(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    // A wait beyond what a number can hold is no wait but a mistake.
    (number.is_finite() && (0.0..1e15).contains(&number)).then(|| number.ceil() as u64)
}

fn seconds(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && (0.0..1e12).contains(&number)).then(|| (number * 1_000.0).ceil() as u64)
}

fn after(headers: &HeaderMap) -> Option<u64> {
    let wish = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    seconds(wish).or_else(|| {
        // A date is judged by the clock that wrote it, not by ours.
        let [then, now] = [wish, headers.get(DATE)?.to_str().ok()?].map(http_date);
        Some(u64::try_from(then?.saturating_sub(now?)).unwrap_or(0).saturating_mul(1_000))
    })
}

/// Seconds since 1970 of a date as HTTP writes it.
fn http_date(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_second())
}

/// Azure and others send `0` or `-1` as a limit where there is none; their reset then means nothing.
fn until_reset(headers: &HeaderMap) -> Option<u64> {
    let mut longest = None;
    for kind in ["requests", "tokens"] {
        let limit = text(headers, &format!("x-ratelimit-limit-{kind}")).and_then(|limit| limit.parse::<f64>().ok());
        let Some(reset) = text(headers, &format!("x-ratelimit-reset-{kind}")).and_then(duration) else { continue };
        if limit.is_none_or(|limit| limit > 0.0) {
            longest = longest.max(Some(reset));
        }
    }
    longest
}

/// `1s`, `6m0s`, `17ms`, `59.7s`, `1h2m3s` or plain seconds, in milliseconds.
fn duration(text: &str) -> Option<u64> {
    if let Some(plain) = seconds(text) {
        return Some(plain);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 1.0,
                "s" => 1_000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                "d" => 86_400_000.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && (0.0..1e15).contains(&total)).then(|| total.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        asked_for(&HeaderMap::from_iter(pairs))
    }

    #[test]
    fn the_most_exact_wish_wins() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: &[(Headers, Option<u64>)] = &[
            (&[("retry-after-ms", "250"), ("retry-after", "9"), ("x-ratelimit-reset-requests", "1m0s")], Some(250)),
            (&[("retry-after", "9"), ("x-ratelimit-reset-requests", "1m0s")], Some(9_000)),
            (&[("retry-after", "1.5")], Some(1_500)),
            (
                &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), ("date", "Wed, 21 Oct 2015 07:27:50 GMT")],
                Some(10_000),
            ),
            (&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), ("date", "Wed, 21 Oct 2015 07:30:00 GMT")], Some(0)),
            (&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], None),
            (&[("x-ratelimit-reset-requests", "17ms")], Some(17)),
            (&[("x-ratelimit-reset-tokens", "6m0s")], Some(360_000)),
            (&[("x-ratelimit-reset-tokens", "59.7s"), ("x-ratelimit-reset-requests", "1s")], Some(59_700)),
            (&[("x-ratelimit-reset-tokens", "1h2m3s")], Some(3_723_000)),
            (&[("x-ratelimit-reset-requests", "12")], Some(12_000)),
            (&[("x-ratelimit-limit-tokens", "-1"), ("x-ratelimit-reset-tokens", "9s")], None),
            (&[("retry-after", "soon"), ("x-ratelimit-reset-requests", "1s")], Some(1_000)),
            (&[("retry-after", "-5")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "1e300")], None),
            (&[("retry-after-ms", "")], None),
            (&[("x-ratelimit-reset-requests", "5 parsecs")], None),
            (&[("x-ratelimit-reset-requests", "")], None),
            (&[], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(asked(headers), *expected, "{headers:?}");
        }
    }
}
