//! One grammar for "which jobs", in the API, the CLI and the dashboard:
//!
//! ```text
//! queue = llm and state = dead and error.class in (server, "transport_mid") and age > 1h and cost >= 0.05
//! ```
//!
//! Conditions are joined by `and`. A field is compared by `=`, `!=`, `in (…)`, `not in (…)`, and texts by `~` (contains,
//! whatever the case); numbers, money and times by `<`, `<=`, `>` and `>=`. Values with anything but letters, digits and
//! `_ - . : / @ * #` stand in double quotes, with `\"` and `\\`.
//!
//! `age` is the time since a job was accepted, `ended_age` the time since it ended, `running_age` the time since the attempt that
//! runs has begun. They are read once, as moments: a filter
//! that is kept means tomorrow what it meant today. A field that a job does not have equals nothing and lies on no side of
//! anything, so only `!=` and `not in` hold.

mod fields;
mod parse;
mod search;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::{
    fields::Field,
    parse::{FilterError, TEXT_MAX_BYTES},
    search::Found,
};
use self::{fields::Form, parse::quoted};
use crate::{
    dispatcher::Place,
    ids::{JobId, Name},
    job::{Job, Kind},
    journal::JobFilter,
    state::State,
    time::Timestamp,
};

/// Which jobs: all that meet each condition. Never without a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    conditions: Vec<Condition>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is compared.
    pub field: Field,
    /// How.
    pub operator: Operator,
    /// With what: several values for `in` and `not in`, else one.
    pub values: Vec<Value>,
}

/// How a field and a value are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`, or `in` with several values.
    Is,
    /// `!=`, or `not in` with several values.
    IsNot,
    /// `~`.
    Contains,
    /// `<`.
    Below,
    /// `<=`.
    AtMost,
    /// `>`.
    Above,
    /// `>=`.
    AtLeast,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text, or the word of a state, kind or class.
    Text(String),
    /// A count, nano-USD, or milliseconds since 1970, as the field has it.
    Number(i64),
}

impl Filter {
    /// Reads a filter; `age` and `ended_age` are counted back from `now`.
    ///
    /// # Errors
    /// Says what is wrong, where, and what would be right. A filter without a condition is wrong, too.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, FilterError> {
        parse::read(text, now).map(|conditions| Self { conditions })
    }

    /// The conditions, all of which must hold.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The filter with one more condition: a caller's own bounds, which nothing that is asked for widens.
    #[must_use]
    pub fn and(mut self, field: Field, value: &str) -> Self {
        let values = vec![Value::Text(value.to_owned())];
        self.conditions.push(Condition { field, operator: Operator::Is, values });
        self
    }

    /// Whether a job in this state is meant, which is here in the dispatcher.
    pub fn matches(&self, job: &Job, state: State, place: &Place) -> bool {
        self.conditions.iter().all(|condition| condition.holds(job, state, place))
    }

    /// The only value that a field may have, where the filter says so.
    pub fn only(&self, field: Field) -> Option<&str> {
        self.conditions.iter().find_map(|condition| match (condition.operator, condition.values.as_slice()) {
            (Operator::Is, [Value::Text(only)]) if condition.field == field => Some(only.as_str()),
            _ => None,
        })
    }

    /// The only jobs that it can mean, newest first, where it names them by their ids.
    pub fn ids(&self) -> Option<Vec<JobId>> {
        let named = |condition: &&Condition| condition.field == Field::Id && condition.operator == Operator::Is;
        let values = &self.conditions.iter().find(named)?.values;
        let id = |value: &Value| match value {
            Value::Text(text) => text.parse().ok(),
            Value::Number(_) => None,
        };
        let mut ids: Vec<JobId> = values.iter().filter_map(id).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        Some(ids)
    }

    /// States that a job may be in: those that no condition excludes.
    pub fn states(&self) -> Vec<State> {
        let of_state = |condition: &&Condition| condition.field == Field::State;
        let may = |state: &State| {
            let mut conditions = self.conditions.iter().filter(of_state);
            conditions.all(|condition| condition.meets_texts(&[state.as_str().to_owned()]))
        };
        State::ALL.into_iter().filter(may).collect()
    }

    /// What the journal can narrow its lists by: every job that [`matches`](Self::matches) is among what it finds, and some
    /// that do not.
    pub fn narrowed(&self) -> JobFilter {
        let only = |field| self.only(field).map(str::to_owned);
        let standings: Vec<_> = self.states().into_iter().map(State::standing).collect();
        let standing = standings.first().copied().filter(|first| standings.iter().all(|other| other == first));
        let accepted = |wanted: &[Operator]| {
            self.conditions.iter().find_map(|condition| match condition.values.as_slice() {
                [Value::Number(at)] if condition.field == Field::AcceptedAt && wanted.contains(&condition.operator) => {
                    Some((condition.operator, Timestamp(*at)))
                }
                _ => None,
            })
        };
        let since = accepted(&[Operator::Above, Operator::AtLeast]).map(|(_, at)| at);
        let until = accepted(&[Operator::Below, Operator::AtMost]).map(|(operator, at)| match operator {
            Operator::AtMost => at.plus_ms(1),
            _ => at,
        });
        JobFilter {
            queue: self.only(Field::Queue).map(Name::from),
            kind: self.only(Field::Kind).and_then(Kind::parse),
            standing,
            tenant: self.only(Field::Tenant).map(Name::from),
            error_class: only(Field::ErrorClass),
            signature: only(Field::ErrorSignature),
            batch_id: only(Field::BatchId),
            operation: only(Field::Operation),
            since,
            until,
            ..JobFilter::default()
        }
    }
}

