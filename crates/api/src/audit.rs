//! What stands in the audit log: one place around every keyed route, so that no handler can forget it.
//!
//! A row is written for each call that changes something (but for submits, which have job rows with the key's id), for each read
//! of a payload or result by an operator or across tenants, and for each call that was refused because of who made it. The row is
//! committed before the answer leaves. Handlers add only what nobody else knows: [`before`] tells how something stood,
//! [`reads_of`] whose job is shown.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use queue_core::{
    audit::AuditEntry,
    ids::{JobId, Name},
    journal::Role,
    telemetry,
};
use serde_json::{Map, Value, json};

use crate::{
    app::{App, Shared},
    auth::Caller,
    observe::Trail,
    problem::{Cause, Problem},
    tokens::Verified,
};

/// Largest body, of a request or an answer, that is looked at.
const BODY_MAX_BYTES: usize = 32 * 1024;
/// Largest detail of a row.
const DETAIL_MAX_BYTES: usize = 16 * 1024;
/// Longest text in a detail: reasons are shorter, documents are not.
const TEXT_MAX_CHARS: usize = 500;
/// Longest path and query that are kept.
const SUBJECT_MAX_BYTES: usize = 1_024;
/// Refusals of known callers that are written one by one in a minute of this process; those beyond it are counted by the next one
/// that is written.
const REFUSALS_A_MINUTE: u32 = 600;
/// Likewise for callers that nobody knows: whoever guesses keys must neither fill the journal nor hide what others were refused.
const STRANGERS_A_MINUTE: u32 = 30;
/// How long it is tried to write a row, and the pause between two tries.
const WRITE_MAX: Duration = Duration::from_secs(3);
const TRY_PAUSE: Duration = Duration::from_millis(200);
/// Members whose values are secrets or somebody's content, wherever they stand.
const CONCEALED: [&str; 16] = [
    "key",
    "secret",
    "token",
    "password",
    "authorization",
    "api_key",
    "access_token",
    "payload",
    "result",
    "messages",
    // What a provider or a service said, in a job's error.
    "message",
    "signature",
    "input",
    "headers",
    "body",
    "answer",
];

/// What is learned of a call while it is handled.
#[derive(Debug, Default)]
struct Notes {
    wants_request: bool,
    caller: Option<Caller>,
    request: Option<Value>,
    before: Option<Value>,
    /// The job whose payload or result is shown, and whose it is.
    shown: Option<(JobId, Name)>,
    /// A name that is not to be written, and what stands for it; the words of the call are left out, too.
    alias: Option<(Name, String)>,
}

tokio::task_local! {
    static NOTES: Arc<Mutex<Notes>>;
}

fn held(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(change: impl FnOnce(&mut Notes)) {
    // Outside of a keyed route nobody notes anything.
    let _ = NOTES.try_with(|notes| change(&mut held(notes)));
}

/// [`tokio::spawn`], in which notes are those of the call.
pub(crate) fn spawn<F>(work: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match NOTES.try_with(Arc::clone) {
        Ok(notes) => tokio::spawn(NOTES.scope(notes, work)),
        Err(_) => tokio::spawn(work),
    }
}

/// Who calls.
pub(crate) fn by(caller: &Caller) {
    note(|notes| notes.caller = Some(caller.clone()));
}

/// What the body of a call says, without what is secret or long.
pub(crate) fn asked(body: &[u8]) {
    note(|notes| {
        // Submits are not read a second time.
        if notes.wants_request
            && body.len() <= BODY_MAX_BYTES
            && let Ok(mut value) = serde_json::from_slice(body)
        {
            conceal(&mut value);
            notes.request = Some(value);
        }
    });
}

/// How something stood before the call changed it.
pub(crate) fn before(value: &impl serde::Serialize) {
    if let Ok(mut value) = serde_json::to_value(value) {
        conceal(&mut value);
        note(|notes| notes.before = Some(value));
    }
}

/// Whose job is shown with its payload or result.
pub(crate) fn reads_of(job: JobId, tenant: &Name) {
    note(|notes| notes.shown = Some((job, tenant.clone())));
}

/// The call is about a tenant that was erased, or by one: the row names it by its pseudonym, and says nothing of what it was asked or
/// answered.
pub(crate) fn under(tenant: &Name, pseudonym: &str) {
    note(|notes| notes.alias = Some((tenant.clone(), pseudonym.to_owned())));
}

/// The row says nothing of what was asked or answered.
pub(crate) fn unnamed() {
    under(&Name::from(""), "");
}

/// Refusals of this minute.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    known: Mutex<Minute>,
    strangers: Mutex<Minute>,
}

