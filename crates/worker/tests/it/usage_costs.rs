//! What calls cost, from the provider's usage object to the ledger row: recorded objects, each with a cost that was worked
//! out apart from this code, in dollars and decimals (`data/usage.json`, its arithmetic beside it).

use std::{sync::Arc, time::Duration};

use crate::rig::Rig;
use queue_core::{
    job::Kind,
    ledger::{Nanousd, PriceBook, Tier, UsageSource},
    state::Standing,
};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Behaviour, MockProvider};
use worker::provider::Providers;

/// One answer of a provider and its price.
#[derive(Deserialize)]
struct Recorded {
    name: String,
    kind: String,
    model: String,
    usage: Value,
    expected_nanousd: Option<i64>,
    tier: String,
    source: String,
    arithmetic: String,
    asked_tier: Option<String>,
    answered_tier: Option<String>,
    prompt: Option<String>,
    answer: Option<String>,
}

impl Recorded {
    fn prompt(&self) -> &str {
        self.prompt.as_deref().unwrap_or("How many?")
    }

    fn job(&self) -> (Kind, Value) {
        match self.kind.as_str() {
            "embedding" => (Kind::Embedding, json!({"model": self.model, "input": [self.prompt()]})),
            _ => {
                let messages = json!([{"role": "user", "content": self.prompt()}]);
                let mut payload = json!({"model": self.model, "messages": messages});
                if let Some(tier) = &self.asked_tier {
                    payload["service_tier"] = json!(tier);
                }
                (Kind::Llm, payload)
            }
        }
    }

    fn answer(&self) -> Value {
        let mut answer = match self.kind.as_str() {
            "embedding" => json!({"object": "list", "data": [{"index": 0, "embedding": [0.6, 0.8]}]}),
            _ => {
                let message = json!({"role": "assistant", "content": self.answer.as_deref().unwrap_or("Seven.")});
                json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
            }
        };
        answer["model"] = json!(self.model);
        answer["usage"] = self.usage.clone();
        if let Some(tier) = &self.answered_tier {
            answer["service_tier"] = json!(tier);
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_usage_costs_what_one_works_out_by_hand() {
    let recorded: Vec<Recorded> = serde_json::from_str(include_str!("data/usage.json")).unwrap();
    assert!(recorded.len() >= 60, "{}", recorded.len());
    let mock = MockProvider::start().await;
    let providers: Providers = [("mock".to_owned(), Arc::new(crate::asking::openai(&mock)) as _)].into();
    let mut rig = Rig::new(providers).await;
    let own = PriceBook::parse(include_str!("data/prices.toml")).unwrap();
    rig.around.prices = Arc::new(PriceBook::shipped().with_overrides(own));
    rig.work(1, Duration::from_secs(5));
    let mut wrong = vec![];
    for case in &recorded {
        mock.script([Behaviour::Respond(200, vec![], case.answer().to_string())]);
        let (kind, payload) = case.job();
        let id = rig.submit(kind, &payload.to_string(), |_| {}).await;
        let row = rig.ended(id).await;
        assert_eq!(row.standing, Standing::Succeeded, "{}: {:?}", case.name, row.error);
        let calls = rig.stores.reads.calls(id).await.unwrap();
        let [call] = &calls[..] else { panic!("{}: {calls:?}", case.name) };
        let expected = (
            case.expected_nanousd.map(Nanousd),
            Tier::parse(&case.tier).unwrap(),
            UsageSource::parse(&case.source).unwrap(),
        );
        let told = (call.cost, call.tier, call.usage_source);
        if told != expected || row.cost != expected.0 {
            wrong.push(format!("{}: {told:?} is not {expected:?}; {}; {:?}", case.name, case.arithmetic, call.usage));
        }
        assert!(call.price_version.ends_with("+recorded"), "the row says which prices these were");
    }
    rig.stop().await;
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), recorded.len(), wrong.join("\n"));
}
