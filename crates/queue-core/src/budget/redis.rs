//! The counters of a fleet, in Redis beside the dispatcher: a library of its own, by Redis' own clock. After a flush they are
//! read from the ledger, and calls under way are asserted by their workers.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use redis::Value;
use uuid::Uuid;

use super::{
    Amount, Ask, Budget, Counters, IDLE_MS, LIFE_GRACE_MS, Lines, Parked, RENEW_MAX, RESERVED_MS, Refusal, SWEEP_MAX,
    Scope, Span, Standing, Unavailable, UnderWay, Verdict,
};
use crate::{
    dispatcher::redis::{RedisConfig, codec::Answer, library::Library, link::Link},
    ids::Name,
    journal::Versioned,
    time::{Clock, Timestamp},
};

/// Changes with the layout of the keys.
pub(crate) const VERSION: u32 = 1;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let constants = format!(
        "local RESERVED_MS, LIFE_GRACE_MS, SWEEP_MAX, IDLE_MS = {RESERVED_MS}, {LIFE_GRACE_MS}, {SWEEP_MAX}, {IDLE_MS}\n"
    );
    let body = format!("{constants}{}", include_str!("../../lua/budget.lua"));
    Library::of(&format!("longshore_budget_{VERSION}"), &body)
});

/// Counters in Redis.
pub struct RedisCounters {
    link: Link,
    key: String,
    clock: Option<Arc<dyn Clock>>,
}

impl RedisCounters {
    /// Does not connect yet: a Redis that is away is told by each verb.
    ///
    /// # Errors
    /// The address cannot be used; one line.
    pub fn open(config: &RedisConfig) -> Result<Self, String> {
        let link = Link::of(config).map_err(|error| format!("{}: {error}", config.address))?.calling(&LIBRARY);
        let key = format!("{}-budget{VERSION}:{{all}}", config.prefix);
        Ok(Self { link, key, clock: config.clock.clone() })
    }

    async fn call(&self, verb: &str, args: Vec<Vec<u8>>) -> Result<Value, Unavailable> {
        let now = self.clock.as_ref().map_or_else(String::new, |clock| clock.now().0.to_string());
        let head = [verb.as_bytes().to_vec(), now.into_bytes()];
        let args: Vec<Vec<u8>> = head.into_iter().chain(args).collect();
        self.link.call(&[&self.key], &args).await.map_err(|error| Unavailable(error.to_string()))
    }
}

/// An answer that is not of the agreed form: of a Redis that something else writes to.
fn strange<E>(_: E) -> Unavailable {
    Unavailable("Redis gave an answer of a form that this version does not know".into())
}

fn text(word: impl ToString) -> Vec<u8> {
    word.to_string().into_bytes()
}

fn numbers(amount: Amount) -> [Vec<u8>; 2] {
    amount.numbers().map(text)
}

/// Version and four limits.
fn limits(budget: &Versioned<Budget>) -> impl Iterator<Item = Vec<u8>> {
    let limits = budget.value.limits().map(|limit| limit.map_or_else(Vec::new, text));
    [text(budget.version)].into_iter().chain(limits)
}

/// The parts of a reply.
struct Parts(Answer);

impl Parts {
    fn of(value: Value) -> Result<Self, Unavailable> {
        Answer::new(value).map(Self).map_err(strange)
    }

    fn word(&mut self) -> Result<String, Unavailable> {
        self.0.text().map_err(strange)
    }

    fn number(&mut self) -> Result<i64, Unavailable> {
        self.word()?.parse().map_err(strange)
    }

    fn flag(&mut self) -> Result<i64, Unavailable> {
        self.0.number().map_err(strange)
    }

    fn scope(&mut self) -> Result<Scope, Unavailable> {
        Scope::parse(&self.word()?).ok_or_else(|| strange(()))
    }
}

#[async_trait]
impl Counters for RedisCounters {
    async fn reserve(&self, ask: &Ask) -> Result<Verdict, Unavailable> {
        let [usd, tokens] = numbers(ask.amount);
        let mut args = vec![ask.call.as_bytes().to_vec(), usd, tokens];
        for (scope, budget) in &ask.budgets {
            args.push(text(scope));
            args.extend(limits(budget));
        }
        let mut parts = Parts::of(self.call("reserve", args).await?)?;
        Ok(match parts.word()?.as_str() {
            "granted" => Verdict::Granted,
            "forgotten" => Verdict::Forgotten,
            "closed" => Verdict::Closed { wait_ms: u64::try_from(parts.number()?).map_err(strange)? },
            "unknown" => Verdict::Unknown(parts.0.rest().map(scope).collect::<Result<_, _>>()?),
            "refused" => {
                let (scope, line) = (parts.scope()?, parts.flag()?);
                let line = usize::try_from(line - 1).ok().and_then(|at| Lines::ALL.get(at));
                let (measure, period) = *line.ok_or_else(|| strange(()))?;
                Verdict::Refused(Refusal {
                    scope,
                    measure,
                    period,
                    limit: parts.number()?,
                    spent: parts.number()?,
                    reserved: parts.number()?,
                    asked: parts.number()?,
                    until: Timestamp(parts.number()?),
                })
            }
            _ => return Err(strange(())),
        })
    }

