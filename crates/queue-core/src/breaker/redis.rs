//! The circuits of a fleet, in Redis beside the dispatcher: a library of its own, by Redis' own clock. They outlive nothing: after a
//! flush all are closed, and what operators set is told again.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use redis::Value;

use super::{
    Ask, BUCKET_MS, BUCKETS, Breakers, By, CALLS_MIN, CIRCUITS_MAX, Change, CircuitView, End, Ended, FORGET_MS, Leave,
    OPEN_MAX_MS, OPEN_MS, PROBE_MS, ProbeId, Refusal, State, cut,
};
use crate::{
    dispatcher::{
        DispatchError,
        redis::{
            RedisConfig,
            codec::{Answer, strange},
            library::Library,
            link::{Link, failure},
        },
    },
    ids::Name,
    journal::{TargetSettings, Versioned},
    time::Clock,
};

/// Changes with the layout of the keys.
pub(crate) const VERSION: u32 = 1;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let constants = format!(
        "local BUCKET_MS, BUCKETS, CALLS_MIN, OPEN_MS, OPEN_MAX_MS = {BUCKET_MS}, {BUCKETS}, {CALLS_MIN}, {OPEN_MS}, {OPEN_MAX_MS}\n\
         local PROBE_MS, FORGET_MS, CIRCUITS_MAX = {PROBE_MS}, {FORGET_MS}, {CIRCUITS_MAX}\n"
    );
    Library::of(
        &format!("longshore_breaker_{VERSION}"),
        &format!("{constants}{}", include_str!("../../lua/breaker.lua")),
    )
});

/// Circuits in Redis.
pub struct RedisBreakers {
    link: Link,
    key: String,
    clock: Option<Arc<dyn Clock>>,
}

impl RedisBreakers {
    /// Does not connect yet: a Redis that is away is told by each verb.
    ///
    /// # Errors
    /// The address cannot be used; one line.
    pub fn open(config: &RedisConfig) -> Result<Self, String> {
        let link = Link::of(config).map_err(|error| format!("{}: {error}", config.address))?.calling(&LIBRARY);
        let key = format!("{}-breaker{VERSION}:{{all}}", config.prefix);
        Ok(Self { link, key, clock: config.clock.clone() })
    }

    async fn call(&self, verb: &str, args: &[&[u8]]) -> Result<Value, DispatchError> {
        let now = self.clock.as_ref().map_or_else(String::new, |clock| clock.now().0.to_string());
        let head = [verb.as_bytes(), now.as_bytes()];
        let args: Vec<Vec<u8>> = head.iter().chain(args).map(|arg| arg.to_vec()).collect();
        self.link.call(&[&self.key], &args).await.map_err(|error| failure(&error))
    }
}

fn text(probe: ProbeId) -> String {
    format!("{:032x}", probe.0)
}

#[async_trait]
impl Breakers for RedisBreakers {
    async fn enter(&self, ask: Ask) -> Result<Leave, DispatchError> {
        let (probe, successes) = (text(ask.probe), ask.successes.to_string());
        let args = [ask.target.as_str(), ask.account.as_str(), &probe, &successes].map(str::as_bytes);
        let mut answer = Answer::new(self.call("enter", &args).await?)?;
        Ok(match answer.text()?.as_str() {
            "closed" => Leave::Given,
            "probe" => Leave::Probe { target: answer.number()? == 1, account: answer.number()? == 1 },
            "refused" => {
                let by = match answer.text()?.as_str() {
                    "operator" => By::Operator,
                    "account" => By::Account,
                    _ => By::Failures,
                };
                Leave::Refused(refusal(by, &mut answer)?)
            }
            _ => return Err(strange()),
        })
    }

    async fn end(&self, ended: Ended) -> Result<Change, DispatchError> {
        let (kind, ms) = match ended.end {
            End::Success => ("success", 0),
            End::Failure => ("failure", 0),
            End::Answered => ("answered", 0),
            End::Unknown => ("unknown", 0),
            End::Exhausted(ms) => ("exhausted", ms),
        };
        let (probe, ms, successes) = (text(ended.probe), ms.to_string(), ended.successes.to_string());
        let circuit = ended.circuit.as_str();
        let args = [circuit, &probe, kind, &ms, &successes, cut(&ended.reason)].map(str::as_bytes);
        let mut answer = Answer::new(self.call("end", &args).await?)?;
        let by = if circuit.contains(":*:") { By::Account } else { By::Failures };
        Ok(match answer.text()?.as_str() {
            "none" => Change::None,
            "closed" => Change::Closed,
            "opened" => Change::Opened(refusal(by, &mut answer)?),
            "stood open" => Change::StoodOpen(refusal(by, &mut answer)?),
            _ => return Err(strange()),
        })
    }

    async fn renew(&self, circuits: &[Name], probe: ProbeId) -> Result<(), DispatchError> {
        let probe = text(probe);
        let args: Vec<&[u8]> =
            [probe.as_bytes()].into_iter().chain(circuits.iter().map(|name| name.as_str().as_bytes())).collect();
        self.call("renew", &args).await.map(|_| ())
    }

    async fn set(&self, target: &Name, settings: Versioned<TargetSettings>) -> Result<(), DispatchError> {
        let Versioned { version, value } = settings;
        let (held, until, reason) = value.held();
        let (version, until) = (version.to_string(), until.map_or_else(String::new, |until| until.0.to_string()));
        let held = if held { "1" } else { "" };
        let args = [target.as_str(), &version, value.breaker.as_str(), held, &until, cut(&reason)].map(str::as_bytes);
        self.call("set", &args).await.map(|_| ())
    }

    async fn close(&self, circuit: &Name) -> Result<(), DispatchError> {
        self.call("close", &[circuit.as_str().as_bytes()]).await.map(|_| ())
    }

    async fn list(&self) -> Result<Vec<CircuitView>, DispatchError> {
        let answer = Answer::new(self.call("list", &[]).await?)?;
        let mut views = answer.rest().map(view).collect::<Result<Vec<_>, _>>()?;
        views.sort_unstable_by(|a, b| a.circuit.cmp(&b.circuit));
        Ok(views)
    }
}

fn refusal(by: By, answer: &mut Answer) -> Result<Refusal, DispatchError> {
    let until = answer.moment()?;
    let wait_ms = answer.moment()?.map(|wait| u64::try_from(wait.0).unwrap_or(0));
    Ok(Refusal { by, until, wait_ms, reason: answer.text()? })
}

fn view(value: Value) -> Result<CircuitView, DispatchError> {
    let mut parts = Answer::new(value)?;
    let (circuit, is_open, until) = (parts.name()?, parts.number()? == 1, parts.moment()?);
    let mut count = || parts.number().map(|count| u32::try_from(count).unwrap_or(0));
    let (failed_probes, probing) = (count()?, count()? == 1);
    let reason = parts.text()?;
    let mut count = || parts.number().map(|count| u32::try_from(count).unwrap_or(0));
    let (calls, failures) = (count()?, count()?);
    let now = parts.moment()?;
    let state = match until {
        Some(until) if is_open => {
            if now < Some(until) {
                State::Open
            } else {
                State::HalfOpen
            }
        }
        _ => State::Closed,
    };
    let reason = Some(reason).filter(|_| is_open);
    Ok(CircuitView { circuit, state, until, failed_probes, probing, reason, calls, failures })
}
