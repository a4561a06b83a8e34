//! PostgreSQL's binary form of numeric: groups of four decimal digits.

/// Appends the binary form of a decimal number; none if the text is no number.
pub fn append_binary(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.eq_ignore_ascii_case("nan") {
        out.extend_from_slice(&[0, 0, 0, 0, 0xC0, 0, 0, 0]);
        return Some(());
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0
        || !all_digits(whole)
        || !all_digits(fraction)
        || fraction.len() > 16383
    {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let padding = (4 - whole.len() % 4) % 4;
    let mut padded = "0".repeat(padding) + whole;
    let whole_groups = padded.len() / 4;
    padded.push_str(fraction);
    padded.push_str(&"0".repeat((4 - fraction.len() % 4) % 4));
    let group = |chunk: &[u8]| chunk.iter().fold(0u16, |sum, byte| sum * 10 + u16::from(byte - b'0'));
    let groups: Vec<u16> = padded.as_bytes().chunks(4).map(group).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let end = groups.iter().rposition(|group| *group != 0).map_or(leading, |last| last + 1);
    let kept = groups.get(leading..end).unwrap_or(&[]);
    let weight = whole_groups as i64 - 1 - leading as i64;
    out.extend_from_slice(&u16::try_from(kept.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&i16::try_from(if kept.is_empty() { 0 } else { weight }).ok()?.to_be_bytes());
    out.extend_from_slice(&(if negative && !kept.is_empty() { 0x4000u16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&(fraction.len() as u16).to_be_bytes());
    kept.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
    Some(())
}

/// The decimal text of a binary numeric.
pub fn from_binary(bytes: &[u8]) -> Option<String> {
    let word = |at: usize| bytes.get(at * 2..at * 2 + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, usize::from(word(3)?));
    if bytes.len() != 8 + usize::from(count) * 2 {
        return None;
    }
    if sign == 0xC000 {
        return Some("NaN".into());
    }
    let digit =
        |place: i64| if place < 0 { Some(0) } else { word(4 + usize::try_from(place).ok()?).or(Some(0)) };
    let mut text = String::new();
    for place in 0..=i64::from(weight).max(0) {
        let shift = if weight < 0 { i64::from(weight) } else { 0 };
        text.push_str(&format!("{:04}", digit(place + shift)?));
    }
    let whole = text.trim_start_matches('0');
    let mut out =
        format!("{}{}", if sign == 0x4000 { "-" } else { "" }, if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        let mut fraction = String::new();
        let mut place = i64::from(weight) + 1;
        if weight < 0 {
            fraction.push_str(&"0000".repeat(usize::from((-1 - weight).unsigned_abs())));
            place = 0;
        }
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", digit(place)?));
            place += 1;
        }
        out.push('.');
        out.push_str(fraction.get(..scale)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in [
            "0",
            "1",
            "-1",
            "12345",
            "10000",
            "0.5",
            "0.00001",
            "123456789.0123",
            "-99999999.99",
            "100000000",
        ] {
            let mut bytes = Vec::new();
            append_binary(&mut bytes, text).unwrap();
            assert_eq!(from_binary(&bytes).as_deref(), Some(text));
        }
        assert_eq!(append_binary(&mut Vec::new(), "1x"), None);
    }
}
