//! Fallback chains in payloads and beside them: read, and checked against who serves what.

use serde_json::Value;

use super::{
    Surroundings,
    fields::{At, Errors, Object, described_name, list_at, listed},
    model,
};
use crate::{
    error::ErrorClass,
    fallback::{self, LINKS_MAX, Link, ON_DEFAULT},
    route::Target,
};

/// The links that `value`, which stands at `at`, describes.
pub(super) fn links(value: &Value, at: &At<'_>, errors: &mut Errors) -> Vec<Link> {
    let mut links = Vec::new();
    for (index, value) in list_at(value, *at, LINKS_MAX, errors).into_iter().flatten().enumerate() {
        let item = at.item(index);
        let Some(object) = Object::open(value, &item, &["model", "on"], "", errors) else { continue };
        let named = object.require("model", "the model to go on with", errors).is_some();
        let model = if named { object.label("model", model::NAME_MAX_BYTES, errors) } else { None };
        let on = classes(&object, errors);
        if let Some(model) = model {
            links.push(Link { model: model.to_owned(), on });
        }
    }
    links
}

fn classes(object: &Object<'_>, errors: &mut Errors) -> Vec<ErrorClass> {
    let Some(value) = object.get("on") else { return ON_DEFAULT.to_vec() };
    let at = object.at("on");
    let mut classes = Vec::new();
    for (index, word) in list_at(value, at, ErrorClass::ALL.len(), errors).into_iter().flatten().enumerate() {
        let Value::String(word) = word else {
            errors.mismatch(at.item(index), "a string", word);
            continue;
        };
        match fallback::allowed().find(|class| class.as_str() == word) {
            Some(class) => classes.push(class),
            None => {
                let words: Vec<_> = fallback::allowed().map(ErrorClass::as_str).collect();
                let reason = format!("must be one of {}, not {}", listed(&words), described_name(word));
                errors.wrong(at.item(index), reason);
            }
        }
    }
    classes
}

/// The targets of the links. Notes which of them nobody serves, and which stand in the chain twice.
pub(super) fn targets(
    links: &[Link],
    at: &At<'_>,
    first: &str,
    around: Surroundings<'_>,
    errors: &mut Errors,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for (index, link) in links.iter().enumerate() {
        let item = at.item(index);
        let earlier = || links[..index].iter().map(|link| link.model.as_str()).chain([first]);
        if earlier().any(|model| model == link.model) {
            let reason = format!("{} stands in the chain before: it would be asked twice", described_name(&link.model));
            errors.wrong(item.member("model"), reason);
            continue;
        }
        match around.routes.resolve(&link.model) {
            Some(target) => targets.push(target),
            None => errors.wrong(item.member("model"), model::served_by_nobody(&link.model, around)),
        }
    }
    targets
}
