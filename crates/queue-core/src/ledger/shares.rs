//! A sum shared among those who caused it.

use super::Nanousd;

impl Nanousd {
    /// This sum in parts by `weights`, exact to the last unit: the parts together are the sum. What does not divide goes
    /// to those who would lose the most by rounding, the first of them where they are alike. Without any weight all
    /// count the same; without anybody nobody pays.
    pub fn shared(self, weights: &[u64]) -> Vec<Self> {
        let whole: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        if whole == 0 {
            return if weights.is_empty() { vec![] } else { self.shared(&vec![1; weights.len()]) };
        }
        // Of a debt the parts are debts.
        let (sign, sum) = (self.0.signum(), u128::from(self.0.unsigned_abs()));
        let exact = |weight: u64| sum * u128::from(weight);
        let mut parts: Vec<u128> = weights.iter().map(|&weight| exact(weight) / whole).collect();
        let left = sum - parts.iter().sum::<u128>();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(exact(weights[at]) % whole));
        // Fewer than one unit each is left, so nobody gets two.
        order.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)).for_each(|at| parts[at] += 1);
        parts.into_iter().map(|part| Self(i64::try_from(part).unwrap_or(i64::MAX).saturating_mul(sign))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shared(sum: i64, weights: &[u64]) -> Vec<i64> {
        Nanousd(sum).shared(weights).into_iter().map(|part| part.0).collect()
    }

    #[test]
    fn what_does_not_divide_goes_to_the_largest_remainder() {
        assert_eq!(shared(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(shared(10, &[1, 5, 1]), [2, 7, 1]);
        assert_eq!(shared(1, &[0, 3, 4]), [0, 0, 1]);
        assert_eq!(shared(5, &[0, 0]), [3, 2]);
        assert_eq!(shared(0, &[1, 2]), [0, 0]);
        assert_eq!(shared(-3, &[1, 1]), [-2, -1]);
        assert!(shared(7, &[]).is_empty());
        assert_eq!(shared(i64::MAX, &[u64::MAX, u64::MAX]).iter().sum::<i64>(), i64::MAX);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nobody_is_a_unit_away_from_the_share(
            sum in 0_i64..1_000_000_000_000, weights in prop::collection::vec(0_u64..1_000_000, 1..50)
        ) {
            let parts = shared(sum, &weights);
            prop_assert_eq!(parts.iter().sum::<i64>(), sum);
            let whole: u64 = weights.iter().sum();
            for (part, weight) in parts.iter().zip(&weights).filter(|_| whole > 0) {
                let exact = i128::from(sum) * i128::from(*weight);
                prop_assert!((i128::from(*part) * i128::from(whole) - exact).abs() < i128::from(whole));
            }
        }
    }
}
