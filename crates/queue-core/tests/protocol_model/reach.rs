//! Whether every state can still end well. The checker looks at states where nothing more can happen; a protocol that
//! goes round in circles for ever has none, so this walks the whole graph backwards from the good ends.

use std::collections::HashMap;

use stateright::Model;

use crate::{model::Protocol, state::State};

/// Number of states, and one from which no end can be reached, if there is one.
pub(crate) fn without_end(model: &Protocol) -> (usize, Option<State>) {
    let mut states = model.init_states();
    let mut numbers: HashMap<State, usize> = states.iter().map(|&s| (s, 0)).collect();
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut at = 0;
    while at < states.len() {
        for next in model.next_states(&states[at]).into_iter().filter(|next| model.within_boundary(next)) {
            let number = *numbers.entry(next).or_insert_with(|| {
                states.push(next);
                before.push(Vec::new());
                states.len() - 1
            });
            before[number].push(at);
        }
        at += 1;
    }
    let mut can_end: Vec<bool> = states.iter().map(|s| model.has_ended(s)).collect();
    let mut open: Vec<usize> = (0..states.len()).filter(|&n| can_end[n]).collect();
    while let Some(n) = open.pop() {
        for &earlier in &before[n] {
            if !can_end[earlier] {
                can_end[earlier] = true;
                open.push(earlier);
            }
        }
    }
    let stuck = can_end.iter().position(|&can| !can);
    (states.len(), stuck.map(|n| states[n]))
}
