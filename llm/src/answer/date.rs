//! Dates, as far as providers write any into answers and their heads, in seconds since 1970.
//!
//! UTC only, or an offset in hours and minutes. Fractions of seconds are dropped. `None` for text
//! in another form, and for a date before 1970.

/// In the form of RFC 3339: `2026-01-01T00:00:00Z`.
pub(crate) fn internet(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_at_checked(19)?;
    let &[
        y0,
        y1,
        y2,
        y3,
        b'-',
        m0,
        m1,
        b'-',
        d0,
        d1,
        b'T' | b't' | b' ',
        h0,
        h1,
        b':',
        n0,
        n1,
        b':',
        s0,
        s1,
    ] = date
    else {
        return None;
    };
    let local = at(
        [
            number(&[y0, y1, y2, y3])?,
            number(&[m0, m1])?,
            number(&[d0, d1])?,
        ],
        [number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?],
    )?;
    let rest = match rest.split_first() {
        Some((b'.', digits)) => {
            let count = digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            &digits[count..]
        }
        _ => rest,
    };
    match rest {
        b"Z" | b"z" => Some(local),
        &[sign @ (b'+' | b'-'), h0, h1, b':', n0, n1] => {
            let offset = number(&[h0, h1])? * 3600 + number(&[n0, n1])? * 60;
            match sign {
                b'+' => local.checked_sub(offset),
                _ => local.checked_add(offset),
            }
        }
        _ => None,
    }
}

/// The same inside a query, where colons may be written as `%3A`.
pub(crate) fn internet_in_query(text: &[u8]) -> Option<u64> {
    // A longer text is no date.
    let mut plain = [0; 32];
    let mut length = 0;
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let is_colon = rest.len() >= 3 && rest[..3].eq_ignore_ascii_case(b"%3a");
        *plain.get_mut(length)? = if is_colon { b':' } else { first };
        length += 1;
        rest = if is_colon { &rest[3..] } else { after };
    }
    internet(&plain[..length])
}

/// In the form of signed links: `20260101T000000Z`.
pub(crate) fn compact(text: &[u8]) -> Option<u64> {
    let &[
        y0,
        y1,
        y2,
        y3,
        m0,
        m1,
        d0,
        d1,
        b'T',
        h0,
        h1,
        n0,
        n1,
        s0,
        s1,
        b'Z',
    ] = text
    else {
        return None;
    };
    at(
        [
            number(&[y0, y1, y2, y3])?,
            number(&[m0, m1])?,
            number(&[d0, d1])?,
        ],
        [number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?],
    )
}

/// In the preferred form of HTTP (RFC 9110): `Thu, 01 Jan 2026 00:00:00 GMT`.
pub(crate) fn http(text: &[u8]) -> Option<u64> {
    let &[
        _,
        _,
        _,
        b',',
        b' ',
        d0,
        d1,
        b' ',
        m0,
        m1,
        m2,
        b' ',
        y0,
        y1,
        y2,
        y3,
        b' ',
        h0,
        h1,
        b':',
        n0,
        n1,
        b':',
        s0,
        s1,
        b' ',
        b'G',
        b'M',
        b'T',
    ] = text
    else {
        return None;
    };
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let month = MONTHS.iter().position(|month| **month == [m0, m1, m2])?;
    at(
        [
            number(&[y0, y1, y2, y3])?,
            month as u64 + 1,
            number(&[d0, d1])?,
        ],
        [number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?],
    )
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number * 10 + u64::from(digit))
    })
}

/// Years, months and days, and hours, minutes and seconds, from 1970 on.
fn at([year, month, day]: [u64; 3], [hour, minute, second]: [u64; 3]) -> Option<u64> {
    let is_date = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second is the next one.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    if !is_date || !is_time {
        return None;
    }
    // Years begin in March here, so that a leap day is the last of its year.
    let (years, months) = match month {
        ..3 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leaps = years / 4 - years / 100 + years / 400;
    let days = years * 365 + leaps + (months * 153 + 2) / 5 + (day - 1);
    // The days up to 1970-01-01.
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        let check =
            |text: &str, expected| assert_eq!(internet(text.as_bytes()), expected, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2000-02-29T12:34:56Z", Some(951_827_696));
        check("2026-01-01T00:00:00Z", Some(1_767_225_600));
        check("2026-01-01T00:00:00.123456Z", Some(1_767_225_600));
        check("2026-01-01T02:00:00+02:00", Some(1_767_225_600));
        check("2025-12-31T19:00:00-05:00", Some(1_767_225_600));
        check("2026-01-01T00:00:00", None);
        check("2026-13-01T00:00:00Z", None);
        check("1969-12-31T23:59:59Z", None);
        check("soon", None);
        assert_eq!(compact(b"20260101T000000Z"), Some(1_767_225_600));
        assert_eq!(compact(b"20260101T000000"), None);
        assert_eq!(
            internet_in_query(b"2026-01-01T00%3A00%3a00Z"),
            Some(1_767_225_600)
        );
        assert_eq!(http(b"Thu, 01 Jan 2026 00:00:00 GMT"), Some(1_767_225_600));
        for none in ["0", "-1", "Thu, 01 Jan 2026 00:00:00 CET", ""] {
            assert_eq!(http(none.as_bytes()), None, "{none}");
        }
    }
}
