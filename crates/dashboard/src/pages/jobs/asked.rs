//! What a page of jobs is asked for: the query of its address. What is the API's own goes to it as it is, and so the grammar is the
//! API's; what the page adds are the columns, and the way back through the pages.

use super::row::Column;
use crate::client::query;

/// Parameters of the page that the API does not know.
const OWN: [&str; 2] = ["column", "trail"];
/// Parameters that belong to one page of a list, and not to what is listed.
const PLACE: [&str; 2] = ["cursor", "trail"];
/// Most pages that the way back leads through: an address has an end, behind which its page is not live any more.
const TRAIL_MAX: usize = 20;
/// What stands in the way back for the page that has no cursor.
const FIRST_PAGE: &str = "-";
/// What the batch of a schedule's jobs begins with (`queue_core::schedule::JOBS_PREFIX`).
const SCHEDULE_BATCH: &str = "schedule:";

/// The query of a page of jobs, in the order in which it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Without what is empty: a form sends its empty fields, too, and the API takes them for mistakes.
    pairs: Vec<(String, String)>,
}

impl Asked {
    /// Reads the pairs of a query.
    pub(crate) fn of(pairs: Vec<(String, String)>) -> Self {
        let given = pairs.into_iter().map(|(name, value)| (name, value.trim().to_owned()));
        Self { pairs: given.filter(|(_, value)| !value.is_empty()).collect() }
    }

    /// The same without the columns that stand there anyway: a form sends every ticked box.
    pub(crate) fn without_usual_columns(mut self) -> Self {
        if Column::are_usual(&self.all("column")) {
            self.pairs.retain(|(name, _)| name != "column");
        }
        self
    }

    /// How many parameters say something.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// A parameter's value; empty where it is not given.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    /// Whether a parameter has this value.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == value
    }

    /// All values of a parameter that may be given several times.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether anything narrows the list, but `except`.
    pub(crate) fn narrows_but(&self, except: &[&str]) -> bool {
        let beside = |name: &str| OWN.contains(&name) || PLACE.contains(&name) || name == "limit";
        self.pairs.iter().any(|(name, _)| !beside(name) && !except.contains(&name.as_str()))
    }

    /// The query for the API, with its `?`.
    pub(crate) fn for_api(&self) -> String {
        query_of(self.pairs.iter().filter(|(name, _)| !OWN.contains(&name.as_str())))
    }

    /// The query of this very page.
    pub(crate) fn here(&self) -> String {
        query_of(&self.pairs)
    }

    /// The query of the same list from its beginning, with another value of one parameter; an empty one takes it away.
    pub(crate) fn with(&self, name: &str, value: &str) -> String {
        let mut pairs = self.without(&PLACE);
        pairs.retain(|(given, _)| given != name);
        if !value.is_empty() {
            pairs.push((name.to_owned(), value.to_owned()));
        }
        query_of(&pairs)
    }

    /// The query of the page behind `cursor`, which knows the way back to this one.
    pub(crate) fn next(&self, cursor: &str) -> String {
        let mut trail = self.trail();
        trail.push(match self.get("cursor") {
            "" => FIRST_PAGE,
            cursor => cursor,
        });
        let kept = trail.split_off(trail.len().saturating_sub(TRAIL_MAX));
        self.at(Some(cursor), &kept)
    }

    /// The query of the page before, where there is one.
    pub(crate) fn back(&self) -> Option<String> {
        if self.get("cursor").is_empty() {
            return None;
        }
        let mut trail = self.trail();
        let last = trail.pop().filter(|last| *last != FIRST_PAGE);
        Some(self.at(last, &trail))
    }

    fn at(&self, cursor: Option<&str>, trail: &[&str]) -> String {
        let mut pairs = self.without(&PLACE);
        if let Some(cursor) = cursor {
            pairs.push(("cursor".to_owned(), cursor.to_owned()));
            if !trail.is_empty() {
                pairs.push(("trail".to_owned(), trail.join(".")));
            }
        }
        query_of(&pairs)
    }

    fn trail(&self) -> Vec<&str> {
        // The first page has no way back, whatever a saved address says.
        if self.get("cursor").is_empty() {
            return Vec::new();
        }
        self.get("trail").split('.').filter(|cursor| !cursor.is_empty()).collect()
    }

    fn without(&self, names: &[&str]) -> Vec<(String, String)> {
        self.pairs.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect()
    }

    /// The same jobs in the one grammar that operations take, too.
    ///
    /// # Errors
    /// A reason for people where the grammar has no word for what was asked.
    pub(crate) fn as_filter(&self) -> Result<String, String> {
        let mut conditions = Vec::new();
        for (name, value) in &self.pairs {
            match name.as_str() {
                "filter" => conditions.push(value.clone()),
                "queue" | "kind" | "state" | "tenant" | "batch_id" | "operation" => {
                    conditions.push(format!("{name} = {}", quoted(value)));
                }
                // As the API tells them apart: a signature begins with its class and a colon.
                "error" | "signature" if value.contains(':') => {
                    conditions.push(format!("error.signature = {}", quoted(value)))
                }
                "error" => conditions.push(format!("error.class = {}", quoted(value))),
                "signature" => conditions.push(format!("error.signature = {}", quoted(value))),
                "schedule" => conditions.push(format!("batch_id = {}", quoted(&format!("{SCHEDULE_BATCH}{value}")))),
                "since" if is_moment(value) => conditions.push(format!("accepted_at >= {}", quoted(value))),
                "since" => conditions.push(format!("age <= {}", quoted(value))),
                "until" if is_moment(value) => conditions.push(format!("accepted_at < {}", quoted(value))),
                "until" => conditions.push(format!("age > {}", quoted(value))),
                "q" => {
                    return Err(
                        "a text search cannot be used for all matching jobs: narrow by the filter instead, for \
                                example error.message ~ \"…\" or tag = …"
                            .to_owned(),
                    );
                }
                name if OWN.contains(&name) || PLACE.contains(&name) || name == "limit" => {}
                // What would be left out would widen what is meant.
                name => return Err(format!("`{name}` is nothing that jobs are narrowed by")),
            }
        }
        Ok(conditions.join(" and "))
    }
}

