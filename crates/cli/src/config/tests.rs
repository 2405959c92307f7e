use std::{fs, path::Path, time::Duration};

use queue_core::{
    budget::AtLimit,
    cache::Scope,
    journal::Role,
    ledger::{Nanousd, Usage},
    limiter::{Away, Charges, Limit},
    request_limits::Rates,
    retention::Policy,
    route::Target,
};
use secrecy::ExposeSecret;
use worker::caches::VECTORS_TTL;

use super::*;
use crate::failure::Exit;

/// The key file of the example is written beside it, since the example's own path exists on no machine.
fn load(toml: &str, flags: Flags, env: &[(&str, &str)]) -> Result<Config, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("longshore.toml");
    fs::write(&path, toml).unwrap();
    Config::load(&Flags { config: Some(path), ..flags }, None, &Environment::of(env))
}

fn error(toml: &str, flags: Flags, env: &[(&str, &str)]) -> String {
    let failure = load(toml, flags, env).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    failure.message
}

fn nothing(env: &[(&str, &str)]) -> Config {
    Config::load(&Flags::default(), None, &Environment::of(env)).unwrap()
}

#[test]
fn nothing_at_all_is_a_simulated_provider_on_sqlite_and_memory() {
    let config = nothing(&[]);
    assert_eq!(config.listen, "127.0.0.1:8080");
    assert_eq!(config.data, Path::new("longshore-data"));
    assert!(matches!(&config.journal, Journal::Sqlite(path) if path == Path::new("longshore-data/journal.db")));
    assert!(matches!(config.dispatcher, Dispatcher::Memory));
    assert_eq!(config.worker.slots, SLOTS_DEFAULT);
    assert!(matches!(&config.providers[..], [only] if only.is_simulated()));
    assert_eq!(config.default_model.as_deref(), Some("simulated-chat"));
}

#[test]
fn where_metrics_are_shown_is_chosen_by_the_environment_or_the_file() {
    let file = "metrics_listen = \"127.0.0.1:1\"";
    let chosen = |env: &[(&str, &str)]| load(file, Flags::default(), env).unwrap().metrics_listen;
    assert_eq!(chosen(&[]), "127.0.0.1:1");
    assert_eq!(chosen(&[("LONGSHORE_METRICS_LISTEN", "0.0.0.0:2")]), "0.0.0.0:2");
    assert_eq!(load("", Flags::default(), &[]).unwrap().metrics_listen, "127.0.0.1:0", "several on one machine");
}

#[test]
fn probes_that_harm_their_worker_are_off_wherever_nobody_says_otherwise() {
    let both = |toml: &str, env: &[(&str, &str)]| {
        let config = load(toml, Flags::default(), env).unwrap();
        (config.probe_jobs, config.probe_faults)
    };
    assert_eq!(both("", &[]), (None, false));
    assert_eq!(both("probe_jobs = true", &[]), (Some(true), false));
    assert_eq!(both("probe_faults = true", &[]), (None, true));
    assert_eq!(both("probe_faults = true", &[("LONGSHORE_PROBE_FAULTS", "false")]), (None, false));
    let told = error("", Flags::default(), &[("LONGSHORE_PROBE_FAULTS", "yes")]);
    assert!(told.contains("LONGSHORE_PROBE_FAULTS is `yes`; it is true or false"), "{told}");
}

#[test]
fn pages_that_may_call_are_named_as_browsers_name_them() {
    let origins = |env: &[(&str, &str)]| {
        load("cors_origins = [\"https://a.example\"]", Flags::default(), env).unwrap().cors_origins
    };
    assert_eq!(origins(&[]), ["https://a.example"]);
    assert_eq!(origins(&[("LONGSHORE_CORS_ORIGINS", "http://b:81, https://c")]), ["http://b:81", "https://c"]);
    for wrong in ["*", "null", "a.example", "https://a.example/", "https://a.example/x", "https://*.example", "ftp://a"]
    {
        let said = error(&format!("cors_origins = [{wrong:?}]"), Flags::default(), &[]);
        assert!(said.contains("is not an origin"), "{wrong}: {said}");
    }
}

