//! Who is to blame for the end of a session.

use std::collections::HashMap;

use crate::{dispatcher::Suspicion, ids::SessionId, journal::Blame};

/// Of each session the highest suspicion of the handlers that began in it, and how many of them have it.
#[derive(Debug, Default)]
pub(super) struct Likeliest(HashMap<SessionId, (Suspicion, usize)>);

impl Likeliest {
    /// Among these handlers.
    pub(super) fn among(begun: impl Iterator<Item = (SessionId, Suspicion)>) -> Self {
        let mut likeliest = HashMap::<_, (Suspicion, usize)>::new();
        for (session, suspicion) in begun {
            let (highest, count) = likeliest.entry(session).or_default();
            if suspicion > *highest {
                (*highest, *count) = (suspicion, 0);
            }
            *count += usize::from(suspicion == *highest);
        }
        Self(likeliest)
    }

    /// The judgement of one of the handlers.
    pub(super) fn blame(&self, session: SessionId, suspicion: Suspicion) -> Blame {
        match self.0.get(&session) {
            Some((highest, count)) if *highest == suspicion => {
                if *count == 1 {
                    Blame::Alone
                } else {
                    Blame::Shared
                }
            }
            _ => Blame::Nobody,
        }
    }
}
