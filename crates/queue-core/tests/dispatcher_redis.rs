//! The Redis dispatcher against real servers: the conformance suite, and what only a server can do to it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod redis_fixture;

use std::{sync::Arc, time::Duration};

use queue_core::{
    dispatcher::{
        Ack, Claim, DispatchError, Dispatcher, Entry, Place, Signal, Step, Suspicion,
        redis::{OpenError, RedisAddress, RedisConfig, RedisDispatcher},
    },
    ids::{Epoch, Generation, JobId, SessionId},
    job::Kind,
    time::{ManualClock, Timestamp},
};
use redis_fixture::{Redis, config};
use testkit::{RedisCluster, RedisSentinel, RedisServer};

queue_core::dispatcher_conformance!(Redis::fresh().await);

fn entry() -> Entry {
    Entry {
        id: JobId::generate(),
        epoch: Epoch(0),
        queue: "default".into(),
        tenant: "acme".into(),
        target: "t".into(),
        kind: Kind::Llm,
        priority: 5,
        run_at: Timestamp(0),
        suspicion: Suspicion::None,
        key: None,
    }
}

async fn claim(dispatcher: &RedisDispatcher, session: SessionId) -> Result<Vec<Claim>, DispatchError> {
    Ok(dispatcher.step(Step { session, acks: vec![], queues: vec![], kinds: vec![], slots: 9 }).await?.claims)
}

async fn ack(dispatcher: &RedisDispatcher, session: SessionId, claims: &[Claim]) {
    let acks = claims.iter().map(|claim| Ack { lease: claim.lease, next: None }).collect();
    dispatcher.step(Step { session, acks, queues: vec![], kinds: vec![], slots: 0 }).await.unwrap();
}

