//! Hashes as people compare them: hexadecimal digits.

/// The digits of these bytes.
pub fn of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that these digits say; `None` where they are not exactly as many as there are.
pub fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(of(&[0, 10, 255]), "000aff");
        assert_eq!(read("000aff"), Some([0, 10, 255]));
        for wrong in ["000af", "000aff0", "000afg", "00üff"] {
            assert_eq!(read::<3>(wrong), None, "{wrong}");
        }
    }
}
