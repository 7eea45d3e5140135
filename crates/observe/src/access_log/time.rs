//! `%START_TIME(fmt)%`: strftime with Envoy's fractions (`%3f`, `%E3S`), compiled once, always UTC.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::Offset;

/// One step of a compiled time format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// The default as one step: it is in every line.
    IsoMilliseconds,
    Year,
    ShortYear,
    Month,
    Day,
    SpacedDay,
    Hour,
    TwelveHour,
    Minute,
    Second,
    DayOfYear,
    MonthName,
    MonthShort,
    WeekdayName,
    WeekdayShort,
    WeekdayNumber,
    HalfOfDay,
    EpochSeconds,
    /// This many digits of the second's fraction, cut, not rounded.
    Fraction(usize),
}

/// A compiled time format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeFormat(Vec<Part>);

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl TimeFormat {
    /// `2024-06-18T09:37:14.078Z`, what `%START_TIME%` prints without a format.
    pub(super) fn iso_milliseconds() -> Self {
        Self(vec![Part::IsoMilliseconds])
    }

    /// Reads a format; the error names the specifier that is not known.
    pub(super) fn parse(format: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character.is_control() {
                return Err("a time format cannot hold a control character".into());
            }
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut specifier = String::new();
            for next in characters.by_ref() {
                specifier.push(next);
                if next != 'E' && next != '*' && !next.is_ascii_digit() {
                    break;
                }
            }
            let found = specify(&specifier).ok_or_else(|| format!("unknown time specifier %{specifier}"))?;
            for part in found {
                match part {
                    Part::Text(literal) => text.push_str(&literal),
                    other => {
                        flush(&mut text, &mut parts);
                        parts.push(other);
                    }
                }
            }
        }
        flush(&mut text, &mut parts);
        Ok(Self(parts))
    }

    /// Appends `time`. Only ASCII digits and the format's own text come out.
    pub(super) fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        if self.0 == [Part::IsoMilliseconds]
            && let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH)
        {
            return iso_milliseconds(since, out);
        }
        let timestamp = jiff::Timestamp::try_from(time).unwrap_or_default();
        let civil = Offset::UTC.to_datetime(timestamp);
        for part in &self.0 {
            part.write(timestamp, &civil, out);
        }
    }
}

thread_local! {
    /// The last second that was written: all lines of a second begin alike.
    static SECOND: Cell<(u64, [u8; ISO_SECOND])> = const { Cell::new((u64::MAX, [0; ISO_SECOND])) };
}

/// Bytes of `2024-06-18T09:37:14`.
const ISO_SECOND: usize = 19;

fn iso_milliseconds(since_epoch: Duration, out: &mut Vec<u8>) {
    let second = since_epoch.as_secs();
    let mut kept = SECOND.get();
    if kept.0 != second {
        let mut text = Vec::with_capacity(ISO_SECOND + 8);
        let timestamp = i64::try_from(second).ok();
        let timestamp = timestamp.and_then(|second| jiff::Timestamp::from_second(second).ok());
        let timestamp = timestamp.unwrap_or_default();
        Part::IsoMilliseconds.write(timestamp, &Offset::UTC.to_datetime(timestamp), &mut text);
        let cut = text.get(..ISO_SECOND).and_then(|text| text.try_into().ok());
        kept = (second, cut.unwrap_or([b'0'; ISO_SECOND]));
        SECOND.set(kept);
    }
    out.extend_from_slice(&kept.1);
    let milliseconds = since_epoch.subsec_millis();
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or_default();
    let [hundreds, tens, ones] = [milliseconds / 100, milliseconds / 10, milliseconds].map(digit);
    out.extend_from_slice(&[b'.', hundreds, tens, ones, b'Z']);
}

fn flush(text: &mut String, parts: &mut Vec<Part>) {
    if !text.is_empty() {
        parts.push(Part::Text(std::mem::take(text).into()));
    }
}

