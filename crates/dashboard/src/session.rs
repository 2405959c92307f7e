//! The session is a cookie that holds the viewer's bearer, and nothing else. Who holds it is the viewer; no process remembers it.
//!
//! What is derived from it: the mark that forms carry against forgery, and the mark under a message that survives one redirect.
//! Whoever does not know the cookie can make neither, so no secret of the server is needed.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The cookies of the session: a long bearer goes on in the second.
const SESSION: [&str; 2] = ["longshore_session", "longshore_session_2"];
/// The cookie of the theme that somebody chose.
const THEME: &str = "longshore_theme";
/// The cookie of a message for the next page.
const FLASH: &str = "longshore_flash";
/// Most of a bearer in one cookie, in bytes: browsers drop cookies beyond 4,096, names and attributes counted.
const PIECE_MAX_BYTES: usize = 3_500;
/// Largest bearer that is kept, in bytes: proxies drop requests with more than 8 KiB of cookies, and there are others.
pub(crate) const BEARER_MAX_BYTES: usize = SESSION.len() * PIECE_MAX_BYTES;
/// Longest life of a message that no page has shown, in seconds.
const FLASH_MAX_S: u32 = 30;
/// How long a theme is remembered, in seconds: as long as browsers keep any cookie.
const THEME_MAX_S: u32 = 400 * 24 * 60 * 60;
/// Longest way back after a login, in bytes.
const WAY_BACK_MAX_BYTES: usize = 2_000;
/// Contexts of derived keys: each names its one use.
const CSRF_CONTEXT: &str = "longshore dashboard 2026-11 mark of forms";
const FLASH_CONTEXT: &str = "longshore dashboard 2026-11 mark of messages";

/// The bearer is longer than a browser keeps.
#[derive(Debug)]
pub(crate) struct TooLong;

/// The bearer of the request's session.
pub(crate) fn bearer_of(headers: &HeaderMap) -> Option<String> {
    let bearer: String = SESSION.iter().filter_map(|name| cookie(headers, name)).collect();
    (!bearer.is_empty()).then_some(bearer)
}

/// The cookies that begin a session: until its end where one is known, else until the browser is closed. `secure` where the viewer
/// came by https: then the browser sends it in no other way.
pub(crate) fn begin(bearer: &str, life_s: Option<i64>, secure: bool) -> Result<Vec<HeaderValue>, TooLong> {
    let is_plain = bearer.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte));
    if bearer.len() > BEARER_MAX_BYTES || !is_plain {
        return Err(TooLong);
    }
    let life = life_s.map(|life_s| format!("; Max-Age={}", life_s.max(1))).unwrap_or_default();
    let secure = if secure { "; Secure" } else { "" };
    let (first, rest) = bearer.split_at(bearer.len().min(PIECE_MAX_BYTES));
    let kept = |name: &str, piece: &str| {
        // What is left of a longer session would spoil this one.
        if piece.is_empty() {
            return Ok(gone(name));
        }
        let text = format!("{name}={piece}; Path=/dashboard; HttpOnly; SameSite=Strict{life}{secure}");
        HeaderValue::from_str(&text).map_err(|_| TooLong)
    };
    SESSION.iter().zip([first, rest]).map(|(name, piece)| kept(name, piece)).collect()
}

/// The cookies that end it.
pub(crate) fn end() -> Vec<HeaderValue> {
    SESSION.map(gone).into()
}

/// The cookie that a theme is remembered by; `None` for that of the system.
pub(crate) fn remember_theme(theme: Option<&'static str>) -> Option<HeaderValue> {
    let Some(theme) = theme else { return Some(gone(THEME)) };
    let text = format!("{THEME}={theme}; Path=/dashboard; SameSite=Strict; Max-Age={THEME_MAX_S}");
    HeaderValue::from_str(&text).ok()
}

/// The theme that somebody chose.
pub(crate) fn theme_of(headers: &HeaderMap) -> Option<&'static str> {
    match cookie(headers, THEME)? {
        "light" => Some("light"),
        "dark" => Some("dark"),
        _ => None,
    }
}

/// What every form of this session carries.
pub(crate) fn csrf(bearer: &str) -> String {
    URL_SAFE_NO_PAD.encode(blake3::derive_key(CSRF_CONTEXT, bearer.as_bytes()))
}

/// The cookie of a message: under the session's mark, so that nobody else can put words on the viewer's page.
pub(crate) fn note(bearer: &str, message: &str) -> Option<HeaderValue> {
    let text = URL_SAFE_NO_PAD.encode(message);
    let mark = mark_of(bearer, message);
    let cookie = format!("{FLASH}={text}.{mark}; Path=/dashboard; HttpOnly; SameSite=Strict; Max-Age={FLASH_MAX_S}");
    HeaderValue::from_str(&cookie).ok()
}

/// The message of the request, if it is of this session.
pub(crate) fn noted(headers: &HeaderMap, bearer: &str) -> Option<String> {
    let (text, mark) = cookie(headers, FLASH)?.split_once('.')?;
    let message = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    is_same(mark, &mark_of(bearer, &message)).then_some(message)
}

