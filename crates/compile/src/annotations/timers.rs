//! `timeout` and our own five `tollgate.dev/timeout-*`: how long each part of an answer may take.
//!
//! Durations are written `500ms`, `30s`, `2m`; `0s` turns a timer off, a default included.

use std::time::Duration;

use tollgate_snapshot::Settings;
use tollgate_snapshot::policy::Timers;

use super::reader::{LONGEST, Reader};
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("timeout", Under::Higress),
        ("timeout-connect", Under::Tollgate),
        ("timeout-response-head", Under::Tollgate),
        ("timeout-first-event", Under::Tollgate),
        ("timeout-silence", Under::Tollgate),
        ("timeout-total", Under::Tollgate),
    ],
    read,
};

/// The timers as written: absent is the default, zero is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WrittenTimers {
    connect: Option<Duration>,
    response_head: Option<Duration>,
    first_event: Option<Duration>,
    silence: Option<Duration>,
    total: Option<Duration>,
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let seconds = reader.higress_number("timeout").and_then(|seconds| {
        let seconds = u64::try_from(seconds).ok();
        if seconds.is_none() {
            reader.note_key("timeout", "must not be negative: ignored");
        }
        // Zero is "not set" here, so that a default for all routes still counts.
        seconds
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST))
    });
    features.timers = WrittenTimers {
        connect: reader.tollgate_duration("timeout-connect"),
        response_head: reader.tollgate_duration("timeout-response-head"),
        first_event: reader.tollgate_duration("timeout-first-event"),
        silence: reader.tollgate_duration("timeout-silence"),
        total: reader.tollgate_duration("timeout-total").or(seconds),
    };
}

impl WrittenTimers {
    /// What is written wins over the defaults for all routes.
    pub(crate) fn resolve(&self, settings: &Settings, default_total: Option<Duration>) -> Timers {
        let on = |duration: &Duration| !duration.is_zero();
        Timers {
            connect: self.connect.or(Some(settings.connect_timeout)).filter(on),
            response_head: self.response_head.filter(on),
            first_event: self.first_event.filter(on),
            silence: self.silence.filter(on),
            total: self.total.or(default_total).filter(on),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn timers(entries: &[(&str, &str)], default_total: Option<Duration>) -> Timers {
        read_from(entries)
            .0
            .timers
            .resolve(&Settings::default(), default_total)
    }

    #[test]
    fn five_timers_and_their_defaults() {
        let none = timers(&[], None);
        assert_eq!(none.connect, Some(Duration::from_secs(10)));
        assert_eq!((none.response_head, none.silence, none.total), (None, None, None));
        let all = timers(
            &[
                ("tollgate.dev/timeout-connect", "500ms"),
                ("tollgate.dev/timeout-response-head", "30s"),
                ("tollgate.dev/timeout-first-event", "1m"),
                ("tollgate.dev/timeout-silence", "5s"),
                ("higress.io/timeout", "7"),
            ],
            None,
        );
        assert_eq!(all.connect, Some(Duration::from_millis(500)));
        assert_eq!(all.response_head, Some(Duration::from_secs(30)));
        assert_eq!(all.first_event, Some(Duration::from_secs(60)));
        assert_eq!(all.silence, Some(Duration::from_secs(5)));
        assert_eq!(all.total, Some(Duration::from_secs(7)));
    }

    #[test]
    fn the_annotation_beats_the_default_for_all_routes_and_zero_turns_off() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(timers(&[], minute).total, minute);
        assert_eq!(timers(&[("higress.io/timeout", "0")], minute).total, minute);
        assert_eq!(
            timers(&[("higress.io/timeout", "5")], minute).total,
            Some(Duration::from_secs(5))
        );
        assert_eq!(
            timers(&[("tollgate.dev/timeout-total", "0s")], minute).total,
            None
        );
        assert_eq!(
            timers(&[("tollgate.dev/timeout-connect", "0s")], None).connect,
            None
        );
    }

    #[test]
    fn bad_values_are_told() {
        for (key, value) in [
            ("higress.io/timeout", "5s"),
            ("higress.io/timeout", "-1"),
            ("tollgate.dev/timeout-silence", "5"),
        ] {
            let (features, notes) = read_from(&[(key, value)]);
            assert_eq!(features.timers, WrittenTimers::default());
            assert_eq!(notes.len(), 1, "{key} {value}");
            assert_eq!(notes[0].key, key);
        }
    }
}
