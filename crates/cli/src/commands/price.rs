//! `longshore price …`: what models cost, whether that is still right, and where to take prices from.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use queue_core::{
    ledger::{Model, Nanousd, PriceBook, Tier, litellm},
    time::{Clock, SystemClock},
};
use serde_json::{Value, json};

use crate::{
    client::Client,
    config::Config,
    failure::{Exit, Failure, Outcome},
    output::{self, Output, cell, items},
};

/// Days after which prices are called old: vendors change some every quarter.
const STALE_DAYS: i64 = 90;

/// What models in use are looked for in.
const LEDGER_SINCE: &str = "30d";

/// Largest table that is read: ten times LiteLLM's of 2026.
const TABLE_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// What can be done with prices.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every model's prices, in dollars for a million tokens
    List {
        /// Only models whose name contains this
        #[arg(value_name = "TEXT")]
        matching: Option<String>,
        #[command(flatten)]
        source: Source,
    },
    /// Compare prices with the models in use, with the shipped prices and with the calendar
    Check {
        #[command(flatten)]
        source: Source,
    },
    /// Turn another price table into a file for `prices_file`
    #[command(subcommand)]
    Import(Import),
}

/// Where the prices come from.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// The configuration file, whose `prices_file` goes over the shipped prices [env: LONGSHORE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Tables that can be read.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Import {
    /// LiteLLM's model_prices_and_context_window.json, from your own copy
    Litellm {
        /// The table
        file: PathBuf,
        /// Only models whose name contains this; may be given several times
        #[arg(long = "model", value_name = "TEXT")]
        models: Vec<String>,
        /// Only models of this provider as the table names it, e.g. openai; may be given several times
        #[arg(long = "provider", value_name = "NAME")]
        providers: Vec<String>,
        /// The day on which the copy was made, YYYY-MM-DD [default: the day of the file]
        #[arg(long, value_name = "DAY")]
        as_of: Option<String>,
        /// Where to write the prices [default: stdout]
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Shows the prices of this configuration.
pub(crate) fn list(config: &Config, matching: Option<&str>, out: Output) -> Outcome {
    let models = config.prices.models();
    let wanted = |model: &&Model| matching.is_none_or(|text| model.name.contains(text));
    let models: Vec<_> = models.into_iter().filter(wanted).collect();
    let body = json!({
        "version": config.prices.version(),
        "as_of": config.prices.as_of(),
        "unit": "pico-USD per token",
        "models": models.iter().map(|model| named(model)).collect::<Result<Vec<_>, _>>()?,
    });
    out.show(&body, || {
        let headers =
            ["MODEL", ">INPUT", ">CACHED", ">CACHE WRITE", ">OUTPUT", ">LONG ABOVE", "TIERS", ">WINDOW", ">MAX OUTPUT"];
        output::table(&headers, models.iter().map(|model| row(model)).collect());
        output::note(&format!(
            "US dollars for a million tokens; prices {} of {}",
            config.prices.version(),
            config.prices.as_of()
        ));
    });
    Ok(if models.is_empty() { Exit::NotFound } else { Exit::Ok })
}

fn named(model: &Model) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(model).map_err(|error| Failure::error(error.to_string()))?;
    value["model"] = model.name.as_str().into();
    Ok(value)
}

/// Pico-USD a token as dollars for a million tokens.
fn per_million(price: Option<u64>) -> String {
    let nanousd = |pico: u64| Nanousd(i64::try_from(pico.saturating_mul(1_000)).unwrap_or(i64::MAX));
    price.map(|pico| nanousd(pico).to_string()).unwrap_or_default()
}

fn row(model: &Model) -> Vec<String> {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let tiers = [Tier::Batch, Tier::Flex, Tier::Priority];
    let tiers: Vec<_> = tiers.into_iter().filter(|tier| model.rates(*tier).is_some()).map(Tier::as_str).collect();
    vec![
        model.name.clone(),
        per_million(model.input),
        per_million(model.cached_input),
        per_million(model.cache_write),
        per_million(model.output),
        number(model.long.map(|long| long.above)),
        tiers.join(", "),
        number(model.context_window),
        number(model.max_output),
    ]
}

/// Something about the prices that somebody should know.
struct Finding {
    /// `unpriced`, `differs` or `stale`.
    what: &'static str,
    model: String,
    detail: String,
}

