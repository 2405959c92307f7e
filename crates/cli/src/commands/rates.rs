//! How often a key or a tenant may ask, as flags and in words.

use serde_json::{Map, Value, json};

/// The fields of the API.
pub(crate) const RATES: [&str; 2] = ["requests_per_minute", "llm_submits_per_minute"];

/// What is set.
#[derive(Debug, clap::Args)]
#[group(id = "rates", required = true, multiple = true, args = ["requests_per_minute", "llm_submits_per_minute"])]
pub(crate) struct Rates {
    /// Requests per minute, or `default`
    #[arg(long, value_name = "N", value_parser = rate)]
    requests_per_minute: Option<Rate>,
    /// Jobs that ask model providers (llm, embedding, analysis) per minute, or `default`
    #[arg(long, value_name = "N", value_parser = rate)]
    llm_submits_per_minute: Option<Rate>,
}

/// A number, or what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate(Option<u32>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "default" {
        return Ok(Rate(None));
    }
    text.parse().map(|number| Rate(Some(number))).map_err(|_| "give a whole number, or `default`".to_owned())
}

impl Rates {
    /// The change that the API is asked for.
    pub(crate) fn body(&self) -> Value {
        let given = [(RATES[0], self.requests_per_minute), (RATES[1], self.llm_submits_per_minute)];
        let named = given.into_iter().filter_map(|(name, rate)| Some((name.to_owned(), json!(rate?.0))));
        Value::Object(named.collect::<Map<_, _>>())
    }
}

/// What an answer of the API says of it.
pub(crate) fn rates_of(body: &Value) -> String {
    let in_words = |name: &str| match body[name].as_u64() {
        Some(rate) => format!("{} {rate}", name.replace('_', " ")),
        None => format!("{} as configured", name.replace('_', " ")),
    };
    RATES.map(in_words).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_what_is_configured() {
        let rates = |requests: Option<&str>, submits: Option<&str>| {
            let read = |text: Option<&str>| text.map(|text| rate(text).unwrap());
            Rates { requests_per_minute: read(requests), llm_submits_per_minute: read(submits) }.body()
        };
        assert_eq!(rates(Some("5"), None), json!({"requests_per_minute": 5}));
        assert_eq!(
            rates(Some("default"), Some("7")),
            json!({"requests_per_minute": null, "llm_submits_per_minute": 7})
        );
        assert!(rate("many").is_err());
    }
}