#[test]
fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let file = "listen = \"127.0.0.1:1\"\n[worker]\nslots = 1\n[provider]\ndefault_model = \"file\"";
    let env = [("LONGSHORE_LISTEN", "127.0.0.1:2"), ("LONGSHORE_WORKER_SLOTS", "2")];
    let flags = Flags { listen: Some("127.0.0.1:3".into()), slots: Some(3), ..Flags::default() };
    let all = load(file, flags, &env).unwrap();
    assert_eq!((all.listen.as_str(), all.worker.slots), ("127.0.0.1:3", 3));
    let two = load(file, Flags::default(), &env).unwrap();
    assert_eq!((two.listen.as_str(), two.worker.slots), ("127.0.0.1:2", 2));
    let one = load(file, Flags::default(), &[]).unwrap();
    assert_eq!((one.listen.as_str(), one.worker.slots), ("127.0.0.1:1", 1));
    assert_eq!(one.default_model.as_deref(), Some("file"));
}

#[test]
fn the_example_file_parses_and_every_key_in_it_is_one_of_ours() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/longshore.example.toml");
    let text = fs::read_to_string(example).unwrap();
    let config = load(&text, Flags::default(), &[("OPENAI_API_KEY", "sk-test")]).unwrap();
    assert!(!config.providers.is_empty());

    // Keys that are switched off stand behind `# ` and must be right as well.
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "secret\n").unwrap();
    let every_key: String = text.lines().map(|line| uncommented(line) + "\n").collect();
    // The keys of a server are refused beside the embedded stores.
    let every_key =
        every_key.replace("sqlite:longshore-data/journal.db", "postgres://h/db").replace("memory:", "redis://h");
    let every_key = every_key.replace("/run/secrets/longshore-key", &key.display().to_string());
    let every_key = every_key.replace("/run/secrets/longshore-oidc-secret", &key.display().to_string());
    let recipients = [
        ("age1OPERATORS", "age1d9cu9k2v7d08depcz7q4sed0k2elk74qd0qd9lmkf5t3l9yw9v7sc0ma69"),
        ("age1OF_THE_SAFE", "age1p06qtsp9pzacythmc90z5j4r3xv654mc8r92qez2swh89925kdhsxq37zp"),
    ];
    let every_key = recipients.iter().fold(every_key, |text, (shown, real)| text.replace(shown, real));
    let prices = dir.path().join("prices.toml");
    fs::write(&prices, "version = \"mine\"").unwrap();
    let every_key = every_key.replace("/etc/longshore/prices.toml", &prices.display().to_string());
    let config = load(&every_key, Flags::default(), &[("OPENAI_API_KEY", "sk-test"), ("EMBED_KEY", "k")]).unwrap();
    assert_eq!(config.admin_key.unwrap().expose_secret(), "secret");
    assert!(config.dashboard.is_some_and(|dashboard| dashboard.oidc.is_some()));
    assert!(config.providers.len() >= 3, "{:?}", config.providers);
    let backup = config.backup.unwrap();
    assert_eq!((backup.recipients.names().len(), backup.daily_at), (2, Some(210)));
}

#[test]
fn issuers_are_asked_for_their_keys_over_lines_that_nobody_else_is_on() {
    let issuer = |more: &str| {
        let text = format!("[[auth.issuers]]\nissuer = \"https://id.example/\"\naudience = \"a\"\n{more}");
        load(&text, Flags::default(), &[]).map(|config| config.issuers[0].1.clone()).map_err(|failure| failure.message)
    };
    assert_eq!(issuer("").unwrap(), KeySetPlace::Discovered);
    assert_eq!(issuer("keys_file = \"f\"").unwrap(), KeySetPlace::File("f".into()));
    let url = "https://keys.example/x".parse().unwrap();
    assert_eq!(issuer("keys_url = \"https://keys.example/x\"").unwrap(), KeySetPlace::Url(url));
    assert!(issuer("keys_url = \"http://keys.example/x\"").unwrap_err().contains("is not https"));
    assert!(issuer("keys_url = \"https://keys.example/x\"\nkeys_file = \"f\"").unwrap_err().contains("both set"));
    // A name that is no address cannot be asked.
    let named = "[[auth.issuers]]\nissuer = \"us\"\naudience = \"a\"";
    assert!(error(named, Flags::default(), &[]).contains("keys_file or keys_url"));
}

