//! Reading a filter: tokens, then conditions. Every error says where, and what would be right.

use std::iter::Peekable;

use super::{Condition, Field, Operator, Value, fields::Form};
use crate::{
    ledger::Nanousd,
    time::{Timestamp, parse_age_ms},
};

/// Longest filter, in bytes: one that names a hundred ids.
pub const TEXT_MAX_BYTES: usize = 8 * 1024;
/// Most conditions.
const CONDITIONS_MAX: usize = 32;
/// Most values of one `in`.
const VALUES_MAX: usize = 200;

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at character {at}")]
pub struct FilterError {
    /// The character where it goes wrong, counted from 1.
    pub at: usize,
    /// What is wrong and what would be right.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A bare word: a field, an operator in letters, or a value.
    Word(String),
    /// A value in quotes.
    Quoted(String),
    /// `=`, `!=`, `~`, `<`, `<=`, `>`, `>=`.
    Sign(&'static str),
    Open,
    Close,
    Comma,
}

/// A token and the character where it begins.
type Placed = (usize, Token);

/// Whether a character may be part of a bare word.
fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_-.:/@*#+".contains(c)
}

/// A value as it can be read back.
pub(super) fn quoted(value: &str) -> String {
    let reserved = ["and", "or", "not", "in"].iter().any(|word| word.eq_ignore_ascii_case(value));
    if !value.is_empty() && !reserved && value.chars().all(is_bare) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn tokens(text: &str) -> Result<Vec<Placed>, FilterError> {
    let mut found = Vec::new();
    let mut rest = text.chars().zip(1..).peekable();
    while let Some((c, at)) = rest.next() {
        let mut or_equal = |with: &'static str, without: &'static str| match rest.next_if(|(c, _)| *c == '=') {
            Some(_) => Token::Sign(with),
            None => Token::Sign(without),
        };
        let token = match c {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '=' => or_equal("=", "="),
            '~' => Token::Sign("~"),
            '<' => or_equal("<=", "<"),
            '>' => or_equal(">=", ">"),
            '!' => match or_equal("!=", "!") {
                Token::Sign("!") => return Err(error(at, "`!` stands alone; `!=` and `not in` deny")),
                token => token,
            },
            '"' => Token::Quoted(quotation(at, &mut rest)?),
            c if is_bare(c) => {
                let mut word = String::from(c);
                while let Some((c, _)) = rest.next_if(|(c, _)| is_bare(*c)) {
                    word.push(c);
                }
                Token::Word(word)
            }
            other => return Err(error(at, format!("`{other}` must stand in double quotes"))),
        };
        found.push((at, token));
    }
    Ok(found)
}

fn quotation(at: usize, rest: &mut Peekable<impl Iterator<Item = (char, usize)>>) -> Result<String, FilterError> {
    let mut value = String::new();
    loop {
        match rest.next() {
            None => return Err(error(at, "the quotation has no end")),
            Some(('"', _)) => return Ok(value),
            Some(('\\', at)) => match rest.next() {
                Some((c @ ('"' | '\\'), _)) => value.push(c),
                _ => return Err(error(at, "after a backslash only `\"` or another backslash may follow")),
            },
            Some((c, _)) => value.push(c),
        }
    }
}

fn error(at: usize, reason: impl Into<String>) -> FilterError {
    FilterError { at, reason: reason.into() }
}

/// The conditions of a filter; at least one.
pub(super) fn read(text: &str, now: Timestamp) -> Result<Vec<Condition>, FilterError> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(error(1, format!("a filter has at most {TEXT_MAX_BYTES} bytes, not {}", text.len())));
    }
    let tokens = tokens(text)?;
    let end = text.chars().count() + 1;
    let mut reader = Reader { tokens: tokens.into_iter().peekable(), end, now };
    let mut conditions = Vec::new();
    loop {
        if conditions.len() >= CONDITIONS_MAX {
            return Err(error(reader.place(), format!("a filter has at most {CONDITIONS_MAX} conditions")));
        }
        conditions.push(reader.condition()?);
        match reader.tokens.next() {
            None => return Ok(conditions),
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("and") => {}
            Some((at, Token::Word(word))) if word.eq_ignore_ascii_case("or") => {
                return Err(error(at, "there is no `or`: several values of one field are `in (a, b)`"));
            }
            Some((at, _)) => return Err(error(at, "after a condition only `and` may follow")),
        }
    }
}