impl Condition {
    fn holds(&self, job: &Job, state: State, place: &Place) -> bool {
        match self.field.form() {
            Form::Text | Form::Word => self.meets_texts(&self.field.texts(job, state)),
            Form::Count | Form::Usd | Form::Time => self.meets_number(self.field.number(job, place)),
        }
    }

    fn meets_texts(&self, found: &[String]) -> bool {
        let is = |value: &Value| matches!(value, Value::Text(text) if found.contains(text));
        let contains = |value: &Value| {
            let Value::Text(text) = value else { return false };
            let text = text.to_lowercase();
            found.iter().any(|found| found.to_lowercase().contains(&text))
        };
        match self.operator {
            Operator::Is => self.values.iter().any(is),
            Operator::IsNot => !self.values.iter().any(is),
            Operator::Contains => self.values.iter().any(contains),
            // The parser lets nothing else through for texts.
            Operator::Below | Operator::AtMost | Operator::Above | Operator::AtLeast => false,
        }
    }

    fn meets_number(&self, found: Option<i64>) -> bool {
        let Some(found) = found else { return self.operator == Operator::IsNot };
        let any = |meets: fn(&i64, &i64) -> bool| {
            self.values.iter().any(|value| matches!(value, Value::Number(number) if meets(&found, number)))
        };
        match self.operator {
            Operator::Is => any(i64::eq),
            Operator::IsNot => !any(i64::eq),
            Operator::Below => any(i64::lt),
            Operator::AtMost => any(i64::le),
            Operator::Above => any(i64::gt),
            Operator::AtLeast => any(i64::ge),
            Operator::Contains => false,
        }
    }
}

/// As it would be written, with moments where it said `age`. What this prints means the same at any time.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.conditions.iter().enumerate() {
            if at > 0 {
                f.write_str(" and ")?;
            }
            condition.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(|value| self.field.shown(value)).collect();
        let several = values.len() > 1;
        let operator = match self.operator {
            Operator::Is if several => "in",
            Operator::IsNot if several => "not in",
            Operator::Is => "=",
            Operator::IsNot => "!=",
            Operator::Contains => "~",
            Operator::Below => "<",
            Operator::AtMost => "<=",
            Operator::Above => ">",
            Operator::AtLeast => ">=",
        };
        let values = values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
        match several {
            true => write!(f, "{} {operator} ({values})", self.field.word()),
            false => write!(f, "{} {operator} {values}", self.field.word()),
        }
    }
}