/// The parts behind one specifier, given without its `%`.
fn specify(specifier: &str) -> Option<Vec<Part>> {
    let text = |text: &str| Part::Text(text.into());
    let one = |part: Part| Some(vec![part]);
    match specifier {
        "Y" | "E4Y" => one(Part::Year),
        "y" => one(Part::ShortYear),
        "m" => one(Part::Month),
        "d" => one(Part::Day),
        "e" => one(Part::SpacedDay),
        "H" => one(Part::Hour),
        "I" => one(Part::TwelveHour),
        "M" => one(Part::Minute),
        "S" => one(Part::Second),
        "j" => one(Part::DayOfYear),
        "B" => one(Part::MonthName),
        "b" | "h" => one(Part::MonthShort),
        "A" => one(Part::WeekdayName),
        "a" => one(Part::WeekdayShort),
        "w" => one(Part::WeekdayNumber),
        "p" => one(Part::HalfOfDay),
        "s" => one(Part::EpochSeconds),
        "f" | "E*f" => one(Part::Fraction(9)),
        "E*S" => Some(vec![Part::Second, text("."), Part::Fraction(9)]),
        "Z" => one(text("UTC")),
        "z" => one(text("+0000")),
        "Ez" => one(text("+00:00")),
        "t" => one(text(" ")),
        "%" => one(text("%")),
        "F" => Some(vec![Part::Year, text("-"), Part::Month, text("-"), Part::Day]),
        "D" => Some(vec![
            Part::Month,
            text("/"),
            Part::Day,
            text("/"),
            Part::ShortYear,
        ]),
        "T" => Some(vec![Part::Hour, text(":"), Part::Minute, text(":"), Part::Second]),
        "R" => Some(vec![Part::Hour, text(":"), Part::Minute]),
        other => fraction(other),
    }
}

/// `3f`, `E3f` and `E3S`: a number of digits from 1 to 9.
fn fraction(specifier: &str) -> Option<Vec<Part>> {
    let extended = specifier.strip_prefix('E');
    let body = extended.unwrap_or(specifier);
    let digits = |body: &str| body.parse().ok().filter(|digits| (1..=9).contains(digits));
    if let Some(count) = body.strip_suffix('f').and_then(digits) {
        return Some(vec![Part::Fraction(count)]);
    }
    let count = extended?.strip_suffix('S').and_then(digits)?;
    Some(vec![Part::Second, Part::Text(".".into()), Part::Fraction(count)])
}

impl Part {
    fn write(&self, timestamp: jiff::Timestamp, civil: &DateTime, out: &mut Vec<u8>) {
        let weekday = || civil.weekday().to_sunday_zero_offset();
        match self {
            Part::Text(text) => out.extend_from_slice(text.as_bytes()),
            Part::IsoMilliseconds => {
                padded(i64::from(civil.year()), 4, out);
                let [month, day] =
                    [civil.month(), civil.day()].map(|value| [digit(value / 10), digit(value)]);
                let [hour, minute, second] = [civil.hour(), civil.minute(), civil.second()]
                    .map(|value| [digit(value / 10), digit(value)]);
                let milliseconds = civil.subsec_nanosecond() / 1_000_000;
                let [tens, ones] = [milliseconds / 10 % 10, milliseconds % 10].map(decimal);
                out.extend_from_slice(&[
                    b'-',
                    month[0],
                    month[1],
                    b'-',
                    day[0],
                    day[1],
                    b'T',
                    hour[0],
                    hour[1],
                    b':',
                    minute[0],
                    minute[1],
                    b':',
                    second[0],
                    second[1],
                    b'.',
                    decimal(milliseconds / 100),
                    tens,
                    ones,
                    b'Z',
                ]);
            }
            Part::Year => padded(i64::from(civil.year()), 4, out),
            Part::ShortYear => padded(i64::from(civil.year()).rem_euclid(100), 2, out),
            Part::Month => two_digits(civil.month(), out),
            Part::Day => two_digits(civil.day(), out),
            Part::SpacedDay if civil.day() < 10 => out.extend_from_slice(&[b' ', digit(civil.day())]),
            Part::SpacedDay => two_digits(civil.day(), out),
            Part::Hour => two_digits(civil.hour(), out),
            Part::TwelveHour => two_digits((civil.hour() + 11) % 12 + 1, out),
            Part::Minute => two_digits(civil.minute(), out),
            Part::Second => two_digits(civil.second(), out),
            Part::DayOfYear => padded(i64::from(civil.day_of_year()), 3, out),
            Part::MonthName => out.extend_from_slice(name(&MONTHS, civil.month() - 1).as_bytes()),
            Part::MonthShort => out.extend_from_slice(short(&MONTHS, civil.month() - 1)),
            Part::WeekdayName => out.extend_from_slice(name(&WEEKDAYS, weekday()).as_bytes()),
            Part::WeekdayShort => out.extend_from_slice(short(&WEEKDAYS, weekday())),
            Part::WeekdayNumber => out.push(digit(weekday())),
            Part::HalfOfDay => out.extend_from_slice(if civil.hour() < 12 { b"AM" } else { b"PM" }),
            Part::EpochSeconds => padded(timestamp.as_second(), 1, out),
            Part::Fraction(digits) => {
                let cut = 10_i64.pow(9 - u32::try_from(*digits).unwrap_or(9));
                padded(i64::from(civil.subsec_nanosecond()) / cut, *digits, out);
            }
        }
    }
}

