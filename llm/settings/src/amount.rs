//! Durations and sizes as people write them: `"30s"`, `"1h30m"`, `"4GiB"`.
//!
//! Whole numbers with exact units only: a fraction or a rounded bound would be another number than
//! the one that is written. A number without a unit is an error, except 0.

use std::time::Duration;

/// Units of time in milliseconds, longest first. A month or a year has no fixed length.
const TIMES: [(&str, u64); 6] = [
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Units of size in bytes. Those of powers of ten stand last: sizes are written in the others.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
];

/// Reads a duration, such as `500ms`, `30s` or `1h30m`: whole numbers, each with its unit (`w`, `d`,
/// `h`, `m`, `s`, `ms`), from the longest to the shortest.
///
/// # Errors
///
/// One line without the setting's name: no duration, or one of more than 2⁶⁴ milliseconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is not a duration such as \"30s\", \"5m\" or \"1h30m\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut units, mut total) = (text, &TIMES[..], 0_u64);
    while !rest.is_empty() {
        let (number, unit, after) = part(rest).ok_or_else(refused)?;
        let at = units.iter().position(|(name, _)| *name == unit);
        let at = at.ok_or_else(refused)?;
        let more = number.and_then(|number| number.checked_mul(units[at].1));
        total = more
            .and_then(|more| total.checked_add(more))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        (rest, units) = (after, &units[at + 1..]);
    }
    match text.is_empty() {
        true => Err(refused()),
        false => Ok(Duration::from_millis(total)),
    }
}

/// Reads a size in bytes, such as `512KiB` or `4GiB`: a whole number and its unit, `B`, `KiB`, `MiB`,
/// `GiB` or `TiB` (powers of 1024), `KB`, `MB`, `GB` or `TB` (powers of 1000).
///
/// # Errors
///
/// One line without the setting's name: no size, or one of 2⁶⁴ bytes or more.
pub fn size(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not a size such as \"512KiB\" or \"4GiB\"");
    if text == "0" {
        return Ok(0);
    }
    let (number, unit, after) = part(text).ok_or_else(refused)?;
    let unit = SIZES.iter().find(|(name, _)| *name == unit);
    let (_, bytes) = unit.filter(|_| after.is_empty()).ok_or_else(refused)?;
    let size = number.and_then(|number| number.checked_mul(*bytes));
    size.ok_or_else(|| format!("`{text}` is too much"))
}

/// A duration as [`duration`] reads it, in as few units as it takes. What is shorter than a millisecond
/// is left out.
pub fn write_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, length) in TIMES {
        if rest >= length {
            text += &format!("{}{name}", rest / length);
            rest %= length;
        }
    }
    match text.is_empty() {
        true => "0s".into(),
        false => text,
    }
}

/// A size as [`size`] reads it, in the largest unit that needs no fraction.
pub fn write_size(bytes: u64) -> String {
    let binary = &SIZES[..5];
    let fits = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    match binary.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => "0B".into(),
    }
}

/// The first number of a text, unless it is over 2⁶⁴, its unit, and the rest. Digits and letters of
/// ASCII only.
fn part(text: &str) -> Option<(Option<u64>, &str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    let end = rest.find(|c: char| !c.is_ascii_alphabetic());
    let (unit, after) = rest.split_at(end.unwrap_or(rest.len()));
    (!digits.is_empty()).then(|| (digits.parse().ok(), unit, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units() {
        let check = |text: &str, ms: u64| {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        };
        check("30s", 30_000);
        check("5m", 300_000);
        check("1h30m", 5_400_000);
        check("1w2d", 9 * 24 * 3_600_000);
        check("1s500ms", 1500);
        check("0s", 0);
        check("0", 0);
        check("18446744073709551615ms", u64::MAX);
        for text in [
            "", " ", "30", "s", "-1s", "1.5h", "30 s", "30S", "1m1h", "1s1s", "1y", "٣s", "1e3s",
        ] {
            let error = duration(text).expect_err(text);
            assert!(error.contains("is not a duration"), "{text}: {error}");
        }
        for text in [
            "18446744073709551615s",
            "99999999999999999999s",
            "18446744073709551615ms1s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        let check = |text: &str, bytes: u64| assert_eq!(size(text), Ok(bytes), "{text}");
        check("4GiB", 4 << 30);
        check("512KiB", 512 << 10);
        check("1B", 1);
        check("0", 0);
        check("0MiB", 0);
        check("2GB", 2_000_000_000);
        for text in [
            "", "4", "GiB", "-4GiB", "1.5GiB", "4 GiB", "4gib", "4G", "4GiB1B", "0x4B",
        ] {
            let error = size(text).expect_err(text);
            assert!(error.contains("is not a size"), "{text}: {error}");
        }
        for text in ["99999999TiB", "18446744073709551616B", "16777216TiB"] {
            assert!(size(text).expect_err(text).contains("too much"), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for ms in [0, 1, 999, 1000, 1500, 60_000, 5_400_000, 620_000, u64::MAX] {
            let time = Duration::from_millis(ms);
            assert_eq!(duration(&write_duration(time)), Ok(time));
        }
        for bytes in [0, 1, 1000, 1024, 1536, 64 << 20, 4 << 30, u64::MAX] {
            assert_eq!(size(&write_size(bytes)), Ok(bytes));
        }
        assert_eq!(write_duration(Duration::from_secs(620)), "10m20s");
        assert_eq!(write_size(4 << 30), "4GiB");
    }
}
