//! What follows when an operator changes a limit or lets a target go on. Whoever sets it does this, and every worker that hears
//! of it: until the last one has heard, somebody may still park a target by the old limit.

use super::{Lift, Limiter, Limits, Standing, Unavailable};
use crate::{
    dispatcher::{Dispatcher, Setting},
    ids::Name,
    route::Target,
    time::Timestamp,
};

/// Takes back what the limits `before` made targets wait for, where `now` says something else, and wakes those that may take
/// more. Returns how they stand. May be done twice; if it is done halfway, the rest waits for as long as it was told.
///
/// # Errors
/// The limiter cannot be asked; then try again.
pub async fn follow(
    limiter: &dyn Limiter,
    dispatcher: &dyn Dispatcher,
    before: &Limits,
    now: &Limits,
) -> Result<Vec<(Target, Standing)>, Unavailable> {
    let mut changed = Vec::new();
    for name in limiter.targets().await? {
        let Some(target) = Target::parse(name.as_str()) else { continue };
        let (was, is) = (before.of(&target), now.of(&target));
        if was == is {
            continue;
        }
        let (was, is) = (was.unwrap_or_default(), is.unwrap_or_default());
        limiter.lift(&target, &is, Lift::Line).await?;
        let standing = limiter.standing(&target, &is).await?;
        if is.lets_more_than(&was) && standing.blocked.is_none() {
            wake(dispatcher, &name).await;
        }
        changed.push((target, standing));
    }
    Ok(changed)
}

/// Ends what keeps a target from being asked, and returns the other targets that rest with it: all of its credential, if that
/// was out of money. The caller wakes them when nobody remembers the block any more.
///
/// # Errors
/// The limiter cannot be asked.
pub async fn lift(limiter: &dyn Limiter, limits: &Limits, target: &Target) -> Result<Vec<Name>, Unavailable> {
    if !limiter.lift(target, &limits.of(target).unwrap_or_default(), Lift::Blocks).await? {
        return Ok(Vec::new());
    }
    let account = target.account();
    let is_of_account = |name: &Name| Target::parse(name.as_str()).is_some_and(|other| other.account() == account);
    Ok(limiter.targets().await?.into_iter().filter(is_of_account).collect())
}

/// A moment that has passed wakes a target. If it is lost, the target wakes when its time is over.
pub async fn wake(dispatcher: &dyn Dispatcher, target: &Name) {
    let awake = Setting::ParkTarget { target: target.clone(), until: Timestamp(0), reason: String::new() };
    if let Err(error) = dispatcher.apply(awake).await {
        tracing::warn!(%error, %target, "a target with a larger limit is not woken");
    }
}
