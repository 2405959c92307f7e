//! Calls of services: like those of providers, without money.

use std::time::Instant;

use queue_core::{
    egress::{Answer, Outgoing, SendError},
    error::{ErrorClass, JobError},
    ids::CallId,
    limiter::Told as LimitsTold,
    route::{HTTP, Target},
    time::Timestamp,
};

use super::{InFlight, JobContext};
use crate::{
    admission::{Alike, Ended, Estimate},
    provider::CallError,
};

impl JobContext {
    /// Sends a job's request to a service, within its limits and past its breaker; what came of it is what `judge` says.
    pub(crate) async fn call_service(
        &self,
        target: &Target,
        request: Outgoing,
        judge: impl FnOnce(Result<Answer, SendError>, Timestamp) -> Result<Answer, JobError>,
    ) -> Result<Answer, JobError> {
        let leave = self.breakers.enter(target).await?;
        let _wished = InFlight::enter(&self.wished);
        let alike = Alike::of(self.job(), target.model.as_str());
        let call = CallId::of(self.job().id, HTTP, 0);
        let (leave, mut pass) = self.admit(target, (call, false), leave, Estimate::default()).await?;
        let began = Instant::now();
        pass.sends();
        let outcome = judge(self.around.egress.send(request).await, self.now());
        let took = began.elapsed();
        let told = told(&outcome);
        let ended = match &told {
            Ok(()) => Ended::well(None, LimitsTold::default(), took),
            Err(error) => {
                let failed = CallError::unbilled(error.class, error.code.clone(), String::new());
                Ended::badly(&CallError { error: error.clone(), ..failed }, took)
            }
        };
        tokio::join!(leave.end(told.as_ref().copied()), self.around.gate.end(pass, &alike, ended));
        outcome
    }
}

/// What the fleet hears of a call, in the logs and in the errors of other tenants' jobs: that the service works where it looked
/// at the request, whatever it thought of it, and never a word of its own.
fn told(outcome: &Result<Answer, JobError>) -> Result<(), JobError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.class == ErrorClass::Permanent && is_status(&error.code) => Ok(()),
        Err(error) => {
            let message = format!("{} ({})", error.class, error.code);
            Err(JobError::new(error.class, error.code.clone(), message).with_retry_after(error.retry_after_ms))
        }
    }
}

fn is_status(code: &str) -> bool {
    code.parse::<u16>().is_ok()
}
