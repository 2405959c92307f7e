//! Prices out of LiteLLM's table (`model_prices_and_context_window.json`), which users keep a copy of.
//!
//! Its numbers are dollars per token written as floats, such as `1.5e-07`. They are read as the decimal text that they
//! are, so what is imported is exact. What cannot be said exactly or wholly in our form is left out and told: a price
//! that is nearly right makes every report wrong.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::prices::{Long, Model, PriceBook, PriceError, Rates, Tier};

/// Kinds of models whose tokens we can price.
const MODES: [&str; 4] = ["chat", "completion", "responses", "embedding"];

/// The entry that describes the others.
const SAMPLE: &str = "sample_spec";

/// Powers of ten between dollars and our unit.
const PICO_DIGITS: i32 = 12;

/// Longest number that is read: no price has as many digits.
const DIGITS_MAX: usize = 30;

/// What an import came to.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What was taken.
    pub book: PriceBook,
    /// Models that were not, with the reason; in the order of their names.
    pub left_out: Vec<(String, String)>,
    /// Prices of taken models that our form has no place for (images, seconds, searches): they are not part of a cost.
    pub ignored: Vec<(String, String)>,
}

/// Takes the models that `wants` by name and provider. `version` and `as_of` become those of the new file. Fails where
/// the text is not such a table.
pub fn import(
    text: &str,
    version: &str,
    as_of: &str,
    wants: impl Fn(&str, &str) -> bool,
) -> Result<Imported, PriceError> {
    let entries: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text)
        .map_err(|error| PriceError(format!("is not a JSON object with a member for each model: {error}")))?;
    let (mut models, mut left_out, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != SAMPLE) {
        let Ok(entry) = serde_json::from_str::<Entry<'_>>(entry.get()) else {
            left_out.push((name, "is not a JSON object".to_owned()));
            continue;
        };
        if !wants(&name, text_of(&entry, "litellm_provider").unwrap_or_default()) {
            continue;
        }
        let taken = model_of(&name, &entry).and_then(|(model, others)| {
            PriceBook::of(version.to_owned(), as_of.to_owned(), [model.clone()]).map_err(|error| error.0)?;
            Ok((model, others))
        });
        match taken {
            Ok((model, others)) => {
                ignored.extend(others.into_iter().map(|other| (name.clone(), other)));
                models.push(model);
            }
            Err(reason) => left_out.push((name, reason)),
        }
    }
    let book = PriceBook::of(version.to_owned(), as_of.to_owned(), models)?;
    Ok(Imported { book, left_out, ignored })
}

/// A model's members, unread.
type Entry<'a> = BTreeMap<&'a str, &'a RawValue>;

fn text_of<'a>(entry: &Entry<'a>, member: &str) -> Option<&'a str> {
    serde_json::from_str(entry.get(member)?.get()).ok()
}

/// A number of tokens; LiteLLM writes some of them as text.
fn tokens_of(entry: &Entry<'_>, member: &str) -> Option<u64> {
    entry.get(member)?.get().trim_matches('"').parse().ok()
}

/// What a token price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Input,
    Cached,
    Write,
    WriteLong,
    AudioIn,
    Output,
    AudioOut,
}

/// Prices of one tier and prompt length, as far as they are given.
type Given = BTreeMap<Part, u64>;

/// Their names; of two that begin alike the longer one first.
const PARTS: [(&str, Part); 7] = [
    ("input_cost_per_token", Part::Input),
    ("cache_read_input_token_cost", Part::Cached),
    ("cache_creation_input_token_cost_above_1hr", Part::WriteLong),
    ("cache_creation_input_token_cost", Part::Write),
    ("input_cost_per_audio_token", Part::AudioIn),
    ("output_cost_per_token", Part::Output),
    ("output_cost_per_audio_token", Part::AudioOut),
];

/// What a member prices: `input_cost_per_token_above_272k_tokens_priority` is the input of long prompts in the priority
/// tier. `None` for members that are no token price.
fn place_of(member: &str) -> Option<(Tier, Option<u64>, Part)> {
    let (rest, part) = PARTS.iter().find_map(|(name, part)| Some((member.strip_prefix(name)?, *part)))?;
    let tiers = [("_batches", Tier::Batch), ("_flex", Tier::Flex), ("_priority", Tier::Priority)];
    let tiered = tiers.iter().find_map(|(end, tier)| Some((rest.strip_suffix(end)?, *tier)));
    let (rest, tier) = tiered.unwrap_or((rest, Tier::Standard));
    if rest.is_empty() {
        return Some((tier, None, part));
    }
    let thousands: u64 = rest.strip_prefix("_above_")?.strip_suffix("k_tokens")?.parse().ok()?;
    Some((tier, Some(thousands.checked_mul(1_000)?), part))
}

