//! What a tenant may ask for, applied to a job before it is checked: its own names of models are written out, its default
//! model is written in, and what it may not ask for is refused.

use serde_json::{Map, Value};

use super::FieldError;
use crate::{job::Kind, journal::TenantRules, route::Routes};

/// A payload and the chain beside it, both JSON text, as the rules make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// The payload, where it is another one now.
    pub payload: Option<String>,
    /// The chain, likewise.
    pub fallback: Option<String>,
}

/// Applies `rules`. What cannot be read is left alone: the check that follows says why. Pointers in errors begin with `/kind`,
/// `/payload` or `/fallback`.
pub fn apply(
    kind: Kind,
    payload: &str,
    fallback: Option<&str>,
    rules: &TenantRules,
    routes: &Routes,
) -> Result<Ruled, Vec<FieldError>> {
    let mut errors = Vec::new();
    if !rules.allows_kind(kind) {
        let allowed: Vec<_> = rules.kinds.iter().map(|kind| kind.as_str()).collect();
        let reason =
            format!("`{}` is not allowed for this tenant; it may submit {}", kind.as_str(), allowed.join(", "));
        errors.push(FieldError::at("/kind", reason));
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (mut tree, mut chain) = (read(payload), fallback.and_then(read));
    let mut pass = Pass { rules, errors: &mut errors, changed: false };
    if let Some(Value::Object(object)) = &mut tree {
        match kind {
            Kind::Llm => {
                pass.model(object, "/payload", routes.default_model.as_deref(), true);
                pass.cap(object, "/payload");
            }
            Kind::Embedding => {
                let default = routes.default_embedding_model.as_deref().or(routes.default_model.as_deref());
                pass.model(object, "/payload", default, false);
            }
            Kind::Analysis => pass.analysis(object, routes),
            Kind::Probe | Kind::Http | Kind::Custom => {}
        }
    }
    let payload_changed = std::mem::take(&mut pass.changed);
    if let Some(chain) = &mut chain {
        pass.links(chain, "/fallback");
    }
    let chain_changed = pass.changed;
    if !errors.is_empty() {
        return Err(errors);
    }
    let text = |tree: Option<Value>, changed: bool| tree.filter(|_| changed).map(|tree| tree.to_string());
    Ok(Ruled { payload: text(tree, payload_changed), fallback: text(chain, chain_changed) })
}

struct Pass<'a> {
    rules: &'a TenantRules,
    errors: &'a mut Vec<FieldError>,
    changed: bool,
}