#[derive(Debug, Default)]
struct Minute {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Refusals {
    fn of(&self, is_known: bool) -> (MutexGuard<'_, Minute>, u32) {
        let (minute, most) =
            if is_known { (&self.known, REFUSALS_A_MINUTE) } else { (&self.strangers, STRANGERS_A_MINUTE) };
        (minute.lock().unwrap_or_else(PoisonError::into_inner), most)
    }

    /// How many before this one were left out, if this one is written.
    fn admit(&self, is_known: bool, now: Instant) -> Option<u64> {
        let (mut minute, most) = self.of(is_known);
        if minute.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(60)) {
            (minute.began, minute.written) = (Some(now), 0);
        }
        if minute.written >= most {
            minute.left_out += 1;
            return None;
        }
        minute.written += 1;
        Some(std::mem::take(&mut minute.left_out))
    }

    /// Some that were admitted were not written after all.
    fn leave_out(&self, is_known: bool, refusals: u64) {
        self.of(is_known).0.left_out += refusals;
    }
}

/// What a call is, before it is handled.
struct Call {
    method: Method,
    route: String,
    path: String,
    query: Option<String>,
    address: Option<String>,
    claimed: Option<String>,
    request_id: String,
    submits: bool,
}

impl Call {
    fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        let route = extensions.get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
        let route = route.unwrap_or_default();
        let method = request.method().clone();
        let peer = extensions.get::<Peer>().map(|peer| truncated(peer.0.ip()));
        Self {
            path: cut(request.uri().path(), SUBJECT_MAX_BYTES),
            query: request.uri().query().map(|query| cut(query, SUBJECT_MAX_BYTES)),
            address: peer,
            claimed: claimed_key(request.headers()),
            request_id: extensions.get::<Trail>().map(|trail| trail.request_id.clone()).unwrap_or_default(),
            submits: method == Method::POST && ["/v1/jobs", "/v1/jobs/bulk"].contains(&route.as_str()),
            method,
            route,
        }
    }

    fn changes(&self) -> bool {
        !self.submits && ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&self.method)
    }
}

/// From where a connection came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The network of an address: who calls is told by the key, and an address is somebody's.
pub(crate) fn truncated(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{}/24", Ipv4Addr::from(address.to_bits() & 0xffff_ff00)),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => truncated(address.into()),
            None => format!("{}/48", Ipv6Addr::from(address.to_bits() & !0 << 80)),
        },
    }
}

/// The public part of the key that a request claims to have: never more of it, and nothing that is none.
fn claimed_key(headers: &axum::http::HeaderMap) -> Option<String> {
    let text = headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()?;
    let id = text.split_once(' ')?.1.trim().strip_prefix("lsk_")?.split_once('_')?.0;
    (id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| id.to_owned())
}

/// Handles a call and writes its row.
pub(crate) async fn watch<F>(
    app: Shared,
    request: Request,
    handle: impl FnOnce(Shared, Request) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    let call = Call::of(&request);
    let (changes, tracked) = (call.changes(), app.changes.clone());
    let handled = async move {
        let notes = Arc::new(Mutex::new(Notes { wants_request: changes, ..Notes::default() }));
        let answered = NOTES.scope(notes.clone(), handle(app.clone(), request));
        // What a handler did before it panicked has its row, too. Nothing of what it held is used again.
        let response = AssertUnwindSafe(answered).catch_unwind().await.unwrap_or_else(|_| {
            Problem::new(Cause::Internal, "the handler of this request has failed; the log says where").into_response()
        });
        let notes = std::mem::take(&mut *held(&notes));
        record(&app, call, notes, response).await
    };
    if !changes {
        return handled.await;
    }
    // In a task of its own, which the end of the process waits for: a caller that hangs up must not leave a change without its row.
    match tracked.spawn(handled).await {
        Ok(response) => response,
        Err(error) => Problem::new(Cause::Internal, error.to_string()).into_response(),
    }
}

