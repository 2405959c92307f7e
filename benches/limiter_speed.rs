//! How many provider calls a second the limiter lets through: `cargo bench -p queue-core --bench limiter_speed --
//! [Redis address] [seconds]`. Without an address it is the memory limiter. A call is a reservation and its settle; as many
//! are in flight as a busy worker has. A JSON object a line, for `cargo xtask economics`.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::redis::{RedisAddress, RedisConfig},
    limiter::{Ask, Limit, Limiter, Used, Verdict, memory::MemoryLimiter, redis::RedisLimiter},
    route::Target,
    time::SystemClock,
};
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

/// What cargo adds to the arguments of every bench.
const CARGO_SAYS: &str = "--bench";
/// Calls in flight at once, over all targets.
const IN_FLIGHT: usize = 256;
/// Targets: one, as most installations have, and some.
const TARGETS: [usize; 2] = [1, 8];

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).filter(|argument| argument != CARGO_SAYS);
    let address = args.next();
    let seconds: f64 = args.next().map_or(Ok(3.0), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for targets in TARGETS {
            let limiter: Arc<dyn Limiter> = match &address {
                Some(address) => Arc::new(RedisLimiter::open(&RedisConfig::new(RedisAddress::parse(address)?))?),
                None => Arc::new(MemoryLimiter::new(Arc::new(SystemClock))),
            };
            // The first call connects and loads the library.
            call(limiter.as_ref(), 0).await?;
            let rate = rate(limiter, targets, Duration::from_secs_f64(seconds)).await?;
            println!("{}", serde_json::json!({"figure": format!("calls_per_s_{targets}"), "value": rate}));
        }
        Ok(())
    })
}

async fn rate(limiter: Arc<dyn Limiter>, targets: usize, time: Duration) -> Result<f64, Failure> {
    let (done, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let callers = (0..IN_FLIGHT).map(|number| {
        let (limiter, done) = (limiter.clone(), done.clone());
        tokio::spawn(async move {
            while began.elapsed() < time {
                call(limiter.as_ref(), number % targets).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

async fn call(limiter: &dyn Limiter, target: usize) -> Result<(), Failure> {
    // A limit that never binds: nobody waits, everything is counted.
    let limit = Limit {
        requests_per_minute: Some(1_000_000_000),
        tokens_per_minute: Some(1_000_000_000_000),
        ..Limit::default()
    };
    let model = format!("m{target}");
    let target = Target { provider: "bench".into(), model: model.as_str().into(), credential: "default".into() };
    let ask = Ask::new(target, limit, Uuid::now_v7(), 1_000);
    match limiter.reserve(&ask).await?.verdict {
        Verdict::Go { wait_ms: 0 } => {}
        other => return Err(format!("the limit binds: {other:?}").into()),
    }
    let used = Used { reserved: 1_000, tokens: 900, sent: true, took_ms: Some(400), answered: true };
    Ok(limiter.settle(&ask, used).await?)
}
