//! How a command ends: an exit code that scripts can rely on, and a message that says what to do.

use std::{fmt, process::ExitCode};

use serde_json::{Value, json};

/// What a finished command tells the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok = 0,
    /// It could not be done: server away, job failed, I/O.
    Error = 1,
    /// It was asked for in a way that cannot be done: flags, configuration, a request with bad fields.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Some of it was done.
    Partial = 4,
    /// The server understood and refuses: a key without the right, or a state that does not allow it.
    Refused = 5,
    /// A process that served has ended by itself and wants to be started again (`EX_TEMPFAIL` of sysexits.h).
    Recycle = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The shell's part.
    pub(crate) exit: Exit,
    /// The reader's part: one sentence, then one line for each detail.
    pub(crate) message: String,
    /// The server's problem document, where it sent one.
    pub(crate) problem: Option<Value>,
}

/// What a command comes to.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with [`Exit::Error`].
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, message: message.into(), problem: None }
    }

    /// A failure with [`Exit::Usage`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), problem: None }
    }

    /// A failure with [`Exit::Recycle`].
    pub(crate) fn recycle(message: impl Into<String>) -> Self {
        Self { exit: Exit::Recycle, message: message.into(), problem: None }
    }

    /// A failure with [`Exit::NotFound`].
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { exit: Exit::NotFound, message: message.into(), problem: None }
    }

    /// The server's refusal: its title, detail and field errors, and the exit code that its status stands for.
    pub(crate) fn from_problem(status: u16, body: Value) -> Self {
        let exit = match status {
            400 | 406 | 413 | 415 | 422 => Exit::Usage,
            404 | 410 => Exit::NotFound,
            401 | 403 | 409 | 412 | 428 => Exit::Refused,
            _ => Exit::Error,
        };
        Self { exit, message: describe(status, &body), problem: body.is_object().then_some(body) }
    }

    /// The failure as one JSON object, for `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({"exit": self.exit as u8, "message": self.message});
        if let Some(problem) = &self.problem {
            error["problem"] = problem.clone();
        }
        json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::error(error.to_string())
    }
}

fn describe(status: u16, body: &Value) -> String {
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut message = match (text("title"), text("detail")) {
        (Some(title), Some(detail)) if detail != title => format!("{title}: {detail}"),
        (Some(title), _) => title.to_owned(),
        (None, Some(detail)) => detail.to_owned(),
        (None, None) => "the server answered without a reason".to_owned(),
    };
    message.push_str(&format!(" (HTTP {status})"));
    for error in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        message.push_str(&format!("\n  {}: {}", part("pointer"), part("reason")));
    }
    if status == 401 {
        message.push_str("\n  set LONGSHORE_KEY, or run this where `longshore-data` is (or name it with --data)");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_title_fields_and_exit_code() {
        let body = json!({"title": "Bad request", "detail": "2 fields are wrong", "errors": [
            {"pointer": "/payload/model", "reason": "nobody serves it"}]});
        let failure = Failure::from_problem(422, body);
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "Bad request: 2 fields are wrong (HTTP 422)\n  /payload/model: nobody serves it");
    }

    #[test]
    fn every_status_has_its_exit_code() {
        for (status, exit) in [
            (400, Exit::Usage),
            (401, Exit::Refused),
            (403, Exit::Refused),
            (404, Exit::NotFound),
            (409, Exit::Refused),
            (422, Exit::Usage),
            (429, Exit::Error),
            (503, Exit::Error),
        ] {
            assert_eq!(Failure::from_problem(status, Value::Null).exit, exit, "status {status}");
        }
    }
}