#[test]
fn backups_want_a_place_and_two_who_can_open_them() {
    let one = "age1d9cu9k2v7d08depcz7q4sed0k2elk74qd0qd9lmkf5t3l9yw9v7sc0ma69";
    for (toml, word) in [
        ("url = \"file:x\"", "at least 2 different recipients"),
        (&format!("url = \"file:x\"\nrecipients = [\"{one}\", \"{one}\"]"), "1 is named"),
        ("offsite = \"file:x\"", "backup.url is missing"),
        ("daily_at = \"25:00\"\nurl = \"file:x\"", "recipients"),
        ("keep = 3", "unknown field"),
    ] {
        let message = error(&format!("[backup]\n{toml}"), Flags::default(), &[]);
        assert!(message.contains(word), "{toml}: {message}");
    }
    assert!(load("", Flags::default(), &[]).unwrap().backup.is_none());
}

/// A line of the example with its key switched on: `# key = value` and `# [table]`, not prose.
pub(super) fn uncommented(line: &str) -> String {
    let Some(rest) = line.strip_prefix("# ") else { return line.to_owned() };
    let is_key = rest.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    let is_table = rest.starts_with('[') && rest.ends_with(']') && !rest.contains(' ');
    if is_key || is_table { rest.to_owned() } else { line.to_owned() }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    assert!(error("lisen = \"x\"", Flags::default(), &[]).contains("lisen"));
    assert!(error("[worker]\nslot = 3", Flags::default(), &[]).contains("slot"));
    assert!(error("[[providers]]\nname = \"a\"\nadress = \"b\"", Flags::default(), &[]).contains("adress"));
    assert!(error("", Flags::default(), &[("LONGSHORE_SLOTS", "3")]).contains("LONGSHORE_SLOTS"));
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    for toml in [
        "admin_key = \"lsk_hush\"",
        "[provider]\nkey = \"lsk_hush\"",
        "[[providers]]\nname = \"a\"\nurl = \"http://x/v1\"\nkey = \"lsk_hush\"",
    ] {
        let message = error(toml, Flags::default(), &[]);
        assert!(message.contains("a secret does not belong"), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }
}

/// A URL with a password, where it does not belong or is none that can be used.
#[test]
fn a_password_is_told_by_no_refusal() {
    for toml in [
        "[objects]\nurl = \"redis://u:hush@a:1\"",
        "[provider]\nurl = \"ftp://u:hush@a/v1\"",
        "[backup]\nurl = \"redis://u:hush@a:1\"",
        "listen = \"redis://u:hush@a:1\"",
        "[worker]\nslots = \"postgres://u:hush@a/db\"",
        "[webhooks]\nallow_networks = [\"https://u:hush@a/\"]",
    ] {
        let message = error(toml, Flags::default(), &[]);
        assert!(!message.contains("hush"), "{toml}: {message}");
    }
}

#[test]
fn a_worker_serves_what_it_is_told_and_otherwise_everything() {
    let none = load("", Flags::default(), &[]).unwrap().worker;
    assert_eq!((none.queues, none.kinds), (vec![], vec![]));
    let file = "[worker]\nkinds = [\"llm\"]\nqueues = [\"chat\"]";
    let filed = load(file, Flags::default(), &[]).unwrap().worker;
    assert_eq!((filed.queues, filed.kinds), (vec!["chat".into()], vec![Kind::Llm]));
    let env = [("LONGSHORE_WORKER_KINDS", "embedding, probe"), ("LONGSHORE_WORKER_QUEUES", "a,b")];
    let told = load(file, Flags::default(), &env).unwrap().worker;
    assert_eq!((told.queues, told.kinds), (vec!["a".into(), "b".into()], vec![Kind::Embedding, Kind::Probe]));
    let message = error("", Flags::default(), &[("LONGSHORE_WORKER_KINDS", "llm,,probe")]);
    assert!(message.contains("worker.kinds: `` is no kind"), "{message}");
}

#[test]
fn values_that_cannot_work_are_refused_with_what_is_allowed() {
    let provider = |rest: &str| format!("[[providers]]\nname = \"a\"\n{rest}");
    for (toml, expected) in [
        ("listen = \"8080\"".to_owned(), "HOST:PORT"),
        ("metrics_listen = \":9\"".to_owned(), "metrics_listen is `:9`"),
        ("journal = \"mysql://x\"".to_owned(), "sqlite:PATH"),
        ("dispatcher = \"kafka:\"".to_owned(), "redis://"),
        ("log = \"xml\"".to_owned(), "human"),
        ("[worker]\nslots = 0".to_owned(), "between 1 and"),
        ("[worker]\nqueues = [\"a b\"]".to_owned(), "worker.queues"),
        (
            "[worker]\nkinds = [\"image\"]".to_owned(),
            "worker.kinds: `image` is no kind of job; kinds are llm, embedding",
        ),
        ("[worker]\ndrain = \"soon\"".to_owned(), "duration"),
        ("[worker.timeouts]\nimage = \"1m\"".to_owned(), "image"),
        ("[provider]\nurl = \"localhost\"".to_owned(), "not a URL"),
        (provider(""), "needs a url"),
        (provider("url = \"http://x/v1\"\nconcurrency = 0"), "concurrency is 0"),
        (provider("url = \"http://x/v1\"\nkey_env = \"NO_SUCH\""), "NO_SUCH"),
        (provider("url = \"http://x/v1\"\nkey_file = \"/no/such\""), "/no/such"),
        (provider("url = \"http://x/v1\"\nmodels = [\"*\"]"), "is no model"),
        (provider("kind = \"simulated\"\nurl = \"http://x/v1\""), "has no url"),
        (provider("url = \"http://x/v1\"\n") + &provider("url = \"http://y/v1\""), "two providers"),
        (provider("url = \"http://x/v1\"\n[provider]\nurl = \"http://y/v1\""), "never be asked"),
    ] {
        let message = error(&toml, Flags::default(), &[]);
        assert!(message.contains(expected), "{toml}: {message}");
    }
}

#[test]
fn a_key_alone_means_openai_and_a_url_means_that_server() {
    let openai = nothing(&[("OPENAI_API_KEY", "sk-1")]);
    assert!(matches!(&openai.providers[..], [Provider { backend: Backend::Openai { url, key: Some(_), .. }, .. }]
        if url == "https://api.openai.com/v1"));
    assert_eq!(openai.default_model.as_deref(), Some("gpt-4o-mini"));

    let local = nothing(&[("LONGSHORE_PROVIDER_URL", "http://127.0.0.1:8000/v1/")]);
    assert!(matches!(&local.providers[..], [Provider { backend: Backend::Openai { url, key: None, .. }, .. }]
        if url == "http://127.0.0.1:8000/v1"));
    assert_eq!(local.default_model, None);
}

#[test]
fn a_key_that_cannot_stand_in_a_header_is_refused() {
    let failure = Config::load(&Flags::default(), None, &Environment::of(&[("OPENAI_API_KEY", "a\nb")])).unwrap_err();
    assert!(failure.message.contains("line break"), "{failure}");
    assert!(!failure.message.contains("a\nb"), "{failure}");
}

#[test]
fn several_providers_share_the_models_in_their_order() {
    let toml = "[[providers]]\nname = \"embed\"\nurl = \"http://e/v1\"\nmodels = [\"e5*\"]\nconcurrency = 4\n\
                [provider]\nurl = \"http://c/v1\"";
    let config = load(toml, Flags::default(), &[]).unwrap();
    let routes = routes(&config.providers, None, None);
    assert_eq!(routes.resolve("e5-small").unwrap().provider.as_str(), "embed");
    assert_eq!(routes.resolve("anything").unwrap().provider.as_str(), "default");
    assert_eq!(config.providers[0].concurrency, Some(4));
    assert_eq!(config.providers[1].concurrency, Some(64));
    assert_eq!(nothing(&[]).providers[0].concurrency, None);
}

#[test]
fn the_simulated_pace_can_be_set() {
    let flags = Flags {
        simulated_first_token: Some("5ms".into()),
        simulated_tokens_per_second: Some(9_000),
        ..Flags::default()
    };
    let config = load("", flags, &[]).unwrap();
    assert!(matches!(config.providers[0].backend,
        Backend::Simulated { first_token, tokens_per_second: 9_000 } if first_token == Duration::from_millis(5)));
}

#[test]
fn a_price_file_goes_over_the_shipped_prices() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.toml");
    let file = format!("prices_file = {path:?}");
    fs::write(&path, "version = \"mine\"\n[models.\"smollm2\"]\ninput = 0\noutput = 0\n").unwrap();
    let prices = load(&file, Flags::default(), &[]).unwrap().prices;
    assert!(prices.model("smollm2").is_some() && prices.model("gpt-4o-mini").is_some());
    assert!(prices.version().ends_with("+mine"), "{}", prices.version());
    fs::write(&path, "version = \"mine\"\n[models.\"smollm2\"]\ninput = 0\n").unwrap();
    let reason = error(&file, Flags::default(), &[]);
    assert!(reason.contains("prices.toml") && reason.contains("smollm2"), "{reason}");
    fs::remove_file(&path).unwrap();
    assert!(error("", Flags::default(), &[("LONGSHORE_PRICES_FILE", path.to_str().unwrap())]).contains("prices.toml"));
}

