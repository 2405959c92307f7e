//! Random numbers that are the same wherever they are asked for again: an input is named by seed, parser and number.

/// SplitMix64, which is enough to choose mutations by.
pub(super) struct Random(u64);

impl Random {
    /// The numbers of one input.
    pub(super) fn of(seed: u64, parser: &str, number: u64) -> Self {
        // FNV-1a: the parsers of one seed must not get the same inputs.
        let named = parser.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Self(seed ^ named);
        random.0 = random.next().wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end - 1`; 0 where `end` is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    pub(super) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of them, if there is one.
    pub(super) fn pick<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        list.get(self.below(list.len()))
    }
}