/// Whether the call has a row.
fn is_recorded(call: &Call, notes: &Notes, response: &Response) -> bool {
    let (status, problem) = (response.status(), response.extensions().get::<Problem>());
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
        return true;
    }
    if call.changes() && notes.caller.is_some() {
        // What could not be read, or came too often, has changed nothing.
        return !problem.is_some_and(Problem::is_of_reading);
    }
    let Notes { caller: Some(caller), shown: Some((_, tenant)), .. } = notes else { return false };
    let over_tenants = caller.role == Role::Operator || *tenant != caller.tenant;
    over_tenants && status.is_success()
}

async fn record(app: &App, call: Call, notes: Notes, response: Response) -> Response {
    let status = response.status();
    if !is_recorded(&call, &notes, &response) {
        return response;
    }
    let is_refusal = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
    let (is_known, shows) = (notes.caller.is_some(), !call.changes() && !is_refusal);
    let left_out = if is_refusal { app.refusals.admit(is_known, Instant::now()) } else { Some(0) };
    let Some(left_out) = left_out else { return response };
    let alias = notes.alias.clone();
    let notes = if alias.is_some() { Notes { request: None, before: None, ..notes } } else { notes };
    let (response, answer) =
        if call.changes() && alias.is_none() { looked_at(response).await } else { (response, None) };
    let detail = detail(&notes, response.extensions().get::<Problem>(), answer, left_out);
    let caller = notes.caller.as_ref();
    let entry = AuditEntry {
        at: app.now(),
        actor: caller.map(|caller| caller.key_id.to_string()).or(call.claimed),
        role: caller.map(|caller| caller.role.to_string()),
        tenant: caller.map(|caller| known_as(&alias, caller.tenant.as_str())),
        address: call.address,
        action: format!("{} {}", call.method, call.route),
        // Who is not known may have put anything into the query.
        subject: match call.query.filter(|_| caller.is_some()) {
            _ if alias.is_some() => {
                call.path.split('/').map(|part| known_as(&alias, part)).collect::<Vec<_>>().join("/")
            }
            Some(query) => format!("{}?{query}", call.path),
            None => call.path,
        },
        status: status.as_u16(),
        detail,
        request_id: call.request_id,
    };
    match write(app, entry).await {
        Written::Yes => response,
        Written::No if is_refusal => {
            app.refusals.leave_out(is_known, left_out + 1);
            response
        }
        // Nothing was done yet: what nobody would know of is not shown.
        Written::No if shows => {
            let detail = "that it was shown cannot be written into the audit log now";
            Problem::new(Cause::Unavailable, detail).retry_after(1).into_response()
        }
        Written::No => response,
    }
}