#[test]
fn a_provider_limits_each_of_its_models() {
    let file = "[[providers]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/v1\"\nmodels = [\"gpt-*\"]\nconcurrency = 7";
    let config = load(file, Flags::default(), &[]).unwrap();
    let limits = crate::providers::concurrency(&config);
    assert_eq!(limits.get(&Name::new("a:*")), Some(&7));
}

#[test]
fn a_store_is_a_url_or_a_table_and_its_password_is_never_shown() {
    let table = "[journal]\nurl = \"postgres://u:hidden@h/db\"\npool_size = 20\npool_recycle = \"1h\"\n\
                 [dispatcher]\nurl = \"redis://:hidden@h\"\nallow_eviction = true";
    let config = load(table, Flags::default(), &[]).unwrap();
    let Journal::Postgres(postgres) = &config.journal else { panic!("{:?}", config.journal) };
    assert_eq!((postgres.pool_size, postgres.pool_recycle), (20, Duration::from_secs(3_600)));
    assert!(matches!(&config.dispatcher, Dispatcher::Redis(redis) if redis.allow_eviction));
    assert!(!format!("{config:?}").contains("hidden"));

    let env = [("LONGSHORE_JOURNAL", "postgres://u:other@h/db"), ("LONGSHORE_DISPATCHER", "memory:")];
    let both = load("[journal]\npool_size = 3", Flags::default(), &env[..1]).unwrap();
    assert!(matches!(&both.journal, Journal::Postgres(postgres) if postgres.pool_size == 3), "file and environment");

    for (file, reason) in [
        ("journal = \"mysql://u:hidden@h\"", "sqlite:PATH"),
        ("dispatcher = \"amqp://u:hidden@h\"", "redis://"),
        ("[journal]\npool_size = 3", "postgres"),
        ("[journal]\nurl = \"postgres://h/db\"\npool_size = 1", "at least 2"),
        ("[journal]\nurl = \"postgres://h/db\"\npoolsize = 3", "known"),
        ("[dispatcher]\nallow_eviction = true", "redis"),
    ] {
        let said = error(file, Flags::default(), &[]);
        assert!(said.contains(reason) && !said.contains("hidden"), "{file}: {said}");
    }
}

