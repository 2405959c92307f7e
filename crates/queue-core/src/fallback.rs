//! Fallback chains: which models a call may go to when the first does not answer, and for what reasons.

use serde::{Deserialize, Serialize};

use crate::{error::ErrorClass, retry::rule};

/// Most models behind the first: each may cost as much as the first, and takes its time.
pub const LINKS_MAX: usize = 4;

/// A further model, and the failures before it after which it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The model.
    pub model: String,
    /// Classes of failures.
    pub on: Vec<ErrorClass>,
}

impl Link {
    /// Whether it is asked after a failure of this class. A target that is not asked at all, because its breaker is open
    /// or because it is paused, stands for the failures that would have come.
    pub fn follows(&self, class: ErrorClass) -> bool {
        let is_unasked = class == ErrorClass::Breaker;
        // A key that is not used any more stands for the refusals that would have come.
        let is_keyless = class == ErrorClass::Credential && self.on.contains(&ErrorClass::Auth);
        self.on.contains(&class) || is_keyless || is_unasked && self.on.iter().any(|on| UNASKED.contains(on))
    }
}

/// What a link may follow where its job does not say: what passes, but not soon enough.
pub const ON_DEFAULT: [ErrorClass; 7] = [
    ErrorClass::Rate,
    ErrorClass::Server,
    ErrorClass::TransportPre,
    ErrorClass::TransportMid,
    ErrorClass::StreamBroken,
    ErrorClass::Timeout,
    ErrorClass::Quota,
];

/// What an open breaker stands for.
const UNASKED: [ErrorClass; 5] = [
    ErrorClass::Breaker,
    ErrorClass::Server,
    ErrorClass::TransportPre,
    ErrorClass::TransportMid,
    ErrorClass::StreamBroken,
];

/// The classes that a link may name.
pub fn allowed() -> impl Iterator<Item = ErrorClass> {
    ErrorClass::ALL.into_iter().filter(|class| rule(*class).may_fall_back)
}

/// The models that a call may be answered by, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The model that is asked first.
    pub first: String,
    /// The others.
    pub links: Vec<Link>,
    /// Others came before: the first is a fallback as well.
    is_rest: bool,
}

impl Chain {
    /// A chain of this model alone.
    pub fn alone(model: impl Into<String>) -> Self {
        Self::of(model, Vec::new())
    }

    /// This model, and then those.
    pub fn of(first: impl Into<String>, links: Vec<Link>) -> Self {
        Self { first: first.into(), links, is_rest: false }
    }

    /// What is left of the chain from the model at `at` on.
    pub fn rest(&self, at: usize) -> Option<Self> {
        let link = self.links.get(at.checked_sub(1)?)?;
        Some(Self { first: link.model.clone(), links: self.links[at..].to_vec(), is_rest: true })
    }

    /// Under which name the model at `at` does `step`: calls of different models are different calls, and those of the
    /// first one are called as they would be without a chain.
    pub fn step(&self, step: &str, at: usize) -> String {
        match self.models().nth(at) {
            Some(model) if at > 0 || self.is_rest => format!("{step}~{model}"),
            _ => step.to_owned(),
        }
    }

    /// The models in order.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        [self.first.as_str()].into_iter().chain(self.links.iter().map(|link| link.model.as_str()))
    }

    /// Whether a further model may be asked although the one before it has answered: then its answer, which is paid for, must
    /// be kept before that.
    pub fn goes_on_after_an_answer(&self) -> bool {
        let answered = [ErrorClass::Filtered, ErrorClass::Truncated, ErrorClass::InvalidOutput];
        self.links.iter().any(|link| answered.into_iter().any(|class| link.follows(class)))
    }

    /// The number of the model that is asked after the model at `at` failed so; `None`: nobody is.
    pub fn after(&self, at: usize, class: ErrorClass) -> Option<usize> {
        (at + 1..=self.links.len()).find(|next| self.links[next - 1].follows(class))
    }
}

#[cfg(test)]
mod tests {
    use ErrorClass as C;

    use super::*;

    fn chain(links: &[(&str, &[C])]) -> Chain {
        let link = |(model, on): &(&str, &[C])| Link { model: (*model).into(), on: on.to_vec() };
        Chain::of("a", links.iter().map(link).collect())
    }

    #[test]
    fn the_next_model_is_the_first_that_follows_the_failure() {
        let chain = chain(&[("b", &[C::Rate]), ("c", &[C::Overflow, C::Server]), ("d", &[C::Rate])]);
        assert_eq!(chain.models().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(chain.after(0, C::Rate), Some(1));
        assert_eq!(chain.after(0, C::Overflow), Some(2));
        assert_eq!(chain.after(1, C::Rate), Some(3));
        assert_eq!(chain.after(0, C::BadRequest), None);
        assert_eq!(chain.after(3, C::Rate), None);
        assert_eq!(Chain::alone("a").after(0, C::Rate), None);
    }

    #[test]
    fn a_chain_may_go_on_after_an_answer() {
        assert!(chain(&[("b", &[C::Rate]), ("c", &[C::Truncated])]).goes_on_after_an_answer());
        assert!(
            !chain(&[("b", &ON_DEFAULT)]).goes_on_after_an_answer() && !Chain::alone("a").goes_on_after_an_answer()
        );
    }

    #[test]
    fn calls_of_a_model_are_called_the_same_in_the_rest_of_its_chain() {
        let whole = chain(&[("b", &[C::Rate]), ("c", &[C::Rate])]);
        let rest = whole.rest(1).unwrap();
        assert_eq!(rest.models().collect::<Vec<_>>(), ["b", "c"]);
        let steps = |chain: &Chain, n: usize| (0..n).map(|at| chain.step("map/1", at)).collect::<Vec<_>>();
        assert_eq!(steps(&whole, 3), ["map/1", "map/1~b", "map/1~c"]);
        assert_eq!(steps(&rest, 2), ["map/1~b", "map/1~c"]);
        assert_eq!((whole.rest(0), whole.rest(3)), (None, None));
    }

    #[test]
    fn an_open_breaker_stands_for_the_failures_that_opened_it() {
        for (on, follows) in [(C::Server, true), (C::TransportPre, true), (C::Rate, false), (C::Breaker, true)] {
            assert_eq!(chain(&[("b", &[on])]).after(0, C::Breaker).is_some(), follows, "{on}");
        }
        for (on, follows) in [(C::Auth, true), (C::Credential, true), (C::Server, false)] {
            assert_eq!(chain(&[("b", &[on])]).after(0, C::Credential).is_some(), follows, "{on}");
        }
    }

    #[test]
    fn what_the_request_itself_is_to_blame_for_is_no_reason() {
        assert!(allowed().all(|class| !matches!(class, C::BadRequest | C::BatchSplit | C::Panic | C::Deadline)));
        assert!(ON_DEFAULT.into_iter().all(|class| allowed().any(|other| other == class)));
    }
}