/// A name, or what stands for it.
fn known_as(alias: &Option<(Name, String)>, name: &str) -> String {
    match alias {
        Some((hidden, pseudonym)) if hidden.as_str() == name => pseudonym.clone(),
        _ => name.to_owned(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    No,
}

/// Writes a row. What was changed is changed: a journal that is away for longer than the tries leaves a line in the log, and counts.
async fn write(app: &App, entry: AuditEntry) -> Written {
    let written = async {
        while let Err(error) = app.api.stores.audit.append_audit(entry.clone()).await {
            tracing::warn!(%error, action = entry.action, "a row of the audit log is not written yet");
            tokio::time::sleep(TRY_PAUSE).await;
        }
    };
    if tokio::time::timeout(WRITE_MAX, written).await.is_ok() {
        return Written::Yes;
    }
    let AuditEntry { action, subject, actor, status, request_id, .. } = &entry;
    tracing::error!(action, subject, actor, status, request_id, "a row of the audit log is lost");
    metrics::counter!(telemetry::AUDIT_LOST).increment(1);
    Written::No
}

/// The answer's body, where it is a small one, and the answer with it.
async fn looked_at(response: Response) -> (Response, Option<Value>) {
    let is_small = response.body().size_hint().exact().is_some_and(|bytes| bytes > 0 && bytes <= BODY_MAX_BYTES as u64);
    if !is_small {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    match axum::body::to_bytes(body, BODY_MAX_BYTES).await {
        Ok(bytes) => {
            let value = serde_json::from_slice(&bytes).ok().map(|mut value| {
                conceal(&mut value);
                value
            });
            (Response::from_parts(parts, Body::from(bytes)), value)
        }
        // It has an exact size and is in memory: reading it does not fail.
        Err(_) => (Response::from_parts(parts, Body::empty()), None),
    }
}

fn detail(notes: &Notes, problem: Option<&Problem>, answer: Option<Value>, left_out: u64) -> String {
    let mut detail = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            detail.insert(name.to_owned(), value);
        }
    };
    put("reason", problem.map(|problem| json!(cut(problem.detail(), TEXT_MAX_CHARS))));
    put("via", notes.caller.as_ref().and_then(|caller| caller.token.as_deref()).map(via));
    put("job", notes.shown.as_ref().map(|(id, tenant)| json!({"id": id, "tenant": tenant})));
    put("left_out", (left_out > 0).then(|| json!(left_out)));
    put("before", notes.before.clone());
    put("request", notes.request.clone());
    put("answer", answer.filter(|_| problem.is_none()));
    for dropped in ["answer", "before", "request"] {
        let text = Value::Object(detail.clone()).to_string();
        if text.len() <= DETAIL_MAX_BYTES {
            return text;
        }
        detail.insert(dropped.to_owned(), json!("too long"));
    }
    Value::Object(detail).to_string()
}

/// The token that a caller came with: by its id it can be taken back.
fn via(token: &Verified) -> Value {
    json!({"jti": token.jti, "issuer": token.issuer, "subject": cut(&token.subject, TEXT_MAX_CHARS)})
}

/// Takes out what is secret or somebody's content, and cuts what is long.
fn conceal(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::Null | Value::Bool(_) | Value::Number(_) => {}
                    _ if CONCEALED.contains(&name.to_ascii_lowercase().as_str()) => *member = json!("…"),
                    // Receivers' tokens stand in the path, too.
                    Value::String(url) if name == "url" => {
                        let host_end = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
                        let host_end = url.find('?').map_or(host_end, |at| at.min(host_end));
                        if host_end < url.len() {
                            *url = format!("{}/…", &url[..host_end]);
                        }
                    }
                    _ => conceal(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(conceal),
        Value::String(text) if text.chars().count() > TEXT_MAX_CHARS => *text = cut(text, TEXT_MAX_CHARS),
        _ => {}
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.len() <= most { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(most)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network() {
        for (address, network) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ] {
            assert_eq!(truncated(address.parse().unwrap()), network);
        }
    }

    #[test]
    fn what_is_secret_is_taken_out_wherever_it_stands() {
        let mut value = json!({"key": "sk-canary", "deep": [{"Secret": "canary", "keep": "yes"}], "payload": {"a": 1},
                               "enabled": true, "url": "https://a.example/canary/b?token=canary", "hooks": [{"url": "https://b.example?canary"}],
                               "long": "x".repeat(1_000)});
        conceal(&mut value);
        let text = value.to_string();
        assert!(!text.contains("canary") && !text.contains("\"a\"") && text.contains("yes"), "{text}");
        assert!(text.len() < 700, "{}", text.len());
    }

    #[test]
    fn whoever_guesses_keys_does_not_fill_the_journal() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for (is_known, most) in [(false, STRANGERS_A_MINUTE), (true, REFUSALS_A_MINUTE)] {
            let written = (0..most + 50).filter(|_| refusals.admit(is_known, now).is_some()).count();
            assert_eq!(written, most as usize, "strangers hide nobody else");
            assert_eq!(refusals.admit(is_known, now + Duration::from_secs(61)), Some(50));
            refusals.leave_out(is_known, 51);
            assert_eq!(refusals.admit(is_known, now + Duration::from_secs(62)), Some(51));
        }
    }

    #[test]
    fn only_the_public_part_of_a_claimed_key_is_kept() {
        let claimed = |text: &'static str| {
            let headers = [(axum::http::header::AUTHORIZATION, axum::http::HeaderValue::from_static(text))];
            claimed_key(&headers.into_iter().collect())
        };
        assert_eq!(claimed("Bearer lsk_abcd1234_secretsecret").as_deref(), Some("abcd1234"));
        for text in ["Bearer sk-proj-canary", "Bearer lsk_canarycanary", "Basic lsk_", "Bearer lsk_a/b'c-d8_x"] {
            assert_eq!(claimed(text), None, "{text}");
        }
    }
}