#[test]
fn budgets_of_the_configuration_are_checked() {
    let toml = "[budget]\nunknown_price = \"allow\"\ndefault_price = { input = 5, output = 7_000_000 }\n\
                [budget.each_tenant]\nmonth_usd = \"100.00\"\nday_tokens = 9\nat_limit = \"fail\"\n";
    let config = load(toml, Flags::default(), &[]).unwrap();
    let each = &config.budgets.each_tenant;
    assert_eq!(
        (each.month_usd, each.day_tokens, each.at_limit),
        (Some(Nanousd(100_000_000_000)), Some(9), AtLimit::Fail)
    );
    let usage = Usage { tokens_out: 1_000, ..Usage::default() };
    assert_eq!(config.prices.cost("mystery", &usage), Some(Nanousd(7_000_000)));
    assert_eq!(nothing(&[]).prices.cost("mystery", &usage), None);
    for (toml, expected) in [
        ("[budget]\nunknown_price = \"guess\"", "line 2"),
        ("[budget]\ndefault_price = { input = 2_000_000_000_000, output = 0 }", "a wrong unit?"),
        ("[budget.each_tenant]\nmonth_usd = \"much\"", "budget.each_tenant.month_usd"),
        ("[budget.each_tenant]\nat_limit = \"stop\"", "park, fail or degrade"),
        ("[budget.each_tenant]\nat_limit = \"degrade\"", "degrade_to"),
        ("[budget.each_tenant]\nweek_usd = \"1\"", "week_usd"),
    ] {
        let message = error(toml, Flags::default(), &[]);
        assert!(message.contains(expected), "{toml}: {message}");
    }
}

