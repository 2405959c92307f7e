//! Money and tokens: what a call used, what it cost, and who asked for it.
//!
//! One row per provider call (*spend*), written whether or not the attempt's outcome was accepted: money is never
//! fenced. One row per succeeded job (*charge*), fenced like the settle that writes it.

pub mod litellm;
mod prices;
mod shares;
mod sums;
mod tokens;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use prices::{Long, Model, PriceBook, PriceError, Rates, Tier};
pub(crate) use sums::Sums;
pub use tokens::estimate_tokens;

use crate::{
    budget::USD_MAX,
    ids::{CallId, JobId, Name},
    private::Prompt,
    time::Timestamp,
};

/// Money in billionths of a US dollar. Always an integer: 9.2 billion dollars fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanousd(pub i64);

impl Nanousd {
    /// The sum, held at the ends of the range.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl FromStr for Nanousd {
    type Err = String;

    /// Reads an amount of US dollars that is not negative, such as `0.05`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('-') {
            return Err(format!("`{text}` is negative"));
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str, max| (1..=max).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole, 7) || !digits(fraction, 9) {
            return Err(format!("`{text}` is not an amount of US dollars such as \"0.05\""));
        }
        // At most 16 digits: it always fits.
        let nano = format!("{whole}{fraction:0<9}").parse().map_err(|_| format!("`{text}` is too much"))?;
        if nano > USD_MAX * 1_000_000_000 {
            return Err(format!("`{text}` is more than {USD_MAX} US dollars"));
        }
        Ok(Self(nano))
    }
}

/// As a decimal string of dollars without trailing zeros beyond the cents, e.g. `0.000123` or `1.50`.
impl fmt::Display for Nanousd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, abs) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let fraction = format!("{:09}", abs % 1_000_000_000);
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{}.{}", abs / 1_000_000_000, &fraction[..kept])
    }
}

/// Tokens of one or several calls. Subsets are inside their whole, as OpenAI counts: cached, written and audio tokens are
/// part of `tokens_in`, reasoning and audio tokens part of `tokens_out`. The last three are kept for each call and each
/// line of a report; a job's own sum does not have them, and leaves them out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens.
    pub tokens_in: u64,
    /// Answer tokens.
    pub tokens_out: u64,
    /// Prompt tokens that the provider had cached.
    pub tokens_cached: u64,
    /// Prompt tokens that the provider wrote to its cache.
    pub tokens_cache_write: u64,
    /// Answer tokens that the model spent on thinking.
    pub tokens_reasoning: u64,
    /// Those of `tokens_cache_write` that are to be kept for longer than usual, which costs more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens_cache_write_long: u64,
    /// Prompt tokens of audio that were not cached.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens_audio_in: u64,
    /// Answer tokens of audio.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens_audio_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks for it
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Usage {
    /// The sum of two usages.
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens_in: self.tokens_in.saturating_add(other.tokens_in),
            tokens_out: self.tokens_out.saturating_add(other.tokens_out),
            tokens_cached: self.tokens_cached.saturating_add(other.tokens_cached),
            tokens_cache_write: self.tokens_cache_write.saturating_add(other.tokens_cache_write),
            tokens_reasoning: self.tokens_reasoning.saturating_add(other.tokens_reasoning),
            tokens_cache_write_long: self.tokens_cache_write_long.saturating_add(other.tokens_cache_write_long),
            tokens_audio_in: self.tokens_audio_in.saturating_add(other.tokens_audio_in),
            tokens_audio_out: self.tokens_audio_out.saturating_add(other.tokens_audio_out),
        }
    }
}

/// Whether the provider was paid for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Billed {
    /// It was: there is an answer.
    Yes,
    /// It was not: the request never arrived or was refused.
    No,
    /// Nobody can know: the connection broke between request and answer.
    Maybe,
}

impl Billed {
    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Maybe => "maybe",
        }
    }

    /// The value with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Yes, Self::No, Self::Maybe].into_iter().find(|billed| billed.as_str() == word)
    }
}

/// Where the token counts of a call come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// The provider said so; or it refused the call or never got it, so that nothing was used.
    Provider,
    /// We counted, because the provider did not.
    Estimated,
}

impl UsageSource {
    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Estimated => "estimated",
        }
    }

    /// The value with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Provider, Self::Estimated].into_iter().find(|source| source.as_str() == word)
    }
}

