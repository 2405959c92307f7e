//! Where log lines go: stderr, for people or for machines.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Config, LogFormat};

/// What is logged unless `RUST_LOG` says otherwise. `async_openai` is always off: it logs answers when it cannot read
/// them, and prompts and answers never belong into a log.
const FILTER_DEFAULT: &str = "info";
const NEVER: &str = "async_openai=off";

/// Installs the log. The first call counts; tests of one process may call it again.
pub(crate) fn install(config: &Config) {
    let wanted = config.log_filter.as_deref().unwrap_or(FILTER_DEFAULT);
    let filter = EnvFilter::new(format!("{wanted},{NEVER}"));
    let registry = tracing_subscriber::registry().with(filter);
    // A second installation changes nothing, and there is nobody to tell before the first.
    let _ = match config.log {
        LogFormat::Human => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).with_target(false)).try_init()
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_current_span(true))
            .try_init(),
    };
}
