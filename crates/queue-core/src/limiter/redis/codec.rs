//! How operations and replies travel: each operation is one packed text that begins with its letter. Numbers are
//! big-endian doubles, which is what Lua computes with.

use redis::Value;

use crate::limiter::{Answer, Ask, Cause, Lift, Penalty, REASON_MAX_BYTES, Standing, Told, Unavailable, Used, Verdict};

/// One operation of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation(pub(super) Vec<u8>);

impl Operation {
    fn new(letter: u8, numbers: &[f64]) -> Self {
        let mut text = vec![letter];
        numbers.iter().for_each(|number| text.extend_from_slice(&number.to_be_bytes()));
        Self(text)
    }

    pub(super) fn reserve(ask: &Ask) -> Self {
        let mut text = vec![b'R'];
        text.extend_from_slice(ask.call.as_bytes());
        for number in [ask.tokens as f64, ask.wait_max(), f64::from(u8::from(ask.keeps_place))] {
            text.extend_from_slice(&number.to_be_bytes());
        }
        Self(text)
    }

    pub(super) fn confirm() -> Self {
        Self::new(b'C', &[])
    }

    pub(super) fn settle(used: Used) -> Self {
        let flag = |yes: bool| f64::from(u8::from(yes));
        let took = used.took_ms.map_or(-1.0, |took| took as f64);
        let amounts = [used.reserved as f64, used.tokens as f64];
        Self::new(b'S', &[amounts[0], amounts[1], flag(used.sent), took, flag(used.answered)])
    }

    pub(super) fn penalise(penalty: Penalty, wait_ms: u64, reason: &str) -> Self {
        Self::new(b'P', &[kind(penalty), wait_ms as f64]).because(reason)
    }

    pub(super) fn block(penalty: Penalty, wait_ms: u64, age_ms: u64, reason: &str) -> Self {
        Self::new(b'B', &[kind(penalty), wait_ms as f64, age_ms as f64]).because(reason)
    }

    fn because(mut self, reason: &str) -> Self {
        let cut = reason.floor_char_boundary(REASON_MAX_BYTES);
        self.0.extend_from_slice(&reason.as_bytes()[..cut]);
        self
    }

    pub(super) fn lift(lift: Lift) -> Self {
        Self::new(b'L', &[f64::from(u8::from(lift == Lift::Blocks))])
    }

    pub(super) fn observe(told: Told) -> Self {
        let all = [told.requests_limit, told.requests_left, told.tokens_limit, told.tokens_left];
        Self::new(b'O', &all.map(|number| number.map_or(-1.0, |number| number as f64)))
    }

    pub(super) fn standing() -> Self {
        Self::new(b'G', &[])
    }
}

fn kind(penalty: Penalty) -> f64 {
    if penalty == Penalty::Rate { 0.0 } else { 1.0 }
}

/// An answer that is not of the agreed form: of a Redis that something else writes to.
pub(super) fn strange() -> Unavailable {
    Unavailable("Redis gave an answer of a form that this version does not know".into())
}

/// The parts of a reply.
struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    fn new(value: Value) -> Result<Self, Unavailable> {
        match value {
            Value::Array(parts) => Ok(Self(parts.into_iter())),
            _ => Err(strange()),
        }
    }

    fn number(&mut self) -> Result<i64, Unavailable> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(number),
            _ => Err(strange()),
        }
    }

    fn milliseconds(&mut self) -> Result<u64, Unavailable> {
        u64::try_from(self.number()?).map_err(|_| strange())
    }

    fn text(&mut self) -> Result<String, Unavailable> {
        match self.0.next() {
            Some(Value::BulkString(text)) => String::from_utf8(text).map_err(|_| strange()),
            _ => Err(strange()),
        }
    }

    /// A double in text; `None` where there is none.
    fn double(&mut self) -> Result<Option<f64>, Unavailable> {
        match self.text()?.as_str() {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| strange()),
        }
    }

    /// -1: none.
    fn pace(&mut self) -> Result<Option<u32>, Unavailable> {
        Ok(u32::try_from(self.number()?).ok())
    }
}

pub(super) fn answer(value: Value) -> Result<Answer, Unavailable> {
    let mut parts = Parts::new(value)?;
    let goes = parts.number()? == 1;
    let (wait_ms, pace) = (parts.milliseconds()?, parts.pace()?);
    if goes {
        return Ok(Answer { verdict: Verdict::Go { wait_ms }, pace });
    }
    let (open_ms, cause, ticket) = (parts.milliseconds()?, parts.number()?, parts.number()? == 1);
    let reason = parts.text()?;
    let cause = match cause {
        1 => Cause::Requests,
        2 => Cause::Tokens,
        3 => Cause::Blocked { reason },
        4 => Cause::Trial { reason },
        _ => return Err(strange()),
    };
    Ok(Answer { verdict: Verdict::Later { wait_ms, open_ms, cause, ticket }, pace })
}

pub(super) fn confirmed(value: Value) -> Result<Option<(u64, Cause)>, Unavailable> {
    let mut parts = Parts::new(value)?;
    let (wait_ms, reason) = (parts.milliseconds()?, parts.text()?);
    Ok((wait_ms > 0).then_some((wait_ms, Cause::Blocked { reason })))
}

pub(super) fn count(value: &Value) -> Result<u64, Unavailable> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| strange()),
        _ => Err(strange()),
    }
}

pub(super) fn standing(value: Value) -> Result<Standing, Unavailable> {
    let mut parts = Parts::new(value)?;
    let (requests, tokens) = (parts.double()?, parts.double()?);
    let mut per_minute = || Ok(parts.double()?.filter(|rate| *rate > 0.0).map(|rate| rate * 60.0));
    let (requests_per_minute, tokens_per_minute) = (per_minute()?, per_minute()?);
    let factor = parts.double()?.ok_or_else(strange)?;
    let (blocked_ms, reason) = (parts.milliseconds()?, parts.text()?);
    let tickets = usize::try_from(parts.number()?).map_err(|_| strange())?;
    Ok(Standing {
        requests,
        tokens,
        requests_per_minute,
        tokens_per_minute,
        factor,
        blocked: (blocked_ms > 0).then_some((blocked_ms, reason)),
        tickets,
        pace: parts.pace()?,
    })
}
