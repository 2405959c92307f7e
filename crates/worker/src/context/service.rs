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

use super::{InFlight, JobContext, verdict};
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
        // A service that looked at the request works, whatever it thought of it.
        let heard = match &outcome {
            Err(error) if is_refusal(error) => Ok(()),
            outcome => verdict(outcome),
        };
        let ended = match heard {
            Ok(()) => Ended::well(None, LimitsTold::default(), took),
            Err(error) => {
                let failed = CallError::unbilled(error.class, error.code.clone(), String::new());
                Ended::badly(&CallError { error: error.clone(), ..failed }, took)
            }
        };
        tokio::join!(leave.end(heard), self.around.gate.end(pass, &alike, ended));
        outcome
    }
}

/// Whether a service has answered, and will answer the same again.
fn is_refusal(error: &JobError) -> bool {
    error.class == ErrorClass::Permanent && error.code.parse::<u16>().is_ok()
}
