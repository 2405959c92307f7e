//! Bounds on the head of a request: its address, and how many headers of which size.

use axum::extract::Request;

use crate::problem::{Cause, Problem};

/// Longest address, in bytes: a text of 8 KiB that is searched for, each byte written as three, and a cursor.
const TARGET_MAX_BYTES: usize = 32 * 1024;
/// Most headers. Proxies add a dozen or so to what a browser sends.
const HEADERS_MAX: usize = 64;
/// Longest headers, names and values together, in bytes: a token is one of 8 KiB at the most.
const HEADERS_MAX_BYTES: usize = 32 * 1024;
/// Longest head that is read at all, in bytes. What is between this and the bounds above gets an answer that says what is
/// wrong.
pub(crate) const READ_MAX_BYTES: u32 = 96 * 1024;

/// What is wrong with the size of a head.
pub(crate) fn oversized(request: &Request) -> Option<Problem> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_MAX_BYTES {
        let reason = format!("is {target} bytes long; the limit is {TARGET_MAX_BYTES}");
        return Some(Problem::new(Cause::AddressTooLong, "the address is too long").at("/path", reason));
    }
    let headers = request.headers();
    if headers.len() > HEADERS_MAX {
        let detail = format!("{} headers are more than the limit of {HEADERS_MAX}", headers.len());
        return Some(Problem::new(Cause::HeadersTooLarge, detail));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADERS_MAX_BYTES {
        let detail = format!("the headers are {bytes} bytes long; the limit is {HEADERS_MAX_BYTES}");
        return Some(Problem::new(Cause::HeadersTooLarge, detail));
    }
    None
}