#[test]
fn tenants_have_a_cap_and_a_weight() {
    let config =
        load("[tenants.acme]\nbacklog_max = 7\nweight = 3\n[tenants.globex]\n", Flags::default(), &[]).unwrap();
    assert_eq!(
        config.tenants[&Name::from("acme")],
        TenantSettings { backlog_max: Some(7), weight: 3, ..TenantSettings::default() }
    );
    assert_eq!(config.tenants[&Name::from("globex")], TenantSettings::default());
    assert!(nothing(&[]).tenants.is_empty());
    for (toml, expected) in [
        ("[tenants.acme]\nweight = 0", "between 1 and 1000"),
        ("[tenants.acme]\nweight = 1001", "tenants.acme.weight"),
        ("[tenants.acme]\nbacklog_max = -1", "line 2"),
        ("[tenants.acme]\nbacklog = 1", "backlog"),
        ("[tenants.\"\"]\nweight = 1", "tenants: ``"),
    ] {
        let message = error(toml, Flags::default(), &[]);
        assert!(message.contains(expected), "{toml}: {message}");
    }
}

#[test]
fn requests_are_limited_by_role_and_tenant_where_it_is_said() {
    let rates = |requests, submits| Rates { requests_per_minute: requests, llm_submits_per_minute: submits };
    let off = nothing(&[]).request_limits;
    assert!(off.by_role.values().chain([&off.each_tenant]).all(|of_role| *of_role == Rates::default()));
    assert_eq!((off.burst_ms, off.when_away, off.llm_when_away), (60_000, Away::Local, Away::Closed));
    let file = "[request_limits]\nburst = \"6s\"\nwhen_away = \"open\"\nllm_when_away = \"local\"\n\
                [request_limits.user]\nrequests_per_minute = 100\nllm_submits_per_minute = 10\n\
                [request_limits.each_tenant]\nrequests_per_minute = 3_000\n\
                [tenants.acme]\nllm_submits_per_minute = 5\n";
    let config = load(file, Flags::default(), &[]).unwrap();
    let limits = &config.request_limits;
    assert_eq!(limits.by_role[&Role::User], rates(Some(100), Some(10)));
    assert_eq!((limits.by_role[&Role::Admin], limits.each_tenant), (Rates::default(), rates(Some(3_000), None)));
    assert_eq!((limits.burst_ms, limits.when_away, limits.llm_when_away), (6_000, Away::Open, Away::Local));
    assert_eq!(config.tenants[&Name::from("acme")].rates, rates(None, Some(5)));
    for (toml, expected) in [
        ("[request_limits]\nburst = \"2m\"", "between 1s and 60s"),
        ("[request_limits]\nburst = \"10ms\"", "request_limits.burst"),
        ("[request_limits.user]\nrequests_per_minute = 0", "request_limits.user.requests_per_minute is 0"),
        ("[request_limits.each_tenant]\nllm_submits_per_minute = 1_000_001", "between 1 and 1000000"),
        ("[request_limits.root]\nrequests_per_minute = 1", "root"),
        ("[request_limits]\nwhen_away = \"maybe\"", "maybe"),
        ("[tenants.acme]\nrequests_per_minute = 0", "tenants.acme.requests_per_minute"),
    ] {
        let message = error(toml, Flags::default(), &[]);
        assert!(message.contains(expected), "{toml}: {message}");
    }
}

