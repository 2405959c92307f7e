//! What each job of a call has to pay: by the tokens that it brought, to the last unit.

use queue_core::ledger::{Nanousd, Usage};

/// `total` by `weights`, each part rounded down and what is left given to the first: the parts always sum up to `total`.
fn split(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let part = |weight: &u64| match sum {
        0 => 0,
        // At most `total`, since no weight is above their sum.
        sum => (u128::from(total) * u128::from(*weight) / sum) as u64,
    };
    let mut parts: Vec<u64> = weights.iter().map(part).collect();
    let given: u64 = parts.iter().sum();
    if let Some(first) = parts.first_mut() {
        *first += total - given;
    }
    parts
}

/// Where a count of tokens stands.
type Field = fn(&mut Usage) -> &mut u64;

/// A call's tokens by `weights`.
pub(super) fn usages(total: Usage, weights: &[u64]) -> Vec<Usage> {
    let mut shares = vec![Usage::default(); weights.len()];
    let fields: [(u64, Field); 8] = [
        (total.tokens_in, |share| &mut share.tokens_in),
        (total.tokens_out, |share| &mut share.tokens_out),
        (total.tokens_cached, |share| &mut share.tokens_cached),
        (total.tokens_cache_write, |share| &mut share.tokens_cache_write),
        (total.tokens_reasoning, |share| &mut share.tokens_reasoning),
        (total.tokens_cache_write_long, |share| &mut share.tokens_cache_write_long),
        (total.tokens_audio_in, |share| &mut share.tokens_audio_in),
        (total.tokens_audio_out, |share| &mut share.tokens_audio_out),
    ];
    for (total, field) in fields.into_iter().filter(|(total, _)| *total > 0) {
        for (share, part) in shares.iter_mut().zip(split(total, weights)) {
            *field(share) = part;
        }
    }
    shares
}

/// A call's cost by `weights`; unknown for each where it is unknown.
pub(super) fn costs(total: Option<Nanousd>, weights: &[u64]) -> Vec<Option<Nanousd>> {
    let Some(Nanousd(total)) = total else { return vec![None; weights.len()] };
    // The price book rounds up from what is never negative.
    let parts = split(u64::try_from(total).unwrap_or_default(), weights);
    parts.into_iter().map(|part| Some(Nanousd(i64::try_from(part).unwrap_or(i64::MAX)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_up_to_the_whole_and_the_first_has_what_is_left() {
        assert_eq!(split(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(split(10, &[1, 0, 4]), [2, 0, 8]);
        assert_eq!(split(1, &[5, 5]), [1, 0]);
        assert_eq!(split(7, &[0, 0]), [7, 0], "nobody knows who brought what");
        assert_eq!(split(0, &[3, 4]), [0, 0]);
        assert_eq!(split(u64::MAX, &[u64::MAX, u64::MAX]).iter().sum::<u64>(), u64::MAX);
        let mut random = 7_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        for _ in 0..1_000 {
            let weights: Vec<u64> = (0..1 + next() % 300).map(|_| next() % 9_000).collect();
            let total = next() * 1_000;
            assert_eq!(split(total, &weights).iter().sum::<u64>(), total);
            let costs = costs(Some(Nanousd(total as i64)), &weights);
            assert_eq!(costs.iter().flatten().map(|cost| cost.0).sum::<i64>(), total as i64);
        }
    }

    #[test]
    fn an_unknown_cost_is_unknown_to_each() {
        assert_eq!(costs(None, &[1, 2]), [None, None]);
        let total = Usage { tokens_in: 5, tokens_cached: 3, ..Usage::default() };
        let shares = usages(total, &[1, 1]);
        assert_eq!(shares.iter().fold(Usage::default(), |sum, share| sum.plus(*share)), total);
        assert_eq!(shares[0].tokens_in, 3);
    }
}