/// One call to a provider: its ledger row, and its answer where there is one.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Deterministic: with the epoch it names the ledger row, so that recording twice is recording once; alone it names
    /// the kept answer, so that a later attempt finds it. A call without a reusable answer
    /// (failed, aborted) records under [`CallRecord::id_of_failure`] instead.
    pub call_id: CallId,
    /// The job that paid for it.
    pub job_id: JobId,
    /// Whose job.
    pub tenant: Name,
    /// Where it waited.
    pub queue: Name,
    /// Its kind.
    pub kind: crate::job::Kind,
    /// The job's label for reports.
    pub operation: Option<String>,
    /// The API key that submitted the job.
    pub key_id: Option<Name>,
    /// The epoch of the attempt.
    pub epoch: crate::ids::Epoch,
    /// Which step, e.g. `chat`, `map/0003`.
    pub step: String,
    /// Which call of the step (repairs count up).
    pub sequence: u32,
    /// Who was asked.
    pub provider: String,
    /// What was asked for.
    pub model: String,
    /// `ok`, or the error's class.
    pub status: String,
    /// Whether money changed hands.
    pub billed: Billed,
    /// Tokens.
    pub usage: Usage,
    /// The service tier that it is priced in.
    pub tier: Tier,
    /// Who counted the tokens.
    pub usage_source: UsageSource,
    /// What it cost; `None` where the model's price is unknown.
    pub cost: Option<Nanousd>,
    /// The price file's version that was used.
    pub price_version: String,
    /// Time from request to last byte, in milliseconds.
    pub duration_ms: u64,
    /// The provider's request id.
    pub provider_request_id: Option<String>,
    /// When it ended.
    pub at: Timestamp,
    /// Whose key it was made with: `default` is the operator's, `@tenant` the tenant's own.
    pub credential: String,
    /// The answer to keep; `None` where there is nothing to reuse.
    pub memo: Option<MemoBody>,
}

impl CallRecord {
    /// The id under which a failed try of a call is recorded: it must not take the place of the answer.
    pub fn id_of_failure(call: CallId, epoch: crate::ids::Epoch, attempt_of_call: u32) -> CallId {
        CallId(uuid::Uuid::new_v5(&call.0, format!("failed\u{1f}{}\u{1f}{attempt_of_call}", epoch.0).as_bytes()))
    }
}

/// Why an answer needed no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedBy {
    /// An earlier attempt of the job had paid for it.
    Memo,
    /// Another job had asked the same before.
    Cache,
    /// Several jobs asked the same in one call.
    Coalesced,
    /// Another job was asking the same at that moment.
    Singleflight,
}

impl SavedBy {
    /// Every reason, in the order in which reports tell them.
    pub const ALL: [Self; 4] = [Self::Memo, Self::Cache, Self::Coalesced, Self::Singleflight];

    /// The word of the API, of metrics and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memo => "memo",
            Self::Cache => "cache",
            Self::Coalesced => "coalesced",
            Self::Singleflight => "singleflight",
        }
    }

    /// The reason with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// An answer that needed no call. It is written with the attempt's settle, so a crash before that loses it: what is lost
/// is a line of a report, never money.
#[derive(Clone, Debug)]
pub struct Saving {
    /// The call that was not made; with epoch and reason it names the row.
    pub call_id: CallId,
    /// The job that would have paid for it.
    pub job_id: JobId,
    /// Whose job.
    pub tenant: Name,
    /// Where it waited.
    pub queue: Name,
    /// Its kind.
    pub kind: crate::job::Kind,
    /// The job's label for reports.
    pub operation: Option<String>,
    /// The epoch of the attempt.
    pub epoch: crate::ids::Epoch,
    /// Who would have been asked.
    pub provider: String,
    /// For what.
    pub model: String,
    /// Why nobody was.
    pub reason: SavedBy,
    /// Tokens of the answer.
    pub usage: Usage,
    /// What the call would have cost now; `None` where the model's price is unknown.
    pub saved: Option<Nanousd>,
    /// When.
    pub at: Timestamp,
}

/// A provider's answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoBody {
    /// Hash of the request that it answers: a changed request must not find it.
    pub request_hash: [u8; 32],
    /// The answer, in the provider adapter's own JSON.
    pub body: Prompt,
}

/// A kept answer, found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo {
    /// The call that it answers.
    pub call_id: CallId,
    /// Hash and answer.
    pub memo: MemoBody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_prints_as_a_decimal_string() {
        assert_eq!(Nanousd(0).to_string(), "0.00");
        assert_eq!(Nanousd(1_500_000_000).to_string(), "1.50");
        assert_eq!(Nanousd(123_456).to_string(), "0.000123456");
        assert_eq!(Nanousd(-20_000_000).to_string(), "-0.02");
    }

    #[test]
    fn money_is_read_as_an_unsigned_decimal() {
        for (text, nano) in
            [("0.05", 50_000_000), ("1", 1_000_000_000), ("0.000000001", 1), ("9000000", 9_000_000_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Nanousd(nano)), "{text}");
        }
        assert!("-1".parse::<Nanousd>().unwrap_err().contains("negative"));
        for text in ["", "1e9", "0.1234567891", ".", "1.", "1,5", "NaN", "9000001", "10000000000"] {
            assert!(text.parse::<Nanousd>().is_err(), "{text}");
        }
    }
}
