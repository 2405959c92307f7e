//! What this process logs, and where: stderr, for people or for machines.

mod fields;
mod line;

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use queue_core::{
    journal::{LogLevel, Orders},
    stores::Stores,
};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use self::line::{Form, Lines};
use crate::config::{Config, LogFormat};

/// What is logged unless `RUST_LOG` or an operator says otherwise.
const FILTER_DEFAULT: &str = "info";
/// `async_openai` logs answers when it cannot read them, and prompts and answers never belong into a log. Its lines are dropped in any
/// case ([`line::NEVER`]); with this they are not even made.
const NEVER: &str = "async_openai=off";
/// How often each process looks for another level: one is set by people.
const LOOK_EVERY: Duration = Duration::from_secs(2);

static LEVELS: OnceLock<Levels> = OnceLock::new();

/// The level of this process, which may change while it runs.
pub(crate) struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    /// What it was told at its start.
    usual: String,
}

/// Installs the log. The first call counts; tests of one process may call it again.
pub(crate) fn install(config: &Config) -> &'static Levels {
    LEVELS.get_or_init(|| {
        let usual = config.log_filter.as_deref().unwrap_or(FILTER_DEFAULT).to_owned();
        let (filter, handle) = reload::Layer::new(filter(&usual));
        let is_terminal = std::io::stderr().is_terminal();
        let form = match (config.log, is_terminal) {
            (Some(LogFormat::Human), is_terminal) | (None, is_terminal @ true) => Form::Human { colours: is_terminal },
            (Some(LogFormat::Json), _) | (None, false) => Form::Json,
        };
        // A second installation changes nothing, and there is nobody to tell before the first.
        let _ = tracing_subscriber::registry().with(filter).with(Lines::new(form, std::io::stderr)).try_init();
        Levels { handle, usual }
    })
}

fn filter(wanted: &str) -> EnvFilter {
    EnvFilter::new(format!("{wanted},{NEVER}"))
}

impl Levels {
    /// Does what operators order, for as long as it is polled. While the journal is away the last order holds, up to its end.
    pub(crate) async fn obey(&self, stores: &Stores) {
        let (mut ticks, mut last) = (tokio::time::interval(LOOK_EVERY), None);
        loop {
            ticks.tick().await;
            last = self.look(stores, last).await;
        }
    }

    /// Returns what holds now instead of what it was told at its start, where that was `last`.
    async fn look(&self, stores: &Stores, last: Option<LogLevel>) -> Option<LogLevel> {
        let order = match Orders::log_level(&*stores.orders).await {
            Ok(order) => order,
            Err(error) => {
                tracing::debug!(%error, "the level of the log was not read; the last one holds");
                last.clone()
            }
        };
        let order = order.filter(|order| order.holds(&*stores.clock));
        if order == last {
            return order;
        }
        let wanted = order.as_ref().map_or(&*self.usual, |order| &*order.filter).to_owned();
        let until = order.as_ref().and_then(|order| order.until).map(|until| until.to_string());
        // Before the change, which may silence it.
        tracing::warn!(filter = wanted, until, "the level of the log changes");
        if let Err(error) = self.handle.reload(filter(&wanted)) {
            tracing::error!(%error, "the level of the log cannot be changed");
        }
        order
    }
}
