//! Headers in and out, the decision, and the bounds of a span.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Context, Parent};
use super::propagation::{Sender, extract, inject};
use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    map
}

fn settings(wire: Wire, sampling: f64) -> Settings {
    Settings {
        wire,
        sampling,
        timeout: Duration::from_millis(500),
        service: Arc::from("gateway"),
        token: None,
    }
}

/// What goes on to the upstream from a child span.
fn carried(wire: Wire, pairs: &[(&str, &str)]) -> (Context, HeaderMap) {
    let mut map = headers(pairs);
    let context = Context::join(&settings(wire, 100.0), &mut map);
    let sender = Sender {
        span: SpanId::parse("00000000000000aa").unwrap(),
        parent: context.span,
        number: 1,
        service: "gateway",
        instance: "1@here",
        endpoint: "/v1/chat",
        peer: "vendor:443",
    };
    inject(wire, &context, &sender, &mut map);
    (context, map)
}

#[test]
fn w3c_is_carried_on_and_what_is_wrong_begins_anew() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let (context, map) = carried(Wire::OtlpGrpc, &[("traceparent", &parent), ("tracestate", "a=b")]);
    assert_eq!(context.parent, SpanId::parse(SPAN).map(Parent::Span));
    assert_eq!(map["traceparent"], format!("00-{TRACE}-00000000000000aa-01"));
    assert_eq!(map["tracestate"], "a=b");
    for wrong in [
        "".to_owned(),
        "zz".to_owned(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{TRACE}-+7ad6b7169203331-01"),
    ] {
        let (context, map) = carried(Wire::OtlpHttp, &[("traceparent", &wrong), ("tracestate", "a=b")]);
        assert_eq!(context.parent, None, "{wrong}");
        assert!(!map.contains_key("tracestate"), "{wrong}");
        assert!(!map["traceparent"].to_str().unwrap().contains(TRACE), "{wrong}");
    }
    let two = [("traceparent", parent.as_str()), ("traceparent", parent.as_str())];
    assert_eq!(carried(Wire::OtlpGrpc, &two).0.parent, None);
    // A later version may say more.
    let later = format!("01-{TRACE}-{SPAN}-00-more");
    let (context, map) = carried(Wire::OtlpGrpc, &[("traceparent", &later)]);
    assert!(!context.sampled && context.parent.is_some());
    assert_eq!(map["traceparent"], format!("00-{TRACE}-00000000000000aa-00"));
}

#[test]
fn b3_in_both_forms() {
    let many = [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "0"),
    ];
    let (context, map) = carried(Wire::Zipkin, &many);
    assert!(!context.sampled);
    assert_eq!(
        (&map["x-b3-traceid"], &map["x-b3-sampled"]),
        (&TRACE.parse().unwrap(), &"0".parse().unwrap())
    );
    assert_eq!(map["x-b3-parentspanid"], context.span.to_string());
    assert!(!map.contains_key("b3"));
    // 64-bit ids keep their length.
    let (_, map) = carried(Wire::Zipkin, &[("b3", &format!("{}-{SPAN}-d", &TRACE[16..]))]);
    assert_eq!(map["x-b3-traceid"], &TRACE[16..]);
    assert!(
        map["b3"]
            .to_str()
            .unwrap()
            .starts_with(&format!("{}-00000000000000aa-1-", &TRACE[16..]))
    );
    // The decision may come alone.
    for (pairs, sampled) in [
        ([("b3", "0")], Some(false)),
        ([("b3", "1")], Some(true)),
        ([("x-b3-sampled", "true")], Some(true)),
        ([("x-b3-flags", "1")], Some(true)),
        ([("b3", "x")], None),
        ([("x-b3-traceid", "zz")], None),
    ] {
        let found = extract(Wire::Zipkin, &mut headers(&pairs));
        assert_eq!((found.sampled, found.parent), (sampled, None), "{pairs:?}");
    }
}

#[test]
fn sw8_is_carried_on() {
    // As SkyWalking's protocol page shows it.
    let given = "1-TRACEID-U0VHSUQ=-3-U0VSVklDRQ==-SU5TVEFOQ0U=-L2FwcA==-MTI3LjAuMC4xOjgwODA=";
    let given = given.replace("TRACEID", "VFJBQ0VJRA==");
    let (context, map) = carried(
        Wire::SkyWalking,
        &[("sw8", &given), ("sw8-correlation", "YQ==:Yg==")],
    );
    let Some(Parent::Segment(segment)) = &context.parent else {
        panic!("{context:?}")
    };
    assert_eq!(
        (&*segment.trace, &*segment.id, segment.span),
        ("TRACEID", "SEGID", 3)
    );
    assert_eq!((&*segment.service, &*segment.instance), ("SERVICE", "INSTANCE"));
    assert_eq!(
        (&*segment.endpoint, &*segment.address),
        ("/app", "127.0.0.1:8080")
    );
    let back = extract(Wire::SkyWalking, &mut map.clone());
    let Some(Parent::Segment(ours)) = back.parent else {
        panic!("{map:?}")
    };
    assert_eq!(
        (&*ours.trace, &ours.id, ours.span),
        ("TRACEID", &context.segment.to_string(), 1)
    );
    assert_eq!((&*ours.endpoint, &*ours.address), ("/v1/chat", "vendor:443"));
    assert_eq!(map["sw8-correlation"], "YQ==:Yg==");
    for wrong in [
        "",
        "1",
        "2-a-b",
        &given.replace("-3-", "--1-"),
        &given.replace("U0VHSUQ=", "="),
    ] {
        assert_eq!(
            carried(Wire::SkyWalking, &[("sw8", wrong)]).0.parent,
            None,
            "{wrong}"
        );
    }
}

#[test]
fn chance_decides_only_where_the_caller_did_not() {
    for (sampling, expected) in [(0.0, false), (100.0, true)] {
        let context = Context::join(&settings(Wire::OtlpGrpc, sampling), &mut HeaderMap::new());
        assert_eq!(context.sampled, expected);
    }
    let settings = settings(Wire::OtlpGrpc, 25.0);
    let count = (0..4000)
        .filter(|_| Context::join(&settings, &mut HeaderMap::new()).sampled)
        .count();
    assert!((700..1300).contains(&count), "{count} of 4000 at 25 %");
}

#[test]
fn attributes_are_bounded() {
    let mut attributes = Attributes::default();
    attributes.set("long", "é".repeat(MAX_VALUE));
    let Some(Value::Text(text)) = attributes.get("long") else {
        panic!("{attributes:?}")
    };
    assert!(text.len() <= MAX_VALUE && text.chars().all(|character| character == 'é'));
    for number in 0..MAX_ATTRIBUTES as u64 {
        attributes.set(format!("a{number}"), number);
    }
    attributes.set("long", "short");
    assert_eq!(
        (attributes.iter().count(), attributes.dropped),
        (MAX_ATTRIBUTES, 1)
    );
    assert_eq!(attributes.get("long"), Some(&Value::from("short")));
}
