//! A provider that answers as a test says, and remembers what it was asked.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "the binary exports nothing; a test may fail"
)]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use queue_core::{error::ErrorClass, ids::CallId, ledger::Usage};
use serde_json::{Value, json};
use worker::provider::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, Providers};

pub type Said = Result<ChatAnswer, CallError>;

/// A provider whose chat answers are a function of the request and of how often this call was tried, counted from 1.
pub struct Script {
    say: Box<dyn Fn(&ChatRequest, u32) -> Said + Send + Sync>,
    vectors: Box<dyn Fn(&[String]) -> Vec<Vec<f32>> + Send + Sync>,
    asked: Mutex<Vec<(CallId, ChatRequest)>>,
    embedded: Mutex<Vec<Vec<String>>>,
    tries: Mutex<HashMap<CallId, u32>>,
    running: AtomicUsize,
    pub most_running: AtomicUsize,
}

impl Script {
    pub fn new(say: impl Fn(&ChatRequest, u32) -> Said + Send + Sync + 'static) -> Arc<Self> {
        Self::with_vectors(say, |input| input.iter().map(|text| vec![text.len() as f32, 0.5]).collect())
    }

    pub fn with_vectors(
        say: impl Fn(&ChatRequest, u32) -> Said + Send + Sync + 'static,
        vectors: impl Fn(&[String]) -> Vec<Vec<f32>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            say: Box::new(say),
            vectors: Box::new(vectors),
            asked: Mutex::default(),
            embedded: Mutex::default(),
            tries: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
        })
    }

    /// This script as the only provider.
    pub fn alone(self: &Arc<Self>) -> Providers {
        Providers::from([("script".to_owned(), self.clone() as Arc<dyn Provider>)])
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().iter().map(|(_, request)| request.clone()).collect()
    }

    /// How often each call was asked.
    pub fn times(&self) -> HashMap<CallId, usize> {
        let mut times = HashMap::new();
        for (id, _) in self.asked.lock().unwrap().iter() {
            *times.entry(*id).or_default() += 1;
        }
        times
    }

    pub fn embedded(&self) -> Vec<Vec<String>> {
        self.embedded.lock().unwrap().clone()
    }
}

#[async_trait]
impl Provider for Script {
    fn name(&self) -> &str {
        "script"
    }

    async fn chat(&self, request: &ChatRequest, call: Call<'_>) -> Said {
        self.asked.lock().unwrap().push((call.id, request.clone()));
        let number = {
            let mut tries = self.tries.lock().unwrap();
            let number = tries.entry(call.id).or_default();
            *number += 1;
            *number
        };
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        // Others get their turn: calls that may run side by side do.
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        (self.say)(request, number)
    }

    async fn embed(&self, request: &EmbedRequest, _: Call<'_>) -> Result<EmbedAnswer, CallError> {
        self.embedded.lock().unwrap().push(request.input.clone());
        Ok(EmbedAnswer {
            vectors: (self.vectors)(&request.input),
            model: request.model.clone(),
            usage: Some(Usage { tokens_in: request.input.len() as u64, ..Usage::default() }),
            ..EmbedAnswer::default()
        })
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}

/// A script that keeps some calls waiting until their attempt is stopped, as a slow model would.
pub struct Stalling {
    script: Arc<Script>,
    when: Box<dyn Fn(&ChatRequest) -> bool + Send + Sync>,
    pub waiting: AtomicUsize,
}

impl Stalling {
    pub fn new(script: &Arc<Script>, when: impl Fn(&ChatRequest) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { script: script.clone(), when: Box::new(when), waiting: AtomicUsize::new(0) })
    }

    pub fn alone(self: &Arc<Self>) -> Providers {
        Providers::from([("script".to_owned(), self.clone() as Arc<dyn Provider>)])
    }
}

#[async_trait]
impl Provider for Stalling {
    fn name(&self) -> &str {
        "script"
    }

    async fn chat(&self, request: &ChatRequest, call: Call<'_>) -> Said {
        if !(self.when)(request) {
            return self.script.chat(request, call).await;
        }
        self.script.asked.lock().unwrap().push((call.id, request.clone()));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        call.cancel.cancelled().await;
        Err(CallError::cancelled(None))
    }

    async fn embed(&self, request: &EmbedRequest, call: Call<'_>) -> Result<EmbedAnswer, CallError> {
        self.script.embed(request, call).await
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}

pub fn says(text: impl Into<String>) -> Said {
    let usage = Some(Usage { tokens_in: 1, tokens_out: 1, ..Usage::default() });
    Ok(ChatAnswer { text: text.into(), finish: "stop".into(), model: "small-1".into(), usage, ..ChatAnswer::default() })
}

pub fn ends(text: &str, finish: &str) -> Said {
    says(text).map(|answer| ChatAnswer { finish: finish.into(), ..answer })
}

pub fn fails(class: ErrorClass) -> Said {
    Err(CallError::unbilled(class, "scripted", "it fails as scripted"))
}

/// The text of the message at `at`, counted from the end.
pub fn message(request: &ChatRequest, at: usize) -> &str {
    let messages = request.body["messages"].as_array().unwrap();
    messages[messages.len() - 1 - at]["content"].as_str().unwrap()
}

/// The text between the marks `tag`.
pub fn inside<'t>(text: &'t str, tag: &str) -> Vec<&'t str> {
    let (open, close) = (format!("<{tag}>\n"), format!("\n</{tag}>"));
    text.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap()).collect()
}

pub fn schema_of(schema: &Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})
}