/// Whether a bound of time is a moment, and not a duration: durations have neither dashes nor colons.
fn is_moment(text: &str) -> bool {
    text.contains(['-', ':'])
}

/// A value as the grammar of filters reads it back, whatever is in it.
pub(crate) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn query_of<'a>(pairs: impl IntoIterator<Item = &'a (String, String)>) -> String {
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    query(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Asked {
        Asked::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_api_gets_what_is_its_own_and_nothing_empty() {
        let given = asked(&[("queue", "llm"), ("kind", ""), ("column", "cost"), ("colour", "red"), ("trail", "-")]);
        assert_eq!(given.for_api(), "?queue=llm&colour=red");
        assert_eq!(given.here(), "?queue=llm&column=cost&colour=red&trail=-");
        assert!(given.narrows_but(&[]));
        assert!(!asked(&[("limit", "5"), ("cursor", "c1"), ("queue", "q")]).narrows_but(&["queue"]));
    }

    #[test]
    fn an_address_says_no_more_than_it_must() {
        let usual: Vec<_> = Column::chosen(&[]).into_iter().map(|column| ("column", column.word())).collect();
        let given = asked(&[&usual[..], &[("queue", "llm"), ("kind", "")]].concat());
        assert_eq!(given.without_usual_columns().here(), "?queue=llm");
        let chosen = asked(&[("column", "cost"), ("column", "queue")]).without_usual_columns();
        assert_eq!((chosen.here().as_str(), chosen.len()), ("?column=cost&column=queue", 2));
    }

    #[test]
    fn pages_know_the_way_on_and_back() {
        let first = asked(&[("queue", "llm")]);
        assert_eq!(first.back(), None);
        assert_eq!(first.next("c1"), "?queue=llm&cursor=c1&trail=-");
        let second = asked(&[("queue", "llm"), ("cursor", "c1"), ("trail", "-")]);
        assert_eq!(second.back().as_deref(), Some("?queue=llm"));
        assert_eq!(second.next("c2"), "?queue=llm&cursor=c2&trail=-.c1");
        let third = asked(&[("queue", "llm"), ("cursor", "c2"), ("trail", "-.c1")]);
        assert_eq!(third.back().as_deref(), Some("?queue=llm&cursor=c1&trail=-"));
        // An address that somebody sent, without the way that led to it.
        assert_eq!(asked(&[("cursor", "c2")]).back().as_deref(), Some(""));
        assert_eq!(third.with("state", "dead"), "?queue=llm&state=dead");
        assert_eq!(third.with("queue", ""), "");
    }

    #[test]
    fn the_way_back_has_an_end() {
        let long = vec!["c0"; TRAIL_MAX].join(".");
        let next = asked(&[("cursor", "c1"), ("trail", &long)]).next("c2");
        assert_eq!(next.matches("c0").count(), TRAIL_MAX - 1);
        assert!(next.ends_with(".c1"));
    }

    #[test]
    fn what_is_listed_can_be_said_as_a_filter() {
        let filter = |pairs: &[(&str, &str)]| asked(pairs).as_filter();
        assert_eq!(filter(&[]).as_deref(), Ok(""));
        assert_eq!(
            filter(&[("filter", "cost >= 1"), ("queue", "llm"), ("since", "7d"), ("until", "2026-11-21T09:30:00Z")])
                .as_deref(),
            Ok("cost >= 1 and queue = \"llm\" and age <= \"7d\" and accepted_at < \"2026-11-21T09:30:00Z\"")
        );
        assert_eq!(filter(&[("error", "rate")]).as_deref(), Ok("error.class = \"rate\""));
        assert_eq!(filter(&[("error", "rate:429:slow")]).as_deref(), Ok("error.signature = \"rate:429:slow\""));
        assert_eq!(filter(&[("schedule", "0192")]).as_deref(), Ok("batch_id = \"schedule:0192\""));
        let hostile = r#"x" and state = "dead\"#;
        assert_eq!(filter(&[("operation", hostile)]).as_deref(), Ok(r#"operation = "x\" and state = \"dead\\""#));
        assert_eq!(filter(&[("limit", "5"), ("cursor", "c1"), ("column", "cost")]).as_deref(), Ok(""));
        assert!(filter(&[("queu", "llm")]).unwrap_err().contains("`queu`"));
        assert!(filter(&[("q", "timeout")]).unwrap_err().contains("text search"));
    }
}