    async fn commit(&self, call: Uuid, took: Amount, at: Timestamp) -> Result<bool, Unavailable> {
        let [usd, tokens] = numbers(took);
        let args = vec![call.as_bytes().to_vec(), usd, tokens, text(at.0)];
        Ok(matches!(self.call("commit", args).await?, Value::Int(1)))
    }

    async fn adjust(&self, call: Uuid, took: Amount) -> Result<(), Unavailable> {
        let [usd, tokens] = numbers(took);
        self.call("adjust", vec![call.as_bytes().to_vec(), usd, tokens]).await.map(|_| ())
    }

    async fn renew(&self, under_way: &[UnderWay]) -> Result<Option<i64>, Unavailable> {
        let mut args = Vec::with_capacity(under_way.len().min(RENEW_MAX) * 4);
        for UnderWay { call, amount, scopes } in under_way.iter().take(RENEW_MAX) {
            let [usd, tokens] = numbers(*amount);
            let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
            args.extend([call.as_bytes().to_vec(), usd, tokens, text(scopes.join("\0"))]);
        }
        match self.call("renew", args).await? {
            Value::BulkString(life) if life.is_empty() => Ok(None),
            Value::BulkString(life) => {
                let life = String::from_utf8(life).map_err(strange)?;
                life.parse().map(Some).map_err(strange)
            }
            _ => Err(strange(())),
        }
    }

    async fn begin(&self) -> Result<(), Unavailable> {
        self.call("begin", vec![]).await.map(|_| ())
    }

    async fn begin_fill(&self, scope: &Scope) -> Result<i64, Unavailable> {
        match self.call("begin_fill", vec![text(scope)]).await? {
            Value::BulkString(fill) => String::from_utf8(fill).map_err(strange)?.parse().map_err(strange),
            _ => Err(strange(())),
        }
    }

    async fn end_fill(&self, scope: &Scope, fill: i64, span: Span, spent: [i64; 4]) -> Result<(), Unavailable> {
        let args = [text(scope), text(fill), text(span.day), text(span.month)].into_iter().chain(spent.map(text));
        self.call("end_fill", args.collect()).await.map(|_| ())
    }

    async fn tell(&self, scope: &Scope, budget: Versioned<Budget>) -> Result<(), Unavailable> {
        let args = [text(scope)].into_iter().chain(limits(&budget)).collect();
        self.call("tell", args).await.map(|_| ())
    }

    async fn standing(&self, scope: &Scope) -> Result<Option<Standing>, Unavailable> {
        let value = self.call("standing", vec![text(scope)]).await?;
        if matches!(&value, Value::BulkString(nothing) if nothing.is_empty()) {
            return Ok(None);
        }
        let mut parts = Parts::of(value)?;
        let known = parts.flag()? == 1;
        let spent = [parts.number()?, parts.number()?, parts.number()?, parts.number()?];
        Ok(Some(Standing { known, spent, reserved: [parts.number()?, parts.number()?] }))
    }

    async fn park(
        &self,
        tenant: &Name,
        scope: &Scope,
        amount: Amount,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), Unavailable> {
        let [usd, tokens] = numbers(amount);
        self.call("park", vec![text(tenant), text(scope), usd, tokens, text(until.0), text(reason)]).await.map(|_| ())
    }

    async fn parked(&self) -> Result<Vec<Parked>, Unavailable> {
        let all = Parts::of(self.call("parked", vec![]).await?)?;
        let view = |value: Value| {
            let mut parts = Parts::of(value)?;
            Ok(Parked {
                tenant: Name::new(parts.word()?),
                scope: parts.scope()?,
                reason: parts.word()?,
                until: Timestamp(parts.number()?),
                ready: parts.flag()? == 1,
            })
        };
        let mut parked = all.0.rest().map(view).collect::<Result<Vec<_>, Unavailable>>()?;
        parked.sort_unstable_by(|a, b| a.tenant.cmp(&b.tenant));
        Ok(parked)
    }

    async fn unpark(&self, tenant: &Name) -> Result<(), Unavailable> {
        self.call("unpark", vec![text(tenant)]).await.map(|_| ())
    }

    async fn scopes(&self) -> Result<Vec<Scope>, Unavailable> {
        let all = Parts::of(self.call("scopes", vec![]).await?)?;
        let mut scopes = all.0.rest().map(scope).collect::<Result<Vec<_>, _>>()?;
        scopes.sort_unstable();
        Ok(scopes)
    }
}

fn scope(value: Value) -> Result<Scope, Unavailable> {
    match value {
        Value::BulkString(text) => {
            let text = String::from_utf8(text).map_err(strange)?;
            Scope::parse(&text).ok_or_else(|| strange(()))
        }
        _ => Err(strange(())),
    }
}