/// Looks whether the prices of this configuration are enough and still right. Models in use without a price fail it: their
/// calls are in no sum.
pub(crate) async fn check(config: &Config, client: &Client, out: Output) -> Outcome {
    let query = [("group_by", Some("model,provider".to_owned())), ("since", Some(LEDGER_SINCE.to_owned()))];
    let ledger = client.get(&["v1", "costs"], &query).await?;
    let findings = findings(&config.prices, items(&ledger, "rows"));
    let unpriced = findings.iter().any(|finding| finding.what == "unpriced");
    let shown: Vec<_> = findings
        .iter()
        .map(|finding| json!({"finding": finding.what, "model": finding.model, "detail": finding.detail}))
        .collect();
    let body = json!({"version": config.prices.version(), "as_of": config.prices.as_of(), "findings": shown});
    out.show(&body, || {
        if findings.is_empty() {
            output::line("every model in use has a price, and none differs from the shipped ones");
        } else {
            let row = |finding: &Finding| vec![finding.what.into(), finding.model.clone(), finding.detail.clone()];
            output::table(&["FINDING", "MODEL", "DETAIL"], findings.iter().map(row).collect());
        }
        if unpriced {
            output::note("write what such models cost into your prices_file; 0 where they are free");
        }
    });
    Ok(if unpriced { Exit::Error } else { Exit::Ok })
}

/// What there is to say about `prices`, given the ledger's rows by model and provider.
fn findings(prices: &PriceBook, rows: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in rows {
        let (model, provider) = (cell(row, "model"), cell(row, "provider"));
        let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
        let known = prices.model(&model).is_some_and(|model| model.rates(Tier::Standard).is_some());
        let (calls, without) = (number("calls"), number("calls_unpriced"));
        let detail = match (known, without) {
            (false, _) if calls > 0 => {
                format!("no price; {calls} calls to {provider} in {LEDGER_SINCE}, {without} without a cost")
            }
            (true, 1..) => format!(
                "{without} of {calls} calls to {provider} had no price when they were made, or not in their tier"
            ),
            _ => continue,
        };
        let what = if known { "was unpriced" } else { "unpriced" };
        findings.push(Finding { what, model, detail });
    }
    let shipped = PriceBook::shipped();
    for model in prices.models() {
        let Some(other) = shipped.models().into_iter().find(|shipped| shipped.name == model.name) else { continue };
        if other != model {
            let of = |model: &Model| format!("{} in, {} out", per_million(model.input), per_million(model.output));
            let detail = format!("yours {}; shipped {} (a million tokens)", of(model), of(other));
            findings.push(Finding { what: "differs", model: model.name.clone(), detail });
        }
    }
    match prices.age_days(SystemClock.now()) {
        None => findings.push(Finding {
            what: "stale",
            model: String::new(),
            detail: "a price file has no day in `as_of`: nobody knows how old it is".into(),
        }),
        Some(days) if days > STALE_DAYS => findings.push(Finding {
            what: "stale",
            model: String::new(),
            detail: format!("the prices are {days} days old (as_of {}); vendors change theirs", prices.as_of()),
        }),
        Some(_) => {}
    }
    findings
}

/// Reads the table and writes the prices, and tells what was left out.
pub(crate) fn import(import: &Import, out: Output) -> Outcome {
    let Import::Litellm { file, models, providers, as_of, out: target } = import;
    let failed = |reason: String| Failure::usage(format!("{}: {reason}", file.display()));
    let text = read(file).map_err(|error| failed(error.to_string()))?;
    let as_of = match as_of {
        Some(day) if is_day(day) => day.clone(),
        Some(day) => return Err(Failure::usage(format!("--as-of is `{day}`; it is a day such as 2026-11-21"))),
        None => day_of(file).map_err(|error| failed(error.to_string()))?,
    };
    let wants = |name: &str, provider: &str| {
        let named = models.is_empty() || models.iter().any(|text| name.contains(text.as_str()));
        named && (providers.is_empty() || providers.iter().any(|one| one == provider))
    };
    let imported =
        litellm::import(&text, &format!("litellm-{as_of}"), &as_of, wants).map_err(|error| failed(error.0))?;
    let toml = imported.book.to_toml().map_err(|error| failed(error.0))?;
    let taken = imported.book.models().len();
    match target {
        Some(path) => write_new(path, &toml)?,
        None if out.json => {}
        None => output::text_out(&toml),
    }
    let pairs = |list: &[(String, String)], what: &str| {
        list.iter().map(|(model, detail)| json!({"model": model, what: detail})).collect::<Vec<_>>()
    };
    let body = json!({
        "models": taken,
        "file": target,
        "toml": target.is_none().then_some(&toml),
        "left_out": pairs(&imported.left_out, "reason"),
        "ignored": pairs(&imported.ignored, "price"),
    });
    if out.json {
        out.value(&body);
    } else {
        for (model, reason) in &imported.left_out {
            output::note(&format!("left out  {model}: {reason}"));
        }
        for (model, price) in &imported.ignored {
            output::note(&format!("ignored   {model}: {price} is not part of a cost here"));
        }
        output::note(&format!(
            "{taken} models taken, {} left out, {} prices of others ignored",
            imported.left_out.len(),
            imported.ignored.len()
        ));
    }
    Ok(match (taken, imported.left_out.is_empty()) {
        (0, _) => Exit::NotFound,
        (_, true) => Exit::Ok,
        (_, false) => Exit::Partial,
    })
}