/// What a comparison is of: a field, or the time that has passed since one.
#[derive(Clone, Copy)]
enum Subject {
    Field(Field),
    Since(Field),
}

impl Subject {
    /// What it is called in a filter.
    fn word(self) -> &'static str {
        match self {
            Self::Since(Field::AcceptedAt) => "age",
            Self::Since(Field::FinishedAt) => "ended_age",
            Self::Since(Field::StartedAt) => "running_age",
            Self::Since(field) | Self::Field(field) => field.word(),
        }
    }
}

struct Reader<I: Iterator<Item = Placed>> {
    tokens: Peekable<I>,
    end: usize,
    now: Timestamp,
}

impl<I: Iterator<Item = Placed>> Reader<I> {
    /// Where the next token begins.
    fn place(&mut self) -> usize {
        self.tokens.peek().map_or(self.end, |(at, _)| *at)
    }

    fn condition(&mut self) -> Result<Condition, FilterError> {
        let subject = self.subject()?;
        let at = self.place();
        let (operator, several) = self.operator()?;
        let (Subject::Field(field) | Subject::Since(field)) = subject;
        check(at, subject, operator)?;
        let mut values = Vec::new();
        match several {
            false => values.push(self.value(subject)?),
            true => self.values(subject, &mut values)?,
        }
        // More than an hour ago is before the moment an hour ago.
        let operator = match (subject, operator) {
            (Subject::Since(_), Operator::Above) => Operator::Below,
            (Subject::Since(_), Operator::AtLeast) => Operator::AtMost,
            (Subject::Since(_), Operator::Below) => Operator::Above,
            (Subject::Since(_), Operator::AtMost) => Operator::AtLeast,
            (_, operator) => operator,
        };
        Ok(Condition { field, operator, values })
    }

    fn subject(&mut self) -> Result<Subject, FilterError> {
        let fields = || Field::ALL.map(Field::word).join(", ");
        match self.tokens.next() {
            Some((at, Token::Word(word))) => match word.as_str() {
                "age" => Ok(Subject::Since(Field::AcceptedAt)),
                "ended_age" => Ok(Subject::Since(Field::FinishedAt)),
                "running_age" => Ok(Subject::Since(Field::StartedAt)),
                word => Field::parse(word).map(Subject::Field).ok_or_else(|| {
                    error(at, format!("`{word}` is not a field; age, ended_age, running_age, {} are", fields()))
                }),
            },
            Some((at, _)) => {
                Err(error(at, format!("here a field must stand: age, ended_age, running_age, {}", fields())))
            }
            None => Err(error(
                self.end,
                format!("a condition is missing: a field is age, ended_age, running_age, {}", fields()),
            )),
        }
    }

    /// The operator, and whether a list of values follows.
    fn operator(&mut self) -> Result<(Operator, bool), FilterError> {
        const RIGHT: &str = "=, !=, ~, <, <=, >, >=, in (…) and not in (…) compare";
        let Some((at, token)) = self.tokens.next() else { return Err(error(self.end, RIGHT)) };
        match token {
            Token::Sign("=") => Ok((Operator::Is, false)),
            Token::Sign("!=") => Ok((Operator::IsNot, false)),
            Token::Sign("~") => Ok((Operator::Contains, false)),
            Token::Sign("<") => Ok((Operator::Below, false)),
            Token::Sign("<=") => Ok((Operator::AtMost, false)),
            Token::Sign(">") => Ok((Operator::Above, false)),
            Token::Sign(">=") => Ok((Operator::AtLeast, false)),
            Token::Word(word) if word.eq_ignore_ascii_case("in") => Ok((Operator::Is, true)),
            Token::Word(word) if word.eq_ignore_ascii_case("not") => match self.tokens.next() {
                Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("in") => Ok((Operator::IsNot, true)),
                _ => Err(error(at, "after `not` only `in` may follow")),
            },
            _ => Err(error(at, RIGHT)),
        }
    }