#[test]
fn rates_hold_for_each_model_unless_it_has_its_own() {
    let file = "[[providers]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/v1\"\nrequests_per_minute = 600\n\
                tokens_per_minute = 100_000\nconcurrency = 9\n\
                [[providers.limits]]\nmodel = \"big*\"\ntokens_per_minute = 5_000\ntokens_charged = \"usage\"\n\
                limiter_away = \"closed\"\n";
    let config = load(file, Flags::default(), &[]).unwrap();
    let limits = crate::providers::limits(&config);
    let of = |model: &str| {
        let target = Target { provider: "a".into(), model: model.into(), credential: "default".into() };
        limits.of(&target).unwrap()
    };
    let small = Limit {
        requests_per_minute: Some(600),
        tokens_per_minute: Some(100_000),
        concurrency: Some(9),
        ..Limit::default()
    };
    assert_eq!(of("small"), small);
    let big =
        Limit { tokens_per_minute: Some(5_000), tokens_charged: Charges::Usage, when_away: Away::Closed, ..small };
    assert_eq!(of("big-1"), big);
    let nobody_asks = load("", Flags::default(), &[]).unwrap();
    assert!(crate::providers::limits(&nobody_asks).rules().is_empty(), "who invents answers refuses nobody");
    let first = crate::providers::concurrency(&load(&file.replace("= 9", "= 90"), Flags::default(), &[]).unwrap());
    assert_eq!(first.get(&Name::new("a:*")), Some(&30), "no more than the limit lets in within three seconds");

    for (wrong, reason) in [
        ("requests_per_minute = 0", "no call would ever be made"),
        ("tokens_per_minute = -1", "invalid value"),
        ("tokens_charged = \"later\"", "unknown variant"),
        ("[[providers.limits]]\nmodel = \"*\"", "is no model"),
        ("[[providers.limits]]\nmodel = \"m\"\n[[providers.limits]]\nmodel = \"m\"", "two of them"),
        ("[[providers.limits]]\nmodel = \"m\"\nrpm = 3", "unknown field"),
    ] {
        let file = format!("[[providers]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/v1\"\n{wrong}\n");
        let refused = load(&file, Flags::default(), &[]).unwrap_err().to_string();
        assert!(refused.contains(reason), "{wrong}: {refused}");
    }
}

#[test]
fn a_cache_is_this_process_or_a_redis_that_is_not_the_dispatchers() {
    let usual = nothing(&[]).cache;
    assert!(usual.url.is_none() && usual.scope == Scope::Tenant);
    assert_eq!((usual.memory_max_bytes, usual.vectors_ttl), (64 * 1024 * 1024, Some(VECTORS_TTL)));

    let file = "[cache]\nurl = \"redis://a\"\nscope = \"global\"\nvectors_ttl = \"0s\"";
    let cache = load(file, Flags::default(), &[("LONGSHORE_CACHE", "redis://b")]).unwrap().cache;
    assert_eq!(cache.url.unwrap().expose_secret(), "redis://b");
    assert_eq!((cache.scope, cache.vectors_ttl), (Scope::Global, None));

    let same = [("LONGSHORE_CACHE", "redis://a"), ("LONGSHORE_DISPATCHER", "redis://a")];
    assert!(error("", Flags::default(), &same).contains("must not evict"));
    for (file, reason) in [
        ("[cache]\nurl = \"memory:\"", "redis://"),
        ("[cache]\nmemory_mib = 1_000_000", "at most"),
        ("[cache]\nvectors_ttl = \"400d\"", "at most"),
        ("[cache]\nscope = \"all\"", "tenant"),
        ("[cache]\nttl = \"1h\"", "unknown field"),
    ] {
        let told = error(file, Flags::default(), &[]);
        assert!(told.contains(reason), "{file}: {told}");
    }
}