fn read(file: &Path) -> io::Result<String> {
    let size = fs::metadata(file)?.len();
    if size > TABLE_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes are too many")));
    }
    fs::read_to_string(file)
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && format!("{text}T00:00:00Z").parse::<queue_core::time::Timestamp>().is_ok()
}

/// The day on which a file was last written.
fn day_of(file: &Path) -> io::Result<String> {
    let written = fs::metadata(file)?.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let at = queue_core::time::Timestamp::default().plus(written).to_string();
    Ok(at.get(..10).unwrap_or_default().to_owned())
}

/// Writes a file that must not be there: prices that somebody has corrected by hand are not written over unasked.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let message = format!("{} exists already: move it away first; nothing was written", path.display());
                Failure { exit: Exit::Refused, message, problem: None }
            }
            _ => Failure::error(format!("{}: {error}", path.display())),
        })?;
    file.write_all(text.as_bytes()).map_err(|error| Failure::error(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_shown_for_a_million_tokens() {
        assert_eq!(per_million(Some(150_000)), "0.15");
        assert_eq!(per_million(Some(130)), "0.00013");
        assert_eq!(per_million(Some(60_000_000)), "60.00");
        assert_eq!(per_million(None), "");
    }

    #[test]
    fn a_check_tells_what_lacks_a_price_differs_or_is_old() {
        let text = "version = \"mine\"\nas_of = \"2025-01-01\"\n[models.\"gpt-4o\"]\ninput = 1_000\noutput = 2_000";
        let prices = PriceBook::shipped().with_overrides(PriceBook::parse(text).unwrap());
        let row = |model: &str, calls: u64, without: u64| json!({"model": model, "provider": "p", "calls": calls, "calls_unpriced": without});
        let rows = [row("gpt-4o-mini", 9, 0), row("smollm2", 5, 5), row("gpt-4o", 4, 1), row("never-called", 0, 0)];
        let told: Vec<_> = findings(&prices, &rows).into_iter().map(|one| (one.what, one.model)).collect();
        let expected = [("unpriced", "smollm2"), ("was unpriced", "gpt-4o"), ("differs", "gpt-4o"), ("stale", "")];
        assert_eq!(told, expected.map(|(what, model)| (what, model.to_owned())));
        let without_day = PriceBook::shipped().with_overrides(PriceBook::parse("version = \"mine\"").unwrap());
        assert_eq!(findings(&without_day, &[]).iter().map(|one| one.what).collect::<Vec<_>>(), ["stale"]);
    }

    #[test]
    fn an_import_writes_a_file_that_reads_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let (table, target) = (folder.path().join("table.json"), folder.path().join("prices.toml"));
        let text = r#"{"a": {"mode": "chat", "litellm_provider": "x", "input_cost_per_token": 1e-07,
                             "output_cost_per_token": 2e-07},
                       "b": {"mode": "image_generation", "litellm_provider": "x"},
                       "c": {"mode": "chat", "litellm_provider": "y"}}"#;
        fs::write(&table, text).unwrap();
        let of = |providers: &[&str], as_of: Option<&str>| Import::Litellm {
            file: table.clone(),
            models: vec![],
            providers: providers.iter().map(|name| (*name).to_owned()).collect(),
            as_of: as_of.map(str::to_owned),
            out: Some(target.clone()),
        };
        let quiet = Output { json: true };
        assert_eq!(import(&of(&["x"], Some("2026-11-21")), quiet).unwrap(), Exit::Partial);
        let book = PriceBook::parse(&fs::read_to_string(&target).unwrap()).unwrap();
        assert_eq!((book.version(), book.as_of()), ("litellm-2026-11-21", "2026-11-21"));
        assert_eq!(book.models().len(), 1);
        assert!(import(&of(&["x"], None), quiet).is_err(), "the file is there already");
        assert_eq!(import(&of(&["x"], Some("yesterday")), quiet).unwrap_err().exit, Exit::Usage);
        fs::remove_file(&target).unwrap();
        assert_eq!(import(&of(&["y"], None), quiet).unwrap(), Exit::NotFound);
    }
}
