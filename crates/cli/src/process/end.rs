//! How a process ends: by a signal, or because a role broke.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure, Outcome};

/// What a second signal makes of the process: at once, as the shell counts an interrupt.
const EXIT_IMPATIENT: i32 = 130;

/// The two ways in which a process is asked to stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ByHand,
            _ = self.terminate.recv() => Asked::ByASupervisor,
        }
    }
}

/// Who wants the process to stop.
enum Asked {
    /// Somebody at a terminal, who waits for it.
    ByHand,
    /// Who runs it, and tells balancers meanwhile.
    ByASupervisor,
}

/// The two moments of an end.
pub(super) struct End<'a> {
    /// Clients are sent elsewhere, and whoever comes nevertheless is served: a child of `shutdown`.
    pub(super) leaving: &'a CancellationToken,
    /// Nothing is begun any more.
    pub(super) shutdown: &'a CancellationToken,
    /// From the one to the other, where a supervisor asks.
    pub(super) wait: Duration,
}

/// Waits until every role has ended: after a signal, or because one of them broke, which stops the others.
pub(super) async fn wait(roles: &mut JoinSet<Result<(), Failure>>, signals: &mut Signals, end: End<'_>) -> Outcome {
    let End { leaving, shutdown, wait } = end;
    let mut outcome = Ok(Exit::Ok);
    let mut stop_at = None;
    loop {
        tokio::select! {
            asked = signals.next() => {
                if leaving.is_cancelled() {
                    tracing::warn!("second signal: leaving at once; running jobs come back when their leases end");
                    std::process::exit(EXIT_IMPATIENT);
                }
                tracing::info!("stopping: no more claims, running jobs may finish; a second signal leaves at once");
                leaving.cancel();
                match asked {
                    Asked::ByASupervisor => stop_at = Some(Instant::now() + wait),
                    Asked::ByHand => shutdown.cancel(),
                }
            }
            () = tokio::time::sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => {
                stop_at = None;
                shutdown.cancel();
            }
            role = roles.join_next() => match role {
                None => return outcome,
                Some(Ok(Ok(()))) => shutdown.cancel(),
                Some(Ok(Err(failure))) => {
                    shutdown.cancel();
                    outcome = Err(failure);
                }
                Some(Err(error)) => {
                    shutdown.cancel();
                    outcome = Err(Failure::error(format!("a role ended badly: {error}")));
                }
            },
        }
    }
}