/// The model, and the members that cost something and have no place in it.
fn model_of(name: &str, entry: &Entry<'_>) -> Result<(Model, Vec<String>), String> {
    let mode = text_of(entry, "mode").unwrap_or_default();
    if !MODES.contains(&mode) {
        return Err(format!("its mode is `{mode}`, which is not priced by tokens here"));
    }
    let (mut given, mut others) = (BTreeMap::<(Tier, Option<u64>), Given>::new(), Vec::new());
    let mut per_call = None;
    for (member, value) in entry.iter().filter(|(member, value)| member.contains("cost") && value.get() != "null") {
        match (place_of(member), *member) {
            (Some((tier, above, part)), _) => {
                given.entry((tier, above)).or_default().insert(part, pico_of(value.get(), member)?);
            }
            (None, "input_cost_per_request") => per_call = Some(pico_of(value.get(), member)?).filter(|fee| *fee > 0),
            (None, "output_cost_per_reasoning_token") => {}
            (None, _) if pico_of(value.get(), member) == Ok(0) => {}
            (None, other) => others.push(other.to_owned()),
        }
    }
    let embeds = mode == "embedding";
    let usual = tier_of(&mut given, Tier::Standard, embeds)?.ok_or("it has no price per token")?;
    if usual.input == 0 && usual.output == 0 {
        return Err(
            "its price there is 0, which may mean that nobody knows it; if it is free, say so in your file".into()
        );
    }
    check_thinking(entry, usual.output)?;
    let model = Model {
        name: name.to_owned(),
        context_window: tokens_of(entry, "max_input_tokens").or_else(|| tokens_of(entry, "max_tokens")),
        max_output: tokens_of(entry, "max_output_tokens").filter(|_| !embeds),
        input: Some(usual.input),
        cached_input: usual.cached_input,
        cache_write: usual.cache_write,
        cache_write_long: usual.cache_write_long,
        audio_in: usual.audio_in,
        output: Some(usual.output),
        audio_out: usual.audio_out,
        per_call,
        long: usual.long,
        batch: tier_of(&mut given, Tier::Batch, embeds)?,
        flex: tier_of(&mut given, Tier::Flex, embeds)?,
        priority: tier_of(&mut given, Tier::Priority, embeds)?,
        ..Model::default()
    };
    Ok((model, others))
}

/// Thinking is part of the answer here, and costs the same.
fn check_thinking(entry: &Entry<'_>, output: u64) -> Result<(), String> {
    let member = "output_cost_per_reasoning_token";
    match entry.get(member).map(|value| value.get()).filter(|value| *value != "null") {
        Some(value) if pico_of(value, member)? != output => {
            Err("thinking has another price than the rest of its answers".to_owned())
        }
        _ => Ok(()),
    }
}

/// The prices of a tier, taken out of what is given. A tier that has some prices and not those of prompt and answer would
/// be priced wrongly, and so would one that changes its prices twice as prompts grow.
fn tier_of(
    given: &mut BTreeMap<(Tier, Option<u64>), Given>,
    tier: Tier,
    embeds: bool,
) -> Result<Option<Rates>, String> {
    let usual = given.remove(&(tier, None));
    let steps: Vec<u64> = given.keys().filter(|(of, _)| *of == tier).filter_map(|(_, above)| *above).collect();
    let mut longs: Vec<(u64, Given)> =
        steps.into_iter().filter_map(|above| Some((above, given.remove(&(tier, Some(above)))?))).collect();
    let word = tier.as_str();
    let Some(usual) = usual else {
        let reason = || format!("it has prices of long prompts but no others (tier `{word}`)");
        return if longs.is_empty() { Ok(None) } else { Err(reason()) };
    };
    if longs.len() > 1 {
        return Err(format!("its prices change at {} prompt lengths (tier `{word}`); one is known here", longs.len()));
    }
    let both = |given: &Given, what: &str| {
        let output = given.get(&Part::Output).copied().or(embeds.then_some(0));
        match (given.get(&Part::Input).copied(), output) {
            (Some(input), Some(output)) => Ok((input, output)),
            _ => Err(format!("it has no price of prompt and answer {what} (tier `{word}`)")),
        }
    };
    let (input, output) = both(&usual, "tokens")?;
    let long = longs.pop().map(|(above, given)| {
        let (input, output) = both(&given, &format!("above {above} tokens"))?;
        let part = |part| given.get(&part).copied();
        Ok::<_, String>(Long {
            above,
            input,
            cached_input: part(Part::Cached),
            cache_write: part(Part::Write),
            cache_write_long: part(Part::WriteLong),
            audio_in: part(Part::AudioIn),
            output,
            audio_out: part(Part::AudioOut),
        })
    });
    let part = |part| usual.get(&part).copied();
    Ok(Some(Rates {
        input,
        cached_input: part(Part::Cached),
        cache_write: part(Part::Write),
        cache_write_long: part(Part::WriteLong),
        audio_in: part(Part::AudioIn),
        output,
        audio_out: part(Part::AudioOut),
        long: long.transpose()?,
    }))
}

/// Dollars in decimal text as whole pico-USD. What is not whole is refused: it would be rounding noise of whoever wrote
/// the table, or a price that we cannot keep.
fn pico_of(text: &str, member: &str) -> Result<u64, String> {
    let refused = |why: &str| format!("{member} is {text}, which {why}");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let exponent: i32 = exponent.parse().map_err(|_| refused("is no price"))?;
    if !is_number || digits.len() > DIGITS_MAX || exponent.unsigned_abs() > 100 {
        return Err(refused("is no price"));
    }
    let number: u128 = digits.parse().map_err(|_| refused("is no price"))?;
    let shift = exponent + PICO_DIGITS - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let power = 10_u128.checked_pow(shift.unsigned_abs());
    let pico = match (shift >= 0, power) {
        _ if number == 0 => Some(0),
        (true, power) => power.and_then(|power| number.checked_mul(power)),
        (false, Some(power)) if number.is_multiple_of(power) => Some(number / power),
        (false, _) => return Err(refused("is not a whole number of pico-USD")),
    };
    pico.and_then(|pico| u64::try_from(pico).ok()).ok_or_else(|| refused("is no price"))
}

#[cfg(test)]
mod tests;