/// The cookie that takes the message away, if the request has one.
pub(crate) fn forget_note(headers: &HeaderMap) -> Option<HeaderValue> {
    cookie(headers, FLASH).map(|_| gone(FLASH))
}

fn mark_of(bearer: &str, message: &str) -> String {
    let key = blake3::derive_key(FLASH_CONTEXT, bearer.as_bytes());
    URL_SAFE_NO_PAD.encode(blake3::keyed_hash(&key, message.as_bytes()).as_bytes())
}

/// Whether two marks are the same, in a time that tells nothing.
pub(crate) fn is_same(given: &str, right: &str) -> bool {
    // Hashes of equal lengths: blake3 compares them in constant time.
    blake3::hash(given.as_bytes()) == blake3::hash(right.as_bytes())
}

/// Where to go after a login: `next` if it is a page of ours, else the first page.
pub(crate) fn way_back(next: Option<&str>) -> String {
    let is_ours = |next: &&str| {
        let path = next.split(['?', '#']).next().unwrap_or_default();
        next.len() <= WAY_BACK_MAX_BYTES
            && (path == "/dashboard" || path.starts_with("/dashboard/"))
            && !path.contains("//")
            && !next.contains('\\')
            && next.bytes().all(|byte| byte.is_ascii_graphic())
    };
    next.filter(is_ours).unwrap_or("/dashboard").to_owned()
}

fn gone(name: &str) -> HeaderValue {
    let text = format!("{name}=; Path=/dashboard; HttpOnly; SameSite=Strict; Max-Age=0");
    // Our own names are fit for a header.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A cookie of the request: the first of its name, which is the one of the longest path.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cookies: &[HeaderValue]) -> HeaderMap {
        let pairs: Vec<_> = cookies.iter().filter_map(|line| line.to_str().ok()?.split(';').next()).collect();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&pairs.join("; ")).unwrap())])
    }

    #[test]
    fn a_session_is_what_the_browser_sends_back() {
        let cookies = begin("aa.bb-cc_dd.ee", Some(60), true).unwrap();
        let text = cookies[0].to_str().unwrap();
        for part in ["Path=/dashboard", "HttpOnly", "SameSite=Strict", "Max-Age=60", "Secure"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(bearer_of(&sent(&cookies)).as_deref(), Some("aa.bb-cc_dd.ee"));
        assert_eq!(bearer_of(&sent(&end())), None);
        assert_eq!(end().len(), cookies.len(), "nothing is left of a longer session");
        assert!(begin("a; Path=/", None, false).is_err());
        assert!(begin(&"a".repeat(BEARER_MAX_BYTES + 1), None, false).is_err());
    }

    #[test]
    fn a_long_bearer_lies_in_two_cookies_that_a_browser_keeps() {
        let bearer: String = ('a'..='z').cycle().take(BEARER_MAX_BYTES).collect();
        let cookies = begin(&bearer, Some(60), true).unwrap();
        assert!(cookies.iter().all(|cookie| cookie.len() < 4_096 && cookie.to_str().unwrap().contains("; Secure")));
        assert_eq!(bearer_of(&sent(&cookies)), Some(bearer));
    }

    #[test]
    fn marks_are_of_their_session_alone() {
        assert_ne!(csrf("one"), csrf("other"));
        assert!(is_same(&csrf("one"), &csrf("one")) && !is_same("", &csrf("one")));
        let note = note("one", "Paused: <b>\u{1f600}").unwrap();
        let headers = sent(&[note]);
        assert_eq!(noted(&headers, "one").as_deref(), Some("Paused: <b>\u{1f600}"));
        assert_eq!(noted(&headers, "other"), None);
        let forged = HeaderValue::from_static("longshore_flash=SGVsbG8.AAAA");
        assert_eq!(noted(&sent(&[forged]), "one"), None);
    }

    #[test]
    fn the_way_back_stays_here() {
        for ours in ["/dashboard", "/dashboard/jobs?state=dead&q=%22a%22", "/dashboard?x=//evil.example"] {
            assert_eq!(way_back(Some(ours)), ours);
        }
        for not in [
            "//evil.example",
            "/dashboards",
            "https://evil.example/dashboard",
            "/dashboard//x",
            "/dashboard/\\x",
            "/",
            "",
        ] {
            assert_eq!(way_back(Some(not)), "/dashboard", "{not}");
        }
        assert_eq!(way_back(Some("/dashboard/a\r\nSet-Cookie: x")), "/dashboard");
        assert_eq!(way_back(None), "/dashboard");
    }

    #[test]
    fn only_our_themes_are_known() {
        let headers = |text| HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]);
        assert_eq!(theme_of(&headers("a=b; longshore_theme=dark")), Some("dark"));
        assert_eq!(theme_of(&headers("longshore_theme=\"><script>")), None);
    }
}
