//! A provider of vectors (and of one word) that remembers what it was asked for, and answers as a test says and when it says.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "the binary exports nothing; a test may fail")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use queue_core::{ids::CallId, ledger::Usage};
use tokio::sync::{Semaphore, watch};
use worker::provider::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, Providers};

type Decides = Box<dyn Fn(&[String], usize) -> Result<(), CallError> + Send + Sync>;

/// The provider.
pub struct Oracle {
    decides: Decides,
    asked: Mutex<Vec<(CallId, Vec<String>)>>,
    count: watch::Sender<usize>,
    /// Each answer takes one.
    leave: Semaphore,
    /// Whether vectors are longer by one than they were.
    longer: AtomicBool,
}

/// The vector of a text.
pub fn vector(text: &str) -> Vec<f32> {
    let sum = text.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    vec![text.len() as f32, (sum % 65_536) as f32 / 65_536.0]
}

impl Oracle {
    /// What it says that each call used.
    pub const TOKENS: u64 = 1_001;

    /// Answers at once; `decides` says what becomes of each call, which are counted from 0.
    pub fn new(decides: impl Fn(&[String], usize) -> Result<(), CallError> + Send + Sync + 'static) -> Arc<Self> {
        Self::with(decides, Semaphore::MAX_PERMITS / 2)
    }

    /// Answers when it is released.
    pub fn held(decides: impl Fn(&[String], usize) -> Result<(), CallError> + Send + Sync + 'static) -> Arc<Self> {
        Self::with(decides, 0)
    }

    fn with(
        decides: impl Fn(&[String], usize) -> Result<(), CallError> + Send + Sync + 'static,
        leave: usize,
    ) -> Arc<Self> {
        let (count, leave) = (watch::Sender::new(0), Semaphore::new(leave));
        let longer = AtomicBool::new(false);
        Arc::new(Self { decides: Box::new(decides), asked: Mutex::default(), count, leave, longer })
    }

    pub fn alone(self: &Arc<Self>) -> Providers {
        Providers::from([("oracle".to_owned(), self.clone() as Arc<dyn Provider>)])
    }

    /// Every call so far: the id that it came with, and its inputs.
    pub fn asked(&self) -> Vec<(CallId, Vec<String>)> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits for so many calls.
    pub async fn until_asked(&self, calls: usize) {
        let mut count = self.count.subscribe();
        let asked = count.wait_for(|count| *count >= calls);
        tokio::time::timeout(std::time::Duration::from_secs(20), asked).await.unwrap().unwrap();
    }

    /// Notes a call, and waits until it may be answered.
    async fn takes(&self, call: &Call<'_>, input: Vec<String>) -> Result<(), CallError> {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push((call.id, input.clone()));
            asked.len() - 1
        };
        self.count.send_modify(|count| *count += 1);
        tokio::select! {
            leave = self.leave.acquire() => leave.unwrap().forget(),
            () = call.cancel.cancelled() => return Err(CallError::cancelled(None)),
        }
        (self.decides)(&input, number)
    }

    /// Another model answers to the name from now on.
    pub fn make_longer(&self) {
        self.longer.store(true, Ordering::SeqCst);
    }

    /// Lets one call go.
    pub fn release(&self) {
        self.leave.add_permits(1);
    }
}

#[async_trait]
impl Provider for Oracle {
    fn name(&self) -> &str {
        "oracle"
    }

    /// Seven; what stands behind `finish ` in the prompt, it ends with.
    async fn chat(&self, request: &ChatRequest, call: Call<'_>) -> Result<ChatAnswer, CallError> {
        let prompt = request.body["messages"][0]["content"].as_str().unwrap().to_owned();
        self.takes(&call, vec![prompt.clone()]).await?;
        Ok(ChatAnswer {
            text: r#"{"number": 7}"#.into(),
            finish: prompt.strip_prefix("finish ").unwrap_or("stop").into(),
            model: request.model.clone(),
            usage: Some(Usage { tokens_in: Self::TOKENS, tokens_out: 10, ..Usage::default() }),
            ..ChatAnswer::default()
        })
    }

    async fn embed(&self, request: &EmbedRequest, call: Call<'_>) -> Result<EmbedAnswer, CallError> {
        self.takes(&call, request.input.clone()).await?;
        let more = if self.longer.load(Ordering::SeqCst) { vec![0.5] } else { vec![] };
        Ok(EmbedAnswer {
            vectors: request.input.iter().map(|text| [vector(text), more.clone()].concat()).collect(),
            model: request.model.clone(),
            usage: Some(Usage { tokens_in: Self::TOKENS, ..Usage::default() }),
            ..EmbedAnswer::default()
        })
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}