/// A connection that broke is made again after a short pause; until then verbs fail at once.
async fn until_it_answers(dispatcher: &RedisDispatcher) -> DispatchError {
    let answers = async {
        loop {
            match dispatcher.depths().await {
                Err(DispatchError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return error,
                Ok(depths) => panic!("a Redis that restarted empty knows {depths:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answers).await.unwrap()
}

/// A server of its own, which the test may restart.
fn own(options: &[&str]) -> Arc<RedisServer> {
    Arc::new(RedisServer::start_with(options))
}

#[tokio::test]
async fn after_a_flush_nothing_is_claimed_until_it_begins_again() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let mut signals = dispatcher.join(session, vec![]).await.unwrap();
    dispatcher.push(vec![entry(), entry()]).await.unwrap();
    let held = claim(dispatcher, session).await.unwrap();
    redis.server.flush();
    for _ in 0..2 {
        assert!(matches!(dispatcher.push(vec![entry()]).await, Err(DispatchError::WrongGeneration)));
        assert!(matches!(claim(dispatcher, session).await, Err(DispatchError::WrongGeneration)));
        assert!(matches!(dispatcher.renew(session, &[held[0].lease]).await, Err(DispatchError::WrongGeneration)));
    }
    dispatcher.begin(Generation(2)).await.unwrap();
    dispatcher.signals_arrived().await.unwrap();
    assert_eq!(signals.try_recv(), Ok(Signal::Work), "the worker is told to look");
    // Until it has said what it holds, it is unknown: neither are its leases called lost, nor does it get more.
    assert!(matches!(claim(dispatcher, session).await, Err(DispatchError::WrongGeneration)));
    assert!(matches!(dispatcher.renew(session, &[held[0].lease]).await, Err(DispatchError::WrongGeneration)));
    assert!(dispatcher.sessions(&[]).await.unwrap().alive.is_empty());
    let mut signals = dispatcher.join(session, vec![]).await.unwrap();
    assert!(claim(dispatcher, session).await.unwrap().is_empty());
    dispatcher.signals_arrived().await.unwrap();
    while signals.try_recv().is_ok() {}
    let again = entry();
    dispatcher.push(vec![again.clone()]).await.unwrap();
    assert_eq!(signals.recv().await, Some(Signal::Work));
    assert_eq!(claim(dispatcher, session).await.unwrap()[0].lease.id, again.id);
}

/// Waits until the server has noticed that nobody listens to any inbox but this many processes' own.
async fn until_listeners(redis: &Redis, processes: usize) {
    let pattern = format!("{}*inbox*", redis.prefix);
    let client = redis::Client::open(redis.server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let noticed = async {
        loop {
            let ask = redis::cmd("PUBSUB").arg("CHANNELS").arg(&pattern).to_owned();
            let channels: Vec<String> = ask.query_async(&mut connection).await.unwrap();
            if channels.len() == processes {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.unwrap();
}

#[tokio::test]
async fn the_jobs_of_a_process_that_closed_its_connections_return_early() {
    let redis = Redis::on(own(&[])).await;
    redis.dispatcher.begin(Generation(1)).await.unwrap();
    let killed = RedisDispatcher::open(config_like(&redis)).await.unwrap();
    let (gone, here) = (SessionId::generate(), SessionId::generate());
    let _signals = killed.join(gone, vec![]).await.unwrap();
    let _signals = redis.dispatcher.join(here, vec![]).await.unwrap();
    redis.dispatcher.push(vec![entry()]).await.unwrap();
    let held = claim(&killed, gone).await.unwrap();
    drop(killed);
    until_listeners(&redis, 1).await;
    assert!(redis.dispatcher.reap(9).await.unwrap().is_empty(), "first seen");
    redis.clock.advance_ms(2_900);
    assert!(redis.dispatcher.reap(9).await.unwrap().is_empty(), "it may come back");
    redis.clock.advance_ms(100);
    let lost = redis.dispatcher.reap(9).await.unwrap();
    assert_eq!(lost.iter().map(|lost| lost.token.id).collect::<Vec<_>>(), [held[0].lease.id]);
    let alive: Vec<_> =
        redis.dispatcher.sessions(&[]).await.unwrap().alive.into_iter().map(|session| session.id).collect();
    assert_eq!(alive, [here], "who listens is left alone");
}

/// A flush takes the leases of a killed worker with it; that nobody listens for it any more still shows, at once and in
/// any later life. Who lives is not gone before it has joined.
#[tokio::test]
async fn after_a_flush_it_still_shows_whose_process_is_gone() {
    let redis = Redis::on(own(&[])).await;
    redis.dispatcher.begin(Generation(1)).await.unwrap();
    let other = RedisDispatcher::open(config_like(&redis)).await.unwrap();
    let (killed, here) = (SessionId::generate(), SessionId::generate());
    let _signals = other.join(killed, vec![]).await.unwrap();
    let _signals = redis.dispatcher.join(here, vec![]).await.unwrap();
    for generation in 2..4 {
        redis.server.flush();
        assert!(matches!(redis.dispatcher.sessions(&[]).await, Err(DispatchError::WrongGeneration)));
        redis.dispatcher.begin(Generation(generation)).await.unwrap();
        let present = redis.dispatcher.sessions(&[killed, here]).await.unwrap();
        assert!(present.alive.is_empty() && present.gone.is_empty(), "both are connected: {present:?}");
    }
    drop(other);
    until_listeners(&redis, 1).await;
    let present = redis.dispatcher.sessions(&[killed, here]).await.unwrap();
    assert_eq!(present.gone, [killed]);
    let _signals = redis.dispatcher.join(here, vec![]).await.unwrap();
    let present = redis.dispatcher.sessions(&[killed, here]).await.unwrap();
    assert_eq!((present.alive[0].id, present.gone), (here, vec![killed]));
    // Who signs off is gone, too, while its process goes on.
    redis.dispatcher.leave(here).await.unwrap();
    until_gone(&redis, here).await;
}

/// Waits until the server has noticed that nobody listens for a session.
async fn until_gone(redis: &Redis, session: SessionId) {
    let noticed = async { while redis.dispatcher.sessions(&[session]).await.unwrap().gone != [session] {} };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.unwrap();
}

#[tokio::test]
async fn a_process_that_still_speaks_is_not_taken_for_gone() {
    let redis = Redis::on(own(&[])).await;
    redis.dispatcher.begin(Generation(1)).await.unwrap();
    let deaf = RedisDispatcher::open(config_like(&redis)).await.unwrap();
    let session = SessionId::generate();
    let _signals = deaf.join(session, vec![]).await.unwrap();
    redis.dispatcher.push(vec![entry()]).await.unwrap();
    let held = claim(&deaf, session).await.unwrap();
    drop(deaf);
    until_listeners(&redis, 1).await;
    // Its other connection works: the renewals come.
    for _ in 0..5 {
        assert!(redis.dispatcher.reap(9).await.unwrap().is_empty());
        redis.clock.advance_ms(2_900);
        assert!(redis.dispatcher.renew(session, &[held[0].lease]).await.unwrap().is_empty());
    }
    assert!(redis.dispatcher.reap(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn another_process_learns_of_a_new_generation_by_one_error() {
    let redis = Redis::on(own(&[])).await;
    let other = RedisDispatcher::open(config_like(&redis)).await.unwrap();
    redis.dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let mut signals = other.join(session, vec![]).await.unwrap();
    assert!(claim(&other, session).await.unwrap().is_empty());
    redis.server.flush();
    assert!(matches!(claim(&other, session).await, Err(DispatchError::WrongGeneration)));
    redis.dispatcher.begin(Generation(2)).await.unwrap();
    other.signals_arrived().await.unwrap();
    assert_eq!(signals.try_recv(), Ok(Signal::Work), "it is told that there is a new generation");
    let _signals = other.join(session, vec![]).await.unwrap();
    let job = entry();
    redis.dispatcher.push(vec![job.clone()]).await.unwrap();
    assert_eq!(claim(&other, session).await.unwrap()[0].lease.id, job.id);
    // While both are there, a newer one is an error for whoever did not begin it, once.
    redis.dispatcher.begin(Generation(3)).await.unwrap();
    assert!(matches!(claim(&other, session).await, Err(DispatchError::WrongGeneration)));
    let mut signals = other.join(session, vec![]).await.unwrap();
    assert!(claim(&other, session).await.unwrap().is_empty());
    // Across processes a wake-up and a cancel arrive too.
    other.signals_arrived().await.unwrap();
    while signals.try_recv().is_ok() {}
    redis.dispatcher.push(vec![job.clone()]).await.unwrap();
    assert_eq!(signals.recv().await, Some(Signal::Work));
    claim(&other, session).await.unwrap();
    redis.dispatcher.nudge(job.id).await.unwrap();
    assert_eq!(signals.recv().await, Some(Signal::Cancel(job.id)));
}

/// The same installation as seen by another process.
fn config_like(redis: &Redis) -> RedisConfig {
    RedisConfig { prefix: redis.prefix.clone(), ..config(&redis.server, &redis.clock) }
}

#[tokio::test]
async fn a_server_that_restarts_empty_is_found_again() {
    let mut server = RedisServer::start();
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let dispatcher = RedisDispatcher::open(config(&server, &clock)).await.unwrap();
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let mut signals = dispatcher.join(session, vec![]).await.unwrap();
    dispatcher.push(vec![entry()]).await.unwrap();
    server.stop();
    assert!(matches!(claim(&dispatcher, session).await, Err(DispatchError::Unavailable(_))));
    server.restart_empty();
    assert!(
        matches!(until_it_answers(&dispatcher).await, DispatchError::WrongGeneration),
        "the scripts are loaded anew"
    );
    dispatcher.begin(Generation(2)).await.unwrap();
    let job = entry();
    dispatcher.push(vec![job.clone()]).await.unwrap();
    // The channel of wake-ups comes back too, and tells everyone to look.
    assert_eq!(signals.recv().await, Some(Signal::Work));
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    assert_eq!(claim(&dispatcher, session).await.unwrap()[0].lease.id, job.id);
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_a_bounded_wait() {
    let server = own(&[]);
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let patience = Duration::from_millis(100);
    let config = RedisConfig { response_timeout: patience, connect_timeout: patience, ..config(&server, &clock) };
    let dispatcher = RedisDispatcher::open(config).await.unwrap();
    dispatcher.begin(Generation(1)).await.unwrap();
    let job = entry();
    server.freeze();
    assert!(matches!(dispatcher.push(vec![job.clone()]).await, Err(DispatchError::Unavailable(_))));
    server.thaw();
    // Whether the first push was done nobody knows; it may be repeated.
    let again = async {
        while dispatcher.push(vec![job.clone()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
    assert_eq!(dispatcher.locate(&[job.id]).await.unwrap(), vec![Place::Waiting { epoch: Epoch(0) }]);
    assert_eq!(dispatcher.depths().await.unwrap()[0].waiting, 1);
}

#[tokio::test]
async fn nothing_is_left_of_jobs_that_are_done() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    let go_through = async |n: usize| {
        let jobs = (0..n).map(|n| {
            // Three of each key, so that two of them wait behind it.
            let (tenant, key) = (format!("tenant-{}", n / 3), (n % 2 == 0).then(|| "k".into()));
            let suspicion = if n == 0 { Suspicion::Isolated } else { Suspicion::Suspect };
            Entry { tenant: tenant.as_str().into(), suspicion, key, ..entry() }
        });
        dispatcher.push(jobs.collect()).await.unwrap();
        loop {
            let claims = claim(dispatcher, session).await.unwrap();
            if claims.is_empty() {
                return;
            }
            ack(dispatcher, session, &claims).await;
        }
    };
    go_through(1).await;
    let before = redis.server.command(&["DBSIZE"]);
    go_through(300).await;
    assert_eq!(redis.server.command(&["DBSIZE"]), before, "keys are left of tenants that have no jobs");
}

#[tokio::test]
async fn old_generations_are_swept() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    let session = SessionId::generate();
    for generation in 1..=3 {
        dispatcher.begin(Generation(generation)).await.unwrap();
        let _signals = dispatcher.join(session, vec![]).await.unwrap();
        assert_eq!(redis.server.command(&["DBSIZE"]), ":4", "the generation, the session, when it ends, who listens");
        for n in 0..300 {
            let (tenant, queue) = (format!("tenant-{n}"), format!("queue-{}", n % 3));
            let key = (n % 2 == 0).then(|| "k".into());
            let job = Entry { tenant: tenant.as_str().into(), queue: queue.as_str().into(), key, ..entry() };
            dispatcher.push(vec![Entry { id: JobId::generate(), ..job.clone() }]).await.unwrap();
            dispatcher.push(vec![job]).await.unwrap();
        }
        claim(dispatcher, session).await.unwrap();
    }
}

#[tokio::test]
async fn who_left_and_came_back_is_not_forgotten() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    dispatcher.leave(session).await.unwrap();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    redis.clock.advance_ms(A_WHILE_MS);
    dispatcher.renew(session, &[]).await.unwrap();
    dispatcher.reap(9).await.unwrap();
    assert!(claim(dispatcher, session).await.unwrap().is_empty(), "it is known");
}

/// After as long nobody knows any more of a session that ended.
const A_WHILE_MS: i64 = 600_001;

/// What a session leaves behind goes with its generation, or after a while, whatever came too late and whoever died.
#[tokio::test]
async fn nothing_is_left_of_sessions_that_left() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    let keys = |pattern: &str| redis.server.command(&["EVAL", "return #redis.call('KEYS', ARGV[1])", "0", pattern]);
    for generation in 1..=2 {
        dispatcher.begin(Generation(generation)).await.unwrap();
        let session = SessionId::generate();
        let _signals = dispatcher.join(session, vec![]).await.unwrap();
        dispatcher.push(vec![Entry { suspicion: Suspicion::Isolated, ..entry() }, entry()]).await.unwrap();
        let held: Vec<_> = claim(dispatcher, session).await.unwrap().iter().map(|claim| claim.lease).collect();
        dispatcher.start(session, &held).await.unwrap();
        dispatcher.leave(session).await.unwrap();
        // It was on its way when its session left.
        dispatcher.start(session, &held).await.unwrap();
        redis.clock.advance_ms(A_WHILE_MS * (generation - 1));
        assert_eq!(dispatcher.reap(9).await.unwrap().len(), 2, "nobody has replaced them");
        assert_eq!(keys("*:l:*"), ":1");
    }
    dispatcher.begin(Generation(3)).await.unwrap();
    assert_eq!(redis.server.command(&["DBSIZE"]), ":2", "the generation, and who left");
    redis.clock.advance_ms(A_WHILE_MS);
    dispatcher.reap(9).await.unwrap();
    assert_eq!(redis.server.command(&["DBSIZE"]), ":1", "the generation");
}

#[tokio::test]
async fn a_waiting_job_takes_at_most_300_bytes() {
    const JOBS: usize = 100_000;
    let redis = Redis::on(own(&[])).await;
    redis.dispatcher.begin(Generation(1)).await.unwrap();
    let used = || {
        let info = redis.server.command(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().to_owned();
        line.parse::<usize>().unwrap()
    };
    let before = used();
    for n in 0..JOBS / 1_000 {
        let tenant = format!("tenant-{}", n % 10);
        let jobs = (0..1_000).map(|_| Entry { tenant: tenant.as_str().into(), ..entry() }).collect();
        redis.dispatcher.push(jobs).await.unwrap();
    }
    let bytes = (used() - before) / JOBS;
    assert!(bytes <= 300, "{bytes} bytes");
    assert_eq!(redis.dispatcher.depths().await.unwrap()[0].waiting, JOBS as u64);
}

/// How often Redis ran each command since the last reset.
fn commands(server: &RedisServer) -> Vec<(String, u64)> {
    let info = server.command(&["INFO", "commandstats"]);
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    let mut commands: Vec<_> = info.lines().filter_map(count).collect();
    commands.retain(|(name, _)| !name.starts_with("config") && name != "info" && name != "ping");
    commands.sort();
    commands
}

#[tokio::test]
async fn a_step_makes_the_same_calls_whatever_the_backlog() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    let mut seen = vec![];
    for backlog in [1_000, 60_000] {
        for _ in 0..backlog / 1_000 {
            let tenant = |n| if n % 2 == 0 { "even" } else { "odd" };
            dispatcher.push((0..1_000).map(|n| Entry { tenant: tenant(n).into(), ..entry() }).collect()).await.unwrap();
        }
        let held = claim(dispatcher, session).await.unwrap();
        redis.server.command(&["CONFIG", "RESETSTAT"]);
        let acks = held.iter().map(|claim| Ack { lease: claim.lease, next: None }).collect();
        let reply = dispatcher.step(Step { session, acks, queues: vec![], kinds: vec![], slots: 100 }).await.unwrap();
        assert_eq!(reply.claims.len(), 100);
        seen.push(commands(&redis.server));
        ack(dispatcher, session, &reply.claims).await;
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].iter().map(|(_, calls)| calls).sum::<u64>() < 100, "in bulk, not one by one: {:?}", seen[0]);
}

#[tokio::test]
async fn a_step_makes_the_same_calls_however_many_wait_behind_a_key() {
    let redis = Redis::on(own(&[])).await;
    let dispatcher = &redis.dispatcher;
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    let mut seen = vec![];
    for blocked in [1_000, 30_000] {
        for _ in 0..blocked / 1_000 {
            let keyed = (0..1_000).map(|_| Entry { key: Some("k".into()), priority: 9, ..entry() });
            dispatcher.push(keyed.collect()).await.unwrap();
        }
        dispatcher.push((0..200).map(|_| entry()).collect()).await.unwrap();
        let held = claim(dispatcher, session).await.unwrap();
        redis.server.command(&["CONFIG", "RESETSTAT"]);
        let acks = held.iter().map(|claim| Ack { lease: claim.lease, next: None }).collect();
        let reply = dispatcher.step(Step { session, acks, queues: vec![], kinds: vec![], slots: 100 }).await.unwrap();
        assert_eq!(reply.claims.len(), 100);
        seen.push(commands(&redis.server));
        ack(dispatcher, session, &reply.claims).await;
        while claim(dispatcher, session).await.unwrap().len() > 1 {}
        let kept = dispatcher.depths().await.unwrap()[0].parked;
        assert!(kept >= blocked - 10, "{kept} of {blocked} wait");
        dispatcher.begin(Generation(2)).await.unwrap();
        let _signals = dispatcher.join(session, vec![]).await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}

async fn refused(address: &str) -> OpenError {
    let config = RedisConfig::new(RedisAddress::parse(address).unwrap());
    let error = RedisDispatcher::open(config).await.err().unwrap();
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.contains("s3cret"), "{line}");
    error
}

#[tokio::test]
async fn a_redis_that_would_lose_work_is_refused_in_one_line() {
    let server = own(&["--maxmemory-policy", "allkeys-lru"]);
    let error = refused(&server.url()).await;
    assert!(error.to_string().contains("CONFIG SET maxmemory-policy noeviction"), "{error}");
    let config = RedisConfig::new(RedisAddress::parse(&server.url()).unwrap());
    assert!(RedisDispatcher::open(RedisConfig { allow_eviction: true, ..config }).await.is_ok());

    let replica = own(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
    let error = refused(&replica.url()).await;
    assert!(matches!(error, OpenError::Replica(_)), "{error}");

    let error = refused(&format!("{}/99", server.url())).await;
    assert!(matches!(error, OpenError::Database(_)), "{error}");
    let error = refused(&server.url().replace("redis://", "rediss://")).await;
    assert!(matches!(error, OpenError::Tls { .. }), "{error}");
    let error = refused("redis://127.0.0.1:1").await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn wrong_passwords_and_missing_rights_are_told_apart() {
    let reader = ["--user", "reader", "on", ">s3cret", "~*", "&*", "+info", "+ping", "+client", "+hello"];
    let server = own(&[&["--requirepass", "right"], &reader[..]].concat());
    let at = |login: &str| server.url().replace("redis://", &format!("redis://{login}"));
    for login in ["", ":s3cret@", "nobody:s3cret@"] {
        let error = refused(&at(login)).await;
        assert!(matches!(error, OpenError::Password(_)), "{error}");
    }
    let error = refused(&at("reader:s3cret@")).await;
    assert!(matches!(error, OpenError::Rights { .. }), "{error}");
    let config = RedisConfig::new(RedisAddress::parse(&at(":right@")).unwrap());
    assert!(RedisDispatcher::open(config).await.is_ok());
}

#[tokio::test]
async fn without_functions_the_scripts_do_the_same() {
    let server = own(&["--user", "plain", "on", ">s3cret", "~*", "&*", "+@all", "-function", "-fcall", "-config"]);
    let address = server.url().replace("redis://", "redis://plain:s3cret@");
    let dispatcher = RedisDispatcher::open(RedisConfig::new(RedisAddress::parse(&address).unwrap())).await.unwrap();
    dispatcher.begin(Generation(1)).await.unwrap();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    let jobs = [entry(), entry()];
    dispatcher.push(jobs.to_vec()).await.unwrap();
    let claims = claim(&dispatcher, session).await.unwrap();
    assert_eq!(claims.len(), 2, "by Redis' own clock");
    ack(&dispatcher, session, &claims).await;
    assert_eq!(dispatcher.locate(&[jobs[0].id]).await.unwrap(), vec![Place::Unknown]);
    assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "+OK");
    assert!(claim(&dispatcher, session).await.unwrap().is_empty(), "a script that is forgotten is loaded again");
}

async fn goes_the_whole_way(dispatcher: &RedisDispatcher) {
    let session = SessionId::generate();
    let mut signals = dispatcher.join(session, vec![]).await.unwrap();
    let jobs: Vec<_> = (0..30).map(|n| Entry { queue: format!("queue-{n}").as_str().into(), ..entry() }).collect();
    dispatcher.push(jobs.clone()).await.unwrap();
    assert_eq!(signals.recv().await, Some(Signal::Work));
    let mut done = 0;
    while done < jobs.len() {
        let claims = claim(dispatcher, session).await.unwrap();
        assert!(!claims.is_empty());
        done += claims.len();
        ack(dispatcher, session, &claims).await;
    }
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    assert!(dispatcher.locate(&ids).await.unwrap().iter().all(|place| *place == Place::Unknown));
}

#[tokio::test]
async fn a_cluster_goes_the_whole_way() {
    let cluster = RedisCluster::start();
    let config = RedisConfig::new(RedisAddress::parse(&cluster.url()).unwrap());
    let dispatcher = RedisDispatcher::open(config.clone()).await.unwrap();
    dispatcher.begin(Generation(1)).await.unwrap();
    goes_the_whole_way(&dispatcher).await;
    let stranger = SessionId::generate();
    assert!(dispatcher.sessions(&[stranger]).await.unwrap().gone.is_empty(), "another node may hear of it");
    cluster.nodes()[2].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let refused = RedisDispatcher::open(config).await.err().unwrap();
    assert!(matches!(refused, OpenError::Evicts { .. }), "each primary is asked: {refused}");
}

#[tokio::test]
async fn a_failover_is_followed() {
    let servers = RedisSentinel::start();
    let config = RedisConfig::new(RedisAddress::parse(&servers.url()).unwrap());
    let dispatcher = RedisDispatcher::open(config).await.unwrap();
    dispatcher.begin(Generation(1)).await.unwrap();
    goes_the_whole_way(&dispatcher).await;
    servers.fail_over();
    let job = entry();
    let again = async {
        while dispatcher.push(vec![job.clone()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
    assert_eq!(dispatcher.locate(&[job.id]).await.unwrap(), vec![Place::Waiting { epoch: Epoch(0) }]);
}
