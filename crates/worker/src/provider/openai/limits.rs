//! What a provider says of its own limits, in the headers of every answer.

use queue_core::limiter::Told;
use reqwest::header::HeaderMap;

/// Limits per minute and what is left of them. Azure and others send `0` or `-1` as a limit where there is none; what is
/// left then means nothing either.
pub(super) fn told(headers: &HeaderMap) -> Told {
    let [requests_limit, requests_left] = pair(headers, "requests");
    let [tokens_limit, tokens_left] = pair(headers, "tokens");
    Told { requests_limit, requests_left, tokens_limit, tokens_left }
}

fn pair(headers: &HeaderMap, kind: &str) -> [Option<u64>; 2] {
    let number =
        |what: &str| headers.get(format!("x-ratelimit-{what}-{kind}"))?.to_str().ok()?.trim().parse::<f64>().ok();
    match number("limit") {
        Some(limit) if limit >= 1.0 && limit.is_finite() => {
            let left = number("remaining").filter(|left| left.is_finite()).map(|left| left.max(0.0) as u64);
            [Some(limit as u64), left]
        }
        // Without a limit nobody knows of what it is left.
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;

    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Told {
        let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        told(&HeaderMap::from_iter(pairs))
    }

    #[test]
    fn a_limit_and_what_is_left_of_it_are_read_together() {
        let both = of(&[
            ("x-ratelimit-limit-requests", "600"),
            ("x-ratelimit-remaining-requests", "599"),
            ("x-ratelimit-limit-tokens", "100000"),
            ("x-ratelimit-remaining-tokens", "0"),
        ]);
        let wanted = Told {
            requests_limit: Some(600),
            requests_left: Some(599),
            tokens_limit: Some(100_000),
            tokens_left: Some(0),
        };
        assert_eq!(both, wanted);
        for none in ["0", "-1", "many", "NaN", "inf", ""] {
            assert!(
                of(&[("x-ratelimit-limit-tokens", none), ("x-ratelimit-remaining-tokens", "5")]).is_empty(),
                "{none}"
            );
        }
        assert!(of(&[("x-ratelimit-remaining-requests", "9")]).is_empty());
    }
}