#[test]
fn a_provider_says_how_its_embedding_jobs_travel() {
    let provider = |more: &str| {
        let file = format!("[[providers]]\nname = \"p\"\nurl = \"http://127.0.0.1:1/v1\"\n{more}");
        load(&file, Flags::default(), &[])
    };
    let config =
        provider("[providers.embedding]\ninputs_max = 250\ntokens_max = 20_000\nwait = \"5ms\"\ncalls_max = 4\n");
    let embedding = config.unwrap().providers[0].embedding;
    assert_eq!((embedding.inputs_max, embedding.tokens_max, embedding.calls_max), (250, 20_000, 4));
    assert!(embedding.together && embedding.wait == Duration::from_millis(5));
    for (more, reason) in [
        ("inputs_max = 0", "embedding.inputs_max is 0"),
        ("inputs_max = 3000", "between 1 and 2048"),
        ("tokens_max = 0", "embedding.tokens_max is 0"),
        ("calls_max = 0", "embedding.calls_max is 0"),
        ("wait = \"1m\"", "at most"),
    ] {
        let told = provider(&format!("[providers.embedding]\n{more}\n")).unwrap_err().message;
        assert!(told.contains(reason), "{more}: {told}");
    }
}

#[test]
fn more_embedding_jobs_run_at_once_than_chats_unless_someone_says_how_many() {
    let jobs = |more: &str| {
        let models =
            "[provider]\nurl = \"http://127.0.0.1:1/v1\"\ndefault_model = \"chat\"\nembedding_model = \"embed\"";
        let config = load(&format!("{models}\n{more}"), Flags::default(), &[]).unwrap();
        let limits = crate::providers::limits(&config);
        let of = |model: &str| {
            let target = Target { provider: "default".into(), model: model.into(), credential: "default".into() };
            limits.of(&target).and_then(|limit| limit.concurrency)
        };
        (crate::providers::concurrency(&config), of("embed"), of("chat"))
    };
    let (told, embed, chat) = jobs("");
    assert_eq!(told.get("default:*"), Some(&64));
    assert_eq!(
        told.iter().find(|(name, _)| name.as_str().starts_with("default:embed:")).map(|(_, jobs)| *jobs),
        Some(4_096)
    );
    assert_eq!((embed, chat), (Some(4_096), Some(64)));

    let own = "[[providers]]\nname = \"p\"\nurl = \"http://127.0.0.1:1/v1\"\nmodels = [\"embed\"]\nconcurrency = 9\n";
    let (told, ..) = jobs(own);
    assert_eq!(
        told.into_iter().map(|(name, jobs)| (name.to_string(), jobs)).collect::<Vec<_>>(),
        [("default:*".to_owned(), 64), ("p:*".to_owned(), 9)]
    );
}

#[test]
fn retention_is_read_in_times_and_nothing_is_kept_longer_than_its_job() {
    let policy = |text: &str| {
        let file: file::File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        retention::policy(&file.retention)
    };
    assert_eq!(policy("").unwrap(), Policy::default());
    let own = policy("[retention]\njobs = \"14d\"\ndead_letters = \"forever\"\nhold = \"a case\"").unwrap();
    assert_eq!((own.jobs_ms, own.dead_letters_ms), (Some(14 * 86_400_000), None));
    assert_eq!(own.age_ms(queue_core::retention::Class::Errors), own.jobs_ms, "unless something else is said");
    assert_eq!(own.hold.as_deref(), Some("a case"));
    for (text, reason) in [
        ("jobs = \"1h\"", "retention.jobs is too short; 1d is the least"),
        ("idempotency_keys = \"1m\"", "1h is the least"),
        ("audit = \"30d\"", "366d is the least"),
        ("payloads = \"forever\"", "longer than retention.jobs"),
        ("jobs = \"soon\"", "not a duration"),
        ("results = \"1d\"", "unknown field"),
    ] {
        let refused = policy(&format!("[retention]\n{text}")).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}
