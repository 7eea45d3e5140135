//! The `Date` of answers, written once a second and worker (RFC 9110 §6.6.1).

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use tollgate_base::clock;

/// A date as HTTP writes it has this many bytes.
const LENGTH: usize = 29;

thread_local! {
    static NOW: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [0; LENGTH])) };
}

/// Shows the date of this second.
pub(super) fn with_now<T>(show: impl FnOnce(&[u8]) -> T) -> T {
    let second = clock::unix_seconds();
    let mut kept = NOW.get();
    if kept.0 != second {
        kept = (second, written(second));
        NOW.set(kept);
    }
    show(&kept.1)
}

fn written(second: u64) -> [u8; LENGTH] {
    let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    text.as_bytes().try_into().unwrap_or([b'-'; LENGTH])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_date() {
        assert_eq!(&written(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        let told = with_now(|now| String::from_utf8_lossy(now).into_owned());
        let parsed = httpdate::parse_http_date(&told).expect("a date");
        assert!(
            clock::wall()
                .duration_since(parsed)
                .is_ok_and(|age| age.as_secs() < 5)
        );
    }
}
