//! Erasing a tenant: what would go, and the log of those that went.

use axum::{extract::Path, http::Method, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Forms, page};
use crate::{
    client::{Refused, path},
    form::{Flash, Posted, done},
    pages::{filled::Filled, part::part},
    viewer::Visit,
};

/// What the journal has of a tenant.
#[derive(Debug, Deserialize)]
pub(super) struct Holdings {
    pub(super) tables: Vec<Holding>,
}

/// What a table has.
#[derive(Debug, Deserialize)]
pub(super) struct Holding {
    pub(super) table: String,
    pub(super) rows: Option<u64>,
}

impl Holdings {
    /// Rows that were counted.
    pub(super) fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).sum()
    }

    /// Whether there is a table whose rows nobody has counted.
    pub(super) fn is_at_least(&self) -> bool {
        self.tables.iter().any(|table| table.rows.is_none())
    }

    /// Tables that have something.
    pub(super) fn told(&self) -> impl Iterator<Item = &Holding> {
        self.tables.iter().filter(|table| table.rows != Some(0))
    }
}

/// A tenant of the erase log.
#[derive(Debug, Deserialize)]
pub(super) struct Erasure {
    pub(super) tenant: String,
    pub(super) pseudonym: String,
    pub(super) state: String,
    pub(super) accepted_at: String,
    pub(super) erased: u64,
    pub(super) finished_at: Option<String>,
    pub(super) checked_at: Option<String>,
}

/// The erase log, for who may read it.
pub(super) async fn log(visit: &Visit) -> Result<Option<Vec<Erasure>>, Refused> {
    #[derive(Deserialize)]
    struct Log {
        erasures: Vec<Erasure>,
    }
    let log: Option<Log> = part(visit, "GET /v1/erasures", "/v1/erasures").await?;
    Ok(log.map(|log| log.erasures))
}

/// Counts what would go, or has it go once its name was typed.
pub(super) async fn erase(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let place = path(&["v1", "tenants", &name, "erase"]);
    let client = posted.visit.client.clone();
    if posted.text("do") != Some("erase") {
        let holdings = client.send(Method::POST, &place, Some(&json!({ "dry_run": true }))).await?;
        return page(posted.visit, &name, Forms { holdings: Some(holdings), ..Forms::default() }).await;
    }
    let answer: Result<Value, Refused> = match posted.confirmed("confirm", &name) {
        Ok(()) => client.send(Method::POST, &place, Some(&json!({ "confirm": name }))).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(_) => {
            Ok(done("/dashboard/tenants", Flash::good("The tenant is being erased: the log below says how far it is.")))
        }
        Err(refused) => {
            let erase = Filled::back("erase", &posted, &["confirm"], refused)?;
            page(posted.visit, &name, Forms { erase: Some(erase), ..Forms::default() }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_go_is_counted_as_far_as_it_is_known() {
        let text = r#"{"tenant":"t","dry_run":true,"tables":[{"table":"jobs","rows":12},{"table":"audit","rows":0},
            {"table":"attempts","rows":null}]}"#;
        let holdings: Holdings = serde_json::from_str(text).unwrap();
        assert_eq!((holdings.rows(), holdings.is_at_least(), holdings.told().count()), (12, true, 2));
    }
}