fn name<'a>(names: &[&'a str], index: i8) -> &'a str {
    usize::try_from(index)
        .ok()
        .and_then(|index| names.get(index).copied())
        .unwrap_or_default()
}

fn short<'a>(names: &[&'a str], index: i8) -> &'a [u8] {
    name(names, index).as_bytes().get(..3).unwrap_or_default()
}

/// The last digit of a number that is not negative.
fn digit(value: i8) -> u8 {
    b'0' + (value % 10).unsigned_abs()
}

fn decimal(value: i32) -> u8 {
    b'0' + u8::try_from(value).unwrap_or_default()
}

fn two_digits(value: i8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

fn padded(value: i64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    for _ in digits.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(format: &str, milliseconds: u64) -> String {
        let mut out = Vec::new();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        TimeFormat::parse(format).unwrap().write(time, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// 2024-06-18T09:37:14.078Z, a Tuesday.
    const SAMPLE: u64 = 1_718_703_434_078;

    #[test]
    fn the_default_is_iso_with_milliseconds() {
        let mut out = Vec::new();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(SAMPLE);
        TimeFormat::iso_milliseconds().write(time, &mut out);
        assert_eq!(out, b"2024-06-18T09:37:14.078Z");
        // The same second, the next one, and the first again.
        for (later, expected) in [(900, "14.978Z"), (930, "15.008Z"), (0, "14.078Z")] {
            out.clear();
            TimeFormat::iso_milliseconds().write(time + Duration::from_millis(later), &mut out);
            assert_eq!(
                String::from_utf8_lossy(&out),
                format!("2024-06-18T09:37:{expected}")
            );
        }
    }

    #[test]
    fn every_specifier() {
        assert_eq!(
            at("%Y/%m/%dT%H:%M:%S%z %s", SAMPLE),
            "2024/06/18T09:37:14+0000 1718703434"
        );
        assert_eq!(at("%F %T %D %R", SAMPLE), "2024-06-18 09:37:14 06/18/24 09:37");
        assert_eq!(
            at("%a %A %b %B %h %e %j %w %y", SAMPLE),
            "Tue Tuesday Jun June Jun 18 170 2 24"
        );
        assert_eq!(at("%I %p|%Z|%Ez|%%|%t|", SAMPLE), "09 AM|UTC|+00:00|%| |");
        assert_eq!(
            at("%3f %6f %9f %f %1f %E3f", SAMPLE),
            "078 078000 078000000 078000000 0 078"
        );
        assert_eq!(
            at("%E3S %E*S %s.%3f", SAMPLE),
            "14.078 14.078000000 1718703434.078"
        );
        assert_eq!(at("%I%p", SAMPLE + 5 * 3_600_000), "02PM");
        assert_eq!(at("%e|%I", 1_717_200_000_000), " 1|12", "1 June, midnight");
    }

    #[test]
    fn an_unknown_specifier_is_named() {
        assert_eq!(
            TimeFormat::parse("%Y %Q").unwrap_err(),
            "unknown time specifier %Q"
        );
        assert_eq!(
            TimeFormat::parse("%0f").unwrap_err(),
            "unknown time specifier %0f"
        );
        assert_eq!(TimeFormat::parse("%").unwrap_err(), "unknown time specifier %");
        assert!(TimeFormat::parse("%Y\n").is_err());
    }

    #[test]
    fn a_time_out_of_range_is_no_panic() {
        let mut out = Vec::new();
        let long_ago = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
        TimeFormat::iso_milliseconds().write(long_ago, &mut out);
        assert_eq!(out, b"1969-12-31T23:59:59.999Z");
    }
}
