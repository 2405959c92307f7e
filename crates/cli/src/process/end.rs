//! How a process ends: by a signal, or because a role broke.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
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

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until every role has ended: after a signal, or because one of them broke, which stops the others.
pub(super) async fn wait(
    roles: &mut JoinSet<Result<(), Failure>>,
    signals: &mut Signals,
    shutdown: &CancellationToken,
) -> Outcome {
    let mut outcome = Ok(Exit::Ok);
    loop {
        tokio::select! {
            () = signals.next() => {
                if shutdown.is_cancelled() {
                    tracing::warn!("second signal: leaving at once; running jobs come back when their leases end");
                    std::process::exit(EXIT_IMPATIENT);
                }
                tracing::info!("stopping: no more claims, running jobs may finish; a second signal leaves at once");
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
