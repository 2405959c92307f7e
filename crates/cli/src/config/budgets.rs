//! What the configuration says of budgets.

use queue_core::{
    budget::{AtLimit, Budget},
    ledger::{Nanousd, PriceBook, Rates},
};
use worker::purse::UnknownPrice;

use super::file;

/// Largest default price: a dollar a token is a wrong unit.
const PRICE_MAX: u64 = 1_000_000_000_000;

/// Budgets of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budgets {
    /// What happens to calls whose price nobody knows, where money is limited.
    pub(crate) unknown_price: UnknownPrice,
    /// The budget of tenants that have none of their own.
    pub(crate) each_tenant: Budget,
}

/// Checks `[budget]`.
pub(super) fn budgets(table: &file::BudgetTable) -> Result<Budgets, String> {
    let unknown_price = match table.unknown_price {
        None | Some(file::UnknownPrice::Refuse) => UnknownPrice::Refuse,
        Some(file::UnknownPrice::Allow) => UnknownPrice::Allow,
    };
    let each = &table.each_tenant;
    let money = |name: &str, text: &Option<String>| {
        let amount = text.as_deref().map(str::parse::<Nanousd>).transpose();
        amount.map_err(|reason| format!("budget.each_tenant.{name}: {reason}"))
    };
    let at_limit = match each.at_limit.as_deref() {
        None => AtLimit::Park,
        Some(word) => AtLimit::parse(word)
            .ok_or_else(|| format!("budget.each_tenant.at_limit is `{word}`; it is park, fail or degrade"))?,
    };
    if (at_limit == AtLimit::Degrade) != each.degrade_to.is_some() {
        return Err("budget.each_tenant: `degrade_to` belongs to at_limit = \"degrade\", and is needed there".into());
    }
    let each_tenant = Budget {
        day_usd: money("day_usd", &each.day_usd)?,
        month_usd: money("month_usd", &each.month_usd)?,
        day_tokens: each.day_tokens,
        month_tokens: each.month_tokens,
        at_limit,
        degrade_to: each.degrade_to.clone(),
    };
    Ok(Budgets { unknown_price, each_tenant })
}

/// The prices with the configured default.
pub(super) fn with_default(prices: PriceBook, table: &file::BudgetTable) -> Result<PriceBook, String> {
    let Some(file::DefaultPrice { input, output }) = table.default_price else { return Ok(prices) };
    if input.max(output) > PRICE_MAX {
        return Err("budget.default_price is more than a dollar a token; a wrong unit?".into());
    }
    Ok(prices.with_default(Rates {
        input,
        output,
        cached_input: None,
        cache_write: None,
        cache_write_long: None,
        audio_in: None,
        audio_out: None,
        long: None,
    }))
}
