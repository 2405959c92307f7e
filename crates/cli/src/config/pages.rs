//! Whether the dashboard is shown, and whom people sign in to it with.

use std::sync::Arc;

use dashboard::{
    Settings,
    oidc::{Line, Oidc, OidcSettings, checked_url},
};

use super::{KeySetPlace, file, read_secret};
use crate::environment::Environment;

/// What is asked for unless something else is: whoever is known, and nothing of them but that.
const SCOPES_DEFAULT: &str = "openid";
/// Longest label of a button, in letters.
const NAME_MAX_CHARS: usize = 60;

/// How the dashboard is shown; `None`: not at all.
pub(super) fn settings(
    env: &Environment,
    file: file::DashboardTable,
    issuers: &[(api::IssuerRules, KeySetPlace)],
) -> Result<Option<Settings>, String> {
    let is_shown = match env.get("LONGSHORE_DASHBOARD") {
        Some(word) => word.parse().map_err(|_| format!("LONGSHORE_DASHBOARD is `{word}`; it is true or false"))?,
        None => file.enabled.unwrap_or(true),
    };
    let oidc = oidc(env, file.oidc, issuers)?.map(Oidc::new).transpose();
    let oidc = oidc.map_err(|reason| format!("dashboard.oidc: {reason}"))?.map(Arc::new);
    Ok(is_shown.then_some(Settings { oidc }))
}

/// The identity provider that people sign in with: one of the issuers whose tokens are believed.
fn oidc(
    env: &Environment,
    table: Option<file::OidcTable>,
    issuers: &[(api::IssuerRules, KeySetPlace)],
) -> Result<Option<OidcSettings>, String> {
    let secret = env.secret("LONGSHORE_OIDC_CLIENT_SECRET")?;
    let Some(table) = table else {
        return match secret {
            Some(_) => {
                Err("LONGSHORE_OIDC_CLIENT_SECRET is set, and there is no [dashboard.oidc] that it is for".into())
            }
            None => Ok(None),
        };
    };
    let failed = |key: &str, reason: &str| format!("dashboard.oidc.{key}: {reason}");
    if !issuers.iter().any(|(rules, _)| rules.issuer == table.issuer) {
        let reason = format!("`{}` is none of [[auth.issuers]], so nobody could sign in with it", table.issuer);
        return Err(failed("issuer", &reason));
    }
    Line::to(&table.issuer).map_err(|reason| failed("issuer", &reason))?;
    if table.client_id.is_empty() {
        return Err(failed("client_id", "must not be empty"));
    }
    let public_url = checked_url(&table.public_url).map_err(|reason| failed("public_url", &reason))?;
    if !matches!(public_url.path(), "" | "/") || public_url.query().is_some() {
        return Err(failed("public_url", "is where this installation is found, such as https://longshore.example.com"));
    }
    let scopes = table.scopes.unwrap_or_else(|| vec![SCOPES_DEFAULT.to_owned()]);
    if !scopes.iter().any(|scope| scope == SCOPES_DEFAULT) {
        return Err(failed("scopes", "`openid` has to be among them"));
    }
    let is_scope = |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
    if !scopes.iter().all(is_scope) {
        return Err(failed("scopes", "each is a word"));
    }
    let name = table.name.unwrap_or_else(|| "your identity provider".to_owned());
    if name.trim().is_empty() || name.chars().count() > NAME_MAX_CHARS || name.chars().any(char::is_control) {
        return Err(failed("name", &format!("is 1 to {NAME_MAX_CHARS} letters")));
    }
    let client_secret = match (secret, table.client_secret_file) {
        (Some(secret), _) => Some(secret.into()),
        (None, Some(path)) => Some(read_secret(&path)?),
        (None, None) => None,
    };
    let (issuer, client_id) = (table.issuer, table.client_id);
    Ok(Some(OidcSettings { issuer, client_id, client_secret, scopes, name, public_url }))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::auth;

    const ISSUER: &str = "https://id.example";

    /// What is made of `[dashboard.oidc]` with these lines in the place of, or beside, what is right.
    fn told(changed: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Option<OidcSettings>, String> {
        let right =
            [("issuer", "\"https://id.example\""), ("client_id", "\"l\""), ("public_url", "\"https://l.example\"")];
        let kept = right.iter().filter(|(key, _)| changed.iter().all(|(other, _)| other != key));
        let lines: String = kept.chain(changed).map(|(key, value)| format!("{key} = {value}\n")).collect();
        let text = format!("[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = \"l\"\n[dashboard.oidc]\n{lines}");
        let file: file::File = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        oidc(&Environment::of(env), file.dashboard.oidc, &auth::issuers(file.auth.issuers)?)
    }

    #[test]
    fn people_sign_in_with_an_issuer_that_is_believed_and_come_back_to_an_address_that_is_ours() {
        let least = told(&[], &[]).unwrap().unwrap();
        assert!(least.client_secret.is_none());
        assert_eq!((&*least.scopes, least.public_url.as_str()), (&["openid".to_owned()][..], "https://l.example/"));
        let secret = told(&[], &[("LONGSHORE_OIDC_CLIENT_SECRET", "hidden")]).unwrap().unwrap();
        assert!(!format!("{secret:?}").contains("hidden"));
        assert_eq!(secret.client_secret.unwrap().expose_secret(), "hidden");
        for (changed, word) in [
            (("issuer", "\"https://else.example\""), "none of [[auth.issuers]]"),
            (("client_id", "\"\""), "client_id"),
            (("client_secret", "\"hidden\""), "LONGSHORE_OIDC_CLIENT_SECRET"),
            (("client_secret_file", "\"/nowhere\""), "/nowhere"),
            (("public_url", "\"http://l.example\""), "is not https"),
            (("public_url", "\"https://l.example/dashboard\""), "public_url"),
            (("scopes", "[\"email\"]"), "openid"),
            (("scopes", "[\"openid\", \"a b\"]"), "word"),
            (("name", "\" \""), "letters"),
            (("redirect_url", "\"https://l.example\""), "unknown field"),
        ] {
            let message = told(&[changed], &[]).unwrap_err();
            assert!(message.contains(word) && !message.contains("hidden"), "{changed:?}: {message}");
        }
    }

    #[test]
    fn the_dashboard_is_shown_unless_somebody_says_otherwise() {
        let shown = |enabled, env: &[(&str, &str)]| {
            let table = file::DashboardTable { enabled, oidc: None };
            settings(&Environment::of(env), table, &[]).map(|settings| settings.is_some())
        };
        assert_eq!((shown(None, &[]), shown(Some(false), &[])), (Ok(true), Ok(false)));
        assert_eq!(shown(Some(false), &[("LONGSHORE_DASHBOARD", "true")]), Ok(true));
        assert!(shown(None, &[("LONGSHORE_DASHBOARD", "yes")]).is_err());
        let alone = shown(None, &[("LONGSHORE_OIDC_CLIENT_SECRET", "hidden")]).unwrap_err();
        assert!(alone.contains("[dashboard.oidc]") && !alone.contains("hidden"), "{alone}");
    }
}