    fn values(&mut self, subject: Subject, values: &mut Vec<Value>) -> Result<(), FilterError> {
        match self.tokens.next() {
            Some((_, Token::Open)) => {}
            Some((at, _)) => return Err(error(at, "after `in` a list must follow: in (a, b)")),
            None => return Err(error(self.end, "after `in` a list must follow: in (a, b)")),
        }
        loop {
            if values.len() >= VALUES_MAX {
                return Err(error(self.place(), format!("a list has at most {VALUES_MAX} values")));
            }
            values.push(self.value(subject)?);
            match self.tokens.next() {
                Some((_, Token::Comma)) => {}
                Some((_, Token::Close)) => return Ok(()),
                Some((at, _)) => return Err(error(at, "after a value a comma or `)` must follow")),
                None => return Err(error(self.end, "the list has no end: `)` is missing")),
            }
        }
    }

    fn value(&mut self, subject: Subject) -> Result<Value, FilterError> {
        match self.tokens.next() {
            Some((at, Token::Word(text) | Token::Quoted(text))) => {
                value_of(subject, &text, self.now).map_err(|reason| error(at, reason))
            }
            Some((at, _)) => Err(error(at, "here a value must stand")),
            None => Err(error(self.end, "a value is missing")),
        }
    }
}

/// Whether the subject can be compared so.
fn check(at: usize, subject: Subject, operator: Operator) -> Result<(), FilterError> {
    use Operator as O;
    let (Subject::Field(field) | Subject::Since(field)) = subject;
    let is_order = matches!(operator, O::Below | O::AtMost | O::Above | O::AtLeast);
    let reason = match (subject, field.form()) {
        (Subject::Since(_), _) if !is_order => "an age is compared by <, <=, > or >=".to_owned(),
        (_, Form::Text) if is_order => format!("`{}` is a text: =, !=, ~ and in compare it", field.word()),
        (_, Form::Word) if is_order || operator == O::Contains => {
            format!("`{}` is one of some words: =, != and in compare it", field.word())
        }
        (_, Form::Count | Form::Usd | Form::Time) if operator == O::Contains => {
            format!("`{}` is no text: `~` does not compare it", field.word())
        }
        _ => return Ok(()),
    };
    Err(error(at, reason))
}

fn value_of(subject: Subject, text: &str, now: Timestamp) -> Result<Value, String> {
    let field = match subject {
        Subject::Since(_) => {
            let passed_ms = parse_age_ms(text).map_err(|reason| format!("`{}`: {reason}", subject.word()))?;
            return Ok(Value::Number(now.0.saturating_sub(passed_ms)));
        }
        Subject::Field(field) => field,
    };
    match field.form() {
        Form::Text if text.is_empty() => Err("an empty value means nothing".to_owned()),
        // As it is stored.
        Form::Text if field == Field::Id => Ok(Value::Text(text.to_lowercase())),
        Form::Text => Ok(Value::Text(text.to_owned())),
        Form::Word if field.words().contains(&text) => Ok(Value::Text(text.to_owned())),
        Form::Word => Err(format!("`{text}` is no {}; {} are", field.word(), field.words().join(", "))),
        Form::Count => text
            .parse::<u32>()
            .map(|count| Value::Number(count.into()))
            .map_err(|_| format!("`{}` is compared with a whole number, not `{text}`", field.word())),
        Form::Usd => text.parse::<Nanousd>().map(|cost| Value::Number(cost.0)),
        Form::Time => text.parse::<Timestamp>().map(|at| Value::Number(at.0)),
    }
}