impl Pass<'_> {
    fn wrong(&mut self, pointer: String, reason: String) {
        self.errors.push(FieldError { pointer, reason });
    }

    /// The member `model`: an alias becomes what it stands for, and nothing becomes the tenant's default, where it is a chat's.
    fn model(&mut self, object: &mut Map<String, Value>, at: &str, default: Option<&str>, is_chat: bool) {
        let named = object.get("model").filter(|model| !model.is_null());
        let named = match named {
            Some(Value::String(named)) => Some(named.clone()),
            Some(_) => return,
            None => None,
        };
        let own = self.rules.default_model.as_deref().filter(|_| is_chat);
        let Some(wanted) = named.as_deref().or(own).or(default) else { return };
        let model = self.rules.model(wanted).to_owned();
        if !self.rules.allows_model(&model) {
            let allowed = self.rules.models.join(", ");
            let reason = format!("`{model}` is not allowed for this tenant; it may ask for {allowed}");
            return self.wrong(format!("{at}/model"), reason);
        }
        if named.as_deref() != Some(model.as_str()) && (named.is_some() || own.is_some()) {
            object.insert("model".to_owned(), model.into());
            self.changed = true;
        }
    }

    /// The longest answer that a request allows.
    fn cap(&mut self, object: &Map<String, Value>, at: &str) {
        const LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];
        let Some(cap) = self.rules.max_tokens else { return };
        let mut given = LIMITS.into_iter().filter_map(|name| Some((name, object.get(name)?.as_u64()?))).peekable();
        if given.peek().is_none() {
            let reason = format!("is required: answers of this tenant have at most {cap} tokens");
            return self.wrong(format!("{at}/max_tokens"), reason);
        }
        let over: Vec<_> = given.filter(|(_, tokens)| *tokens > cap).collect();
        for (name, tokens) in over {
            let reason = format!("must be at most {cap} for this tenant, not {tokens}");
            self.wrong(format!("{at}/{name}"), reason);
        }
    }

    fn links(&mut self, chain: &mut Value, at: &str) {
        for (number, link) in chain.as_array_mut().into_iter().flatten().enumerate() {
            if let Value::Object(link) = link
                && link.contains_key("model")
            {
                self.model(link, &format!("{at}/{number}"), None, false);
            }
        }
    }

    fn analysis(&mut self, object: &mut Map<String, Value>, routes: &Routes) {
        let chats = object.contains_key("map");
        if chats && (self.rules.default_model.is_some() || self.rules.max_tokens.is_some()) {
            object.entry("defaults").or_insert_with(|| Value::Object(Map::new()));
        }
        match object.get_mut("defaults") {
            Some(Value::Object(defaults)) => {
                self.model(defaults, "/payload/defaults", routes.default_model.as_deref(), chats);
                if chats {
                    self.cap(defaults, "/payload/defaults");
                }
                if let Some(chain) = defaults.get_mut("fallback") {
                    self.links(chain, "/payload/defaults/fallback");
                }
            }
            _ if chats => self.model(&mut Map::new(), "/payload/defaults", routes.default_model.as_deref(), false),
            _ => {}
        }
        if let Some(Value::Object(embed)) = object.get_mut("embed") {
            let default = routes.default_embedding_model.as_deref().or(routes.default_model.as_deref());
            self.model(embed, "/payload/embed", default, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let default_model = Some("small".to_owned());
        Routes { routes: vec![], default_model, default_embedding_model: Some("vectors".to_owned()) }
    }

    fn rules() -> TenantRules {
        TenantRules {
            max_tokens: Some(100),
            kinds: vec![Kind::Llm, Kind::Analysis, Kind::Embedding],
            models: vec!["gpt-*".into(), "small".into(), "vectors".into()],
            aliases: [("fast".to_owned(), "gpt-mini".to_owned())].into(),
            default_model: Some("fast".into()),
        }
    }

    fn ruled(kind: Kind, payload: &str, fallback: Option<&str>) -> Result<Ruled, Vec<FieldError>> {
        apply(kind, payload, fallback, &rules(), &routes())
    }

    fn becomes(kind: Kind, payload: &str) -> Option<String> {
        ruled(kind, payload, None).unwrap().payload
    }

    fn refused(kind: Kind, payload: &str) -> Vec<(String, String)> {
        ruled(kind, payload, None).unwrap_err().into_iter().map(|error| (error.pointer, error.reason)).collect()
    }

    #[test]
    fn aliases_are_written_out_and_the_default_is_written_in() {
        let named = becomes(Kind::Llm, r#"{"model":"fast","max_tokens":7}"#).unwrap();
        assert!(named.contains(r#""model":"gpt-mini""#), "{named}");
        let unnamed = becomes(Kind::Llm, r#"{"max_tokens":7}"#).unwrap();
        assert!(unnamed.contains(r#""model":"gpt-mini""#), "{unnamed}");
        assert_eq!(becomes(Kind::Llm, r#"{"model":"gpt-4o","max_tokens":7}"#), None, "nothing to change");
        assert_eq!(becomes(Kind::Embedding, r#"{"input":"x"}"#), None, "the default is for chats");
        let deep = r#"{"defaults":{"max_tokens":9,"fallback":[{"model":"fast"}]},"map":{},"embed":{"model":"fast"}}"#;
        let deep = becomes(Kind::Analysis, deep).unwrap();
        assert_eq!(deep.matches("gpt-mini").count(), 3, "{deep}");
        let chain = ruled(Kind::Llm, r#"{"max_tokens":7}"#, Some(r#"[{"model":"fast","on":["rate"]}]"#)).unwrap();
        assert_eq!(chain.fallback.as_deref(), Some(r#"[{"model":"gpt-mini","on":["rate"]}]"#));
    }

    #[test]
    fn what_is_not_allowed_is_refused_where_it_stands() {
        for (kind, payload, pointer, reason) in [
            (Kind::Probe, "{}", "/kind", "llm, analysis, embedding"),
            (Kind::Llm, r#"{"model":"claude","max_tokens":7}"#, "/payload/model", "gpt-*, small"),
            (Kind::Llm, r#"{"model":"small"}"#, "/payload/max_tokens", "is required"),
            (Kind::Llm, r#"{"max_tokens":101}"#, "/payload/max_tokens", "at most 100"),
            (Kind::Llm, r#"{"max_completion_tokens":500}"#, "/payload/max_completion_tokens", "not 500"),
            (Kind::Analysis, r#"{"map":{}}"#, "/payload/defaults/max_tokens", "is required"),
            (Kind::Embedding, r#"{"model":"other"}"#, "/payload/model", "`other` is not allowed"),
        ] {
            let errors = refused(kind, payload);
            assert!(errors.iter().any(|(at, why)| at == pointer && why.contains(reason)), "{payload}: {errors:?}");
        }
        let chain = ruled(Kind::Llm, r#"{"max_tokens":7}"#, Some(r#"[{"model":"claude"}]"#)).unwrap_err();
        assert_eq!(chain[0].pointer, "/fallback/0/model");
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_check_that_follows() {
        for payload in ["[]", "{", r#"{"model":7,"max_tokens":1}"#] {
            assert_eq!(ruled(Kind::Llm, payload, Some("{")).unwrap(), Ruled { payload: None, fallback: None });
        }
    }
}
