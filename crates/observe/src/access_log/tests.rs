//! Lines byte for byte, every operator set and unset, hostile values, bad formats.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Version};
use serde_json::Value;
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Flag, Termination, Timer};

use super::*;
use crate::Record;
use crate::record::{Connection, Original};

fn record_of(path: &str) -> Record {
    let connection = Connection {
        id: 42,
        peer: "10.0.0.9:51234".parse().unwrap(),
        local: "10.0.0.1:80".parse().unwrap(),
        server_name: Some(Arc::from("api.example.com")),
        tls: true,
    };
    let original = Original {
        method: Method::POST,
        authority: Arc::from("api.example.com"),
        path: path.parse().unwrap(),
        version: Version::HTTP_11,
    };
    let id = HeaderValue::from_static("8f3e5c1a-0000-4000-8000-000000000001");
    let mut record = Record::new(Rc::new(connection), original, id, clock::now());
    record.start_time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_718_703_434_078);
    record
}

fn request_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl/8.5.0"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.9"));
    headers.insert("authorization", HeaderValue::from_static("Bearer sk-secret"));
    headers
}

/// A record of a whole exchange, captured by `format`, and the moment of its end.
fn filled(format: &Format) -> (Record, Instant) {
    let record = record_of("/v1/chat/completions?a=1");
    let authority = "api.example.com";
    format.capture_request(
        &record,
        &Method::POST,
        authority,
        "/v1/chat/completions?a=1",
        &request_headers(),
    );
    let after = |milliseconds| Some(record.started + Duration::from_millis(milliseconds));
    record.timings.upstream_started.set(after(2));
    record.timings.request_sent.set(after(3));
    record.timings.response_head.set(after(133));
    record.arm.replace(Some("canary".into()));
    record.timings.first_event.set(after(150));
    *record.route.borrow_mut() = Some(Arc::from("qwen"));
    *record.cluster.borrow_mut() = Some(Arc::from("outbound|443||qwen.dns"));
    record.upstream_peer.set(Some("47.1.2.3:443".parse().unwrap()));
    record
        .upstream_local
        .set(Some("[2001:db8::7]:40000".parse().unwrap()));
    record.attempts.set(2);
    *record.consumer.borrow_mut() = Some(Arc::from("alice"));
    record.status.set(200);
    *record.details.borrow_mut() = "via_upstream".into();
    record.bytes_received.set(128);
    record.bytes_sent.set(4096);
    record.terminate(Termination::Completed);
    record.set_filter_state("wasm.ai_log", r#"{\"model\":\"qwen-max-0403\"}"#.into());
    record.set_metadata("istio.mixer:status", "OK".into());
    let ended = record.started + Duration::from_millis(1234);
    (record, ended)
}

fn line(format: &Format, record: &Record, ended: Instant) -> String {
    let mut out = Vec::new();
    format.write(record, ended, &mut out);
    String::from_utf8(out).unwrap()
}

/// What `text` prints for the filled record.
fn printed(text: &str) -> String {
    let format = Format::parse(text).unwrap();
    let (record, ended) = filled(&format);
    line(&format, &record, ended).trim_end_matches('\n').to_owned()
}

/// What `text` prints for a request that reached nothing: no headers, no upstream, no TLS.
fn printed_bare(text: &str) -> String {
    let format = Format::parse(text).unwrap();
    let connection = Connection {
        id: 1,
        peer: "[::ffff:10.0.0.9]:5".parse().unwrap(),
        local: "[::1]:80".parse().unwrap(),
        server_name: None,
        tls: false,
    };
    let whole = record_of("/");
    let record = Record::new(
        Rc::new(connection),
        whole.original.clone(),
        whole.request_id.clone(),
        whole.started,
    );
    line(&format, &record, record.started)
        .trim_end_matches('\n')
        .to_owned()
}

#[test]
fn the_default_line_byte_for_byte() {
    let format = Format::higress_default();
    let (record, ended) = filled(&format);
    let expected = concat!(
        r#"{"ai_log":"{\"model\":\"qwen-max-0403\"}","authority":"api.example.com","bytes_received":"128","#,
        r#""bytes_sent":"4096","downstream_local_address":"10.0.0.1:80","#,
        r#""downstream_remote_address":"10.0.0.9:51234","duration":"1234","istio_policy_status":"OK","#,
        r#""method":"POST","path":"/v1/chat/completions?a=1","protocol":"HTTP/1.1","#,
        r#""request_id":"8f3e5c1a-0000-4000-8000-000000000001","requested_server_name":"api.example.com","#,
        r#""response_code":"200","response_flags":"-","route_name":"qwen","#,
        r#""start_time":"2024-06-18T09:37:14.078Z","trace_id":"-","upstream_cluster":"outbound|443||qwen.dns","#,
        r#""upstream_host":"47.1.2.3:443","upstream_local_address":"[2001:db8::7]:40000","#,
        r#""upstream_service_time":"130","upstream_transport_failure_reason":"-","user_agent":"curl/8.5.0","#,
        r#""x_forwarded_for":"10.0.0.9","response_code_details":"via_upstream"}"#,
        "\n"
    );
    assert_eq!(line(&format, &record, ended), expected);
}

#[test]
fn the_default_line_of_a_request_that_reached_nothing() {
    let text = printed_bare(HIGRESS_DEFAULT);
    let object: Value = serde_json::from_str(&text).unwrap();
    let set = [
        ("authority", "api.example.com"),
        ("bytes_received", "0"),
        ("bytes_sent", "0"),
        ("downstream_local_address", "[::1]:80"),
        ("downstream_remote_address", "10.0.0.9:5"),
        ("duration", "0"),
        ("method", "POST"),
        ("path", "/"),
        ("protocol", "HTTP/1.1"),
        ("request_id", "8f3e5c1a-0000-4000-8000-000000000001"),
        ("response_code", "0"),
    ];
    for (key, value) in object.as_object().unwrap() {
        if key == "start_time" {
            continue;
        }
        let expected = set.iter().find(|row| row.0 == key).map_or("-", |row| row.1);
        assert_eq!(value, expected, "{key}");
    }
    assert_eq!(object.as_object().unwrap().len(), 26);
}

#[test]
fn the_default_needs_few_slots() {
    let format = Format::higress_default();
    let names: Vec<_> = format.request_headers().collect();
    assert_eq!(
        names,
        [":method", "x-b3-traceid", "user-agent", "x-forwarded-for"]
    );
    let names: Vec<_> = format.response_headers().collect();
    assert_eq!(names, ["x-envoy-upstream-service-time"]);
    assert!(format.unavailable().is_empty());
}

/// Operator, what the filled record prints, what the bare one prints.
const OPERATORS: &[(&str, &str, &str)] = &[
    ("%%", "%", "%"),
    ("%PROTOCOL%", "HTTP/1.1", "HTTP/1.1"),
    (
        "%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)%",
        "POST api.example.com /v1/chat/completions?a=1",
        "POST api.example.com /",
    ),
    (
        "%REQ(HOST)% %REQ(:SCHEME)%",
        "api.example.com https",
        "api.example.com http",
    ),
    (
        "%REQ(X-ENVOY-ORIGINAL-PATH)% %REQ(X-ENVOY-ORIGINAL-HOST)%",
        "- -",
        "- -",
    ),
    ("%REQ(User-Agent)%", "curl/8.5.0", "-"),
    (
        "%REQ(USER-AGENT):4%|%REQ(USER-AGENT):99%|%REQ(USER-AGENT):0%",
        "curl|curl/8.5.0|",
        "-|-|-",
    ),
    (
        "%REQ(NONE?USER-AGENT)% %REQ(USER-AGENT?NONE)%",
        "curl/8.5.0 curl/8.5.0",
        "- -",
    ),
    (
        "%REQ(X-REQUEST-ID)%",
        "8f3e5c1a-0000-4000-8000-000000000001",
        "8f3e5c1a-0000-4000-8000-000000000001",
    ),
    ("%REQ(AUTHORIZATION)%", "***", "-"),
    ("%RESP(CONTENT-TYPE)% %TRAILER(X-SUM)%", "- -", "- -"),
    ("%RESP(:STATUS)%", "200", "0"),
    ("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "130", "-"),
    (
        "%FILTER_STATE(wasm.ai_log:PLAIN)%",
        r#"{\"model\":\"qwen-max-0403\"}"#,
        "-",
    ),
    ("%FILTER_STATE(wasm.ai_log:TYPED):9%", r#"{\"model\"#, "-"),
    ("%FILTER_STATE(wasm.none:PLAIN)%", "-", "-"),
    ("%DYNAMIC_METADATA(istio.mixer:status)%", "OK", "-"),
    (
        "%START_TIME(%Y/%m/%d %H:%M:%S.%3f %s)%",
        "2024/06/18 09:37:14.078 1718703434",
        "",
    ),
    ("%DURATION%", "1234", "0"),
    ("%REQUEST_DURATION% %REQUEST_TX_DURATION%", "3 3", "- -"),
    ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "133 1101", "- -"),
    ("%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%", "131000", "-"),
    ("%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:ns)%", "150000000", "-"),
    ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%", "1234", "0"),
    ("%BYTES_RECEIVED% %BYTES_SENT%", "128 4096", "0 0"),
    (
        "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%",
        "200 via_upstream",
        "0 -",
    ),
    ("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "- -", "- -"),
    ("%ROUTE_NAME%", "qwen", "-"),
    ("%REQUESTED_SERVER_NAME%", "api.example.com", "-"),
    ("%CONNECTION_ID%", "42", "1"),
    (
        "%STREAM_ID%",
        "8f3e5c1a-0000-4000-8000-000000000001",
        "8f3e5c1a-0000-4000-8000-000000000001",
    ),
    ("%ACCESS_LOG_TYPE%", "DownstreamEnd", "DownstreamEnd"),
    (
        "%GRPC_STATUS% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
        "- - -",
        "- - -",
    ),
    (
        "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%",
        "10.0.0.1:80 10.0.0.1 80",
        "[::1]:80 ::1 80",
    ),
    (
        "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%",
        "10.0.0.9:51234 10.0.0.9 51234",
        "10.0.0.9:5 10.0.0.9 5",
    ),
    (
        "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_PORT%",
        "10.0.0.9:51234 10.0.0.9 51234",
        "10.0.0.9:5 10.0.0.9 5",
    ),
    (
        "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_LOCAL_PORT%",
        "10.0.0.1:80 10.0.0.1 80",
        "[::1]:80 ::1 80",
    ),
    (
        "%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%",
        "outbound|443||qwen.dns outbound|443||qwen.dns",
        "- -",
    ),
    (
        "%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS%",
        "47.1.2.3:443 47.1.2.3:443",
        "- -",
    ),
    (
        "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%",
        "47.1.2.3 443",
        "- -",
    ),
    (
        "%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %UPSTREAM_LOCAL_PORT%",
        "[2001:db8::7]:40000 2001:db8::7 40000",
        "- - -",
    ),
    // Set: tests/traces.rs.
    ("%TRACE_ID% %SPAN_ID%", "- -", "- -"),
    ("%UPSTREAM_TRANSPORT_FAILURE_REASON%", "-", "-"),
    ("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "2", "0"),
    (
        "%TOLLGATE(termination)% %TOLLGATE(consumer)% %TOLLGATE(arm)% %TOLLGATE(attempts)% %TOLLGATE(first_event)%",
        "completed alice canary 2 150",
        "- - - 0 -",
    ),
    ("%UPSTREAM_PROTOCOL% %DOWNSTREAM_TLS_VERSION%", "- -", "- -"),
];

#[test]
fn every_operator_set_and_unset() {
    for (text, filled, bare) in OPERATORS {
        assert_eq!(printed(text), *filled, "{text}");
        if !text.contains("START_TIME") {
            assert_eq!(printed_bare(text), *bare, "{text}");
        }
    }
}

#[test]
fn no_operator_of_the_table_is_left_untested() {
    let elsewhere = ["EMIT_TIME", "HOSTNAME"];
    for doc in operators().filter(|doc| doc.available && !elsewhere.contains(&doc.name)) {
        let tested = |row: &&(&str, &str, &str)| {
            row.0.contains(&format!("%{}%", doc.name)) || row.0.contains(&format!("%{}(", doc.name))
        };
        assert!(OPERATORS.iter().any(|row| tested(&row)), "{}", doc.name);
    }
}

#[test]
fn host_name_and_time_of_writing() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(printed("%HOSTNAME%"), host.trim());
    let before = clock::unix_seconds();
    let second: u64 = printed("%EMIT_TIME(%s)%").parse().unwrap();
    assert!((before..=clock::unix_seconds()).contains(&second));
    assert!(printed("%EMIT_TIME%").ends_with('Z'));
}

#[test]
fn credentials_in_headers_and_parameters_are_covered() {
    let text =
        "%REQ(APIKEY)% %REQ(OTHER)% %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(X-MSE-CONSUMER)%";
    let format = Format::parse(text).unwrap();
    let record = record_of("/p?a=1&api%6Bey=s3cret&apikey&b=apikey");
    let mut headers = HeaderMap::new();
    headers.insert("apikey", HeaderValue::from_static("s3cret"));
    headers.insert("other", HeaderValue::from_static("o"));
    let path = "/p?a=1&api%6Bey=s3cret&apikey&b=apikey";
    format.capture_request(&record, &Method::GET, "a", path, &headers);
    record.hide(&"ApiKey".into());
    record.hide(&"apikey".into());
    *record.consumer.borrow_mut() = Some("alice".into());
    let covered = "/p?a=1&api%6Bey=***&apikey&b=apikey";
    assert_eq!(
        line(&format, &record, record.started),
        format!("*** o {covered} {covered} alice\n")
    );
}

#[test]
fn every_header_that_carries_credentials_is_covered() {
    for name in [
        "authorization",
        "x-authorization",
        "x-hi-original-auth",
        "x-auth-token",
        "x-amz-security-token",
    ] {
        let format = Format::parse(&format!("%REQ({name})%")).unwrap();
        let record = record_of("/");
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static("s3cret"));
        format.capture_request(&record, &Method::GET, "a", "/", &headers);
        assert_eq!(line(&format, &record, record.started), "***\n", "{name}");
    }
}

#[test]
fn what_plugins_changed_shows_as_sent_and_as_came() {
    let text = "%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-HOST)% \
                %REQ(X-ENVOY-ORIGINAL-PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(X-MSE-CONSUMER)%";
    let format = Format::parse(text).unwrap();
    let record = record_of("/old?q");
    let mut headers = HeaderMap::new();
    // A client's claim about its own original path is not believed.
    headers.insert("x-envoy-original-path", HeaderValue::from_static("/forged"));
    format.capture_request(&record, &Method::POST, "api.example.com", "/old?q", &headers);
    assert_eq!(
        line(&format, &record, record.started),
        "POST api.example.com /old?q - - /old?q -\n"
    );
    headers.insert("x-mse-consumer", HeaderValue::from_static("alice"));
    format.capture_request(&record, &Method::PUT, "up.example.net", "/new", &headers);
    let expected = "PUT up.example.net /new api.example.com /old?q /old?q alice\n";
    assert_eq!(line(&format, &record, record.started), expected);
}

#[test]
fn answers_headers_and_trailers() {
    let format = Format::parse(
        "%RESP(X-A?X-B)% %RESP(SET-COOKIE)% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% %TRAILER(X-SUM?X-B)% %GRPC_STATUS% \
         %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%",
    )
    .unwrap();
    let (record, ended) = filled(&format);
    let mut headers = HeaderMap::new();
    headers.insert("x-b", HeaderValue::from_static("b"));
    headers.insert("set-cookie", HeaderValue::from_static("session=1"));
    headers.insert("x-envoy-upstream-service-time", HeaderValue::from_static("77"));
    headers.insert("grpc-status", HeaderValue::from_static("0"));
    format.capture_response(&record, &headers);
    assert_eq!(line(&format, &record, ended), "b *** 77 - OK OK 0\n");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("14"));
    trailers.insert("x-sum", HeaderValue::from_static("5"));
    format.capture_trailers(&record, &trailers);
    assert_eq!(
        line(&format, &record, ended),
        "b *** 77 5 Unavailable UNAVAILABLE 14\n"
    );
    trailers.insert("grpc-status", HeaderValue::from_static("99"));
    format.capture_trailers(&record, &trailers);
    assert_eq!(line(&format, &record, ended), "b *** 77 5 99 99 99\n");
}

#[test]
fn a_sensitive_value_is_not_kept() {
    let format = Format::parse("%REQ(X-TOKEN)%").unwrap();
    let record = record_of("/");
    let mut headers = HeaderMap::new();
    let mut secret = HeaderValue::from_static("sk-1");
    secret.set_sensitive(true);
    headers.insert("x-token", secret);
    format.capture_request(&record, &Method::POST, "", "/", &headers);
    assert_eq!(line(&format, &record, record.started), "***\n");
}

#[test]
fn flags_details_failure_and_timeouts() {
    let format = Format::parse(
        "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% \
         %TOLLGATE(termination)%",
    )
    .unwrap();
    let record = record_of("/");
    record.flag(Flag::RetriesExhausted);
    record.flag(Flag::UpstreamConnectFailure);
    *record.details.borrow_mut() = "upstream reset".into();
    *record.upstream_failure.borrow_mut() = Some("TLS: bad\ncertificate".into());
    record.terminate(Termination::Timeout(Timer::FirstEvent));
    let expected = "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded upstream_reset \
                    TLS:_bad\\ncertificate timeout_first_event\n";
    assert_eq!(line(&format, &record, record.started), expected);
}

#[test]
fn a_service_time_when_the_upstream_answers_early() {
    let format = Format::parse("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%").unwrap();
    let record = record_of("/");
    let after = |milliseconds| Some(record.started + Duration::from_millis(milliseconds));
    record.timings.upstream_started.set(after(2));
    record.timings.response_head.set(after(12));
    assert_eq!(line(&format, &record, record.started), "10\n");
    record.timings.request_sent.set(after(500));
    assert_eq!(line(&format, &record, record.started), "10\n");
}

#[test]
fn hostile_values_stay_inside_their_field() {
    let format = Format::higress_default();
    let record = record_of("/x\",\"y\":\"z?%22,%22admin&=\\");
    let mut headers = HeaderMap::new();
    let attack = br#"x","response_code":"200","forged":"\"#;
    headers.insert("user-agent", HeaderValue::from_bytes(attack).unwrap());
    headers.insert(
        "x-forwarded-for",
        HeaderValue::from_bytes(b"a\tb\xff\xfe").unwrap(),
    );
    format.capture_request(&record, &Method::POST, "api.example.com", "/", &headers);
    *record.upstream_failure.borrow_mut() = Some("line one\r\n{\"line\":\"two\"}".into());
    record.set_filter_state("wasm.ai_log", "\"},\n{\"forged\":\"".into());
    let text = line(&format, &record, record.started);
    assert_eq!(text.matches('\n').count(), 1);
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["user_agent"], r#"x","response_code":"200","forged":"\"#);
    assert_eq!(object["x_forwarded_for"], "a\tb\u{fffd}\u{fffd}");
    assert_eq!(object["path"], r#"/x","y":"z?%22,%22admin&=\"#);
    assert_eq!(object["ai_log"], "\"},\n{\"forged\":\"");
    assert_eq!(object["response_code"], "0");
    assert!(object.get("forged").is_none());
    assert_eq!(
        object["upstream_transport_failure_reason"],
        "line_one\r\n{\"line\":\"two\"}"
    );
}

#[test]
fn places_of_a_json_shaped_text() {
    let text = r#"{"code":%RESPONSE_CODE%,"t":%START_TIME(%Y)%,"ua":%REQ(USER-AGENT)%,"none":%REQ(NONE)%,"ai":"%FILTER_STATE(wasm.ai_log:PLAIN)%","n":%FILTER_STATE(n)%,"o":%FILTER_STATE(o)%,"bad":%FILTER_STATE(bad)%,"host":%UPSTREAM_HOST%,"\"q%RESPONSE_CODE%":"100%%"}"#;
    let format = Format::parse(text).unwrap();
    let (record, ended) = filled(&format);
    record.set_filter_state("n", "12".into());
    record.set_filter_state("o", r#"{"a":[1]}"#.into());
    record.set_filter_state("bad", "12,\"x\":1".into());
    let expected = r#"{"code":200,"t":"2024","ua":"curl/8.5.0","none":"-","ai":"{\"model\":\"qwen-max-0403\"}","n":12,"o":{"a":[1]},"bad":"12,\"x\":1","host":"47.1.2.3:443","\"q200":"100%"}"#;
    let printed = line(&format, &record, ended);
    assert_eq!(printed.trim_end(), expected);
    serde_json::from_str::<Value>(&printed).unwrap();
}

#[test]
fn an_escaped_quote_in_the_format_ends_no_string() {
    let expected = r#"{"\"curl/8.5.0":"\\","x":"curl/8.5.0"}"#;
    assert_eq!(
        printed(r#"{"\"%REQ(USER-AGENT)%":"\\","x":%REQ(USER-AGENT)%}"#),
        expected
    );
}

#[test]
fn a_plain_text_escapes_between_quotes_only() {
    let format = Format::parse("%REQ(X)% \"%REQ(X)%\"\n").unwrap();
    let record = record_of("/");
    let mut headers = HeaderMap::new();
    headers.insert("x", HeaderValue::from_static("a\"b\\c"));
    format.capture_request(&record, &Method::POST, "", "/", &headers);
    assert_eq!(
        line(&format, &record, record.started),
        "a\"b\\c \"a\\\"b\\\\c\"\n"
    );
}

#[test]
fn a_length_cuts_between_characters() {
    let format = Format::parse("%FILTER_STATE(k:PLAIN):4%|%FILTER_STATE(k:PLAIN):1%").unwrap();
    let record = record_of("/");
    record.set_filter_state("k", "aé€z".into());
    assert_eq!(line(&format, &record, record.started), "aé|a\n");
}

#[test]
fn json_encoding_types_its_values() {
    let text = r#"{"code":"%RESPONSE_CODE%","ms":"%DURATION%","ua":"%REQ(USER-AGENT)%","none":"%REQ(NONE)%",
        "ai":"%FILTER_STATE(wasm.ai_log:PLAIN)%","num":"%FILTER_STATE(num)%","mix":"é\"\n%PROTOCOL% %REQ(NONE)% %FILTER_STATE(raw)%",
        "in":{"list":["%CONNECTION_ID%",true,null,1.5,"plain 100%%"]},"k\"":"x"}"#;
    let format = Format::from_config(Encoding::Json, text).unwrap();
    let (record, ended) = filled(&format);
    record.set_filter_state("num", "7".into());
    record.set_filter_state("raw", "\"\n".into());
    let expected = concat!(
        r#"{"code":200,"ms":1234,"ua":"curl/8.5.0","none":null,"ai":"{\"model\":\"qwen-max-0403\"}","num":"7","#,
        r#""mix":"é\"\nHTTP/1.1 - \"\n","in":{"list":[42,true,null,1.5,"plain 100%"]},"k\"":"x"}"#,
        "\n"
    );
    let printed = line(&format, &record, ended);
    assert_eq!(printed, expected);
    serde_json::from_str::<Value>(&printed).unwrap();
}

#[test]
fn an_empty_config_is_the_default_and_a_line_end_is_added_once() {
    for encoding in [Encoding::Text, Encoding::Json] {
        assert_eq!(
            Format::from_config(encoding, " \n").unwrap(),
            Format::higress_default()
        );
    }
    assert_eq!(Format::parse("x"), Format::parse("x\n"));
    assert_eq!(
        Format::parse(HIGRESS_DEFAULT.trim_end()).unwrap(),
        Format::higress_default()
    );
}

#[test]
fn a_bad_format_says_what_and_where() {
    let cases = [
        ("a %NOPE%", 2, "unknown operator %NOPE%"),
        ("%duration%", 0, "unknown operator %duration%"),
        (
            "100%",
            3,
            "an operator's name is missing after `%` (`%%` is a percent sign)",
        ),
        ("%DURATION", 0, "%DURATION: the closing `%` is missing"),
        ("%DURATION x%", 0, "%DURATION: the closing `%` is missing"),
        ("%DURATION(x)%", 0, "%DURATION% takes no argument"),
        ("%HOSTNAME(x)%", 0, "%HOSTNAME%: takes no argument"),
        ("%REQ(A%", 0, "%REQ(…)%: the bracket is not closed"),
        ("%REQ%", 0, "%REQ%: a header name is missing"),
        ("%REQ(A?)%", 0, "%REQ%: a header name is missing"),
        ("%REQ(A B)%", 0, "%REQ%: `a b` is no header name"),
        ("%REQ(:NOPE)%", 0, "%REQ%: `:NOPE` is no header name"),
        ("%REQ(A):x%", 0, "%REQ%: a length must be a number after `:`"),
        (
            "%REQ(A):99999999999999999999%",
            0,
            "%REQ%: a length must be a number after `:`",
        ),
        ("%START_TIME(%Q)%", 0, "%START_TIME%: unknown time specifier %Q"),
        ("%FILTER_STATE()%", 0, "%FILTER_STATE%: a key is missing"),
        (
            "%FILTER_STATE(k:RAW)%",
            0,
            "%FILTER_STATE%: `RAW` is neither PLAIN nor TYPED",
        ),
        (
            "%DYNAMIC_METADATA%",
            0,
            "%DYNAMIC_METADATA%: a namespace is missing",
        ),
        (
            "%GRPC_STATUS(x)%",
            0,
            "%GRPC_STATUS%: `x` is none of CAMEL_STRING, SNAKE_STRING, NUMBER",
        ),
        (
            "%COMMON_DURATION(a:b)%",
            0,
            "%COMMON_DURATION%: wants START:END:UNIT",
        ),
        (
            "%COMMON_DURATION(a:b:ms)%",
            0,
            "%COMMON_DURATION%: unknown time point `a`",
        ),
        (
            "%COMMON_DURATION(a:b:h)%",
            0,
            "%COMMON_DURATION%: unknown unit `h`",
        ),
        (
            "é%TOLLGATE(x)%",
            2,
            "%TOLLGATE%: `x` is none of termination, consumer, arm, attempts, first_event",
        ),
    ];
    for (text, offset, message) in cases {
        let error = Format::parse(text).unwrap_err();
        assert_eq!(
            (error.offset, error.message.as_str()),
            (offset, message),
            "{text}"
        );
    }
    assert_eq!(
        Format::parse("x%NOPE%").unwrap_err().to_string(),
        "unknown operator %NOPE% at byte 1"
    );
    for text in ["[]", "{\"a\":", "\"%DURATION%\"", "{\"a\":\"%NOPE%\"}"] {
        assert!(Format::from_config(Encoding::Json, text).is_err(), "{text}");
    }
}

#[test]
fn an_operator_without_a_value_yet_is_told() {
    let format = Format::parse("%UPSTREAM_PROTOCOL% %DURATION%").unwrap();
    assert_eq!(format.unavailable(), ["UPSTREAM_PROTOCOL"]);
}

proptest::proptest! {
    #[test]
    fn any_format_compiles_or_says_why(text in "[%A-Z():?{}\" \\\\a-z0-9_é]{0,40}") {
        match Format::parse(&text) {
            Ok(format) => {
                let (record, ended) = filled(&format);
                line(&format, &record, ended);
            }
            Err(error) => proptest::prop_assert!(error.offset < text.len()),
        }
    }

    #[test]
    fn any_header_and_state_leave_the_default_line_valid(header: Vec<u8>, state: String, failure: String) {
        let format = Format::higress_default();
        let record = record_of("/");
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&header) {
            headers.insert("user-agent", value);
        }
        format.capture_request(&record, &Method::POST, "api.example.com", "/", &headers);
        record.set_filter_state("wasm.ai_log", state);
        *record.upstream_failure.borrow_mut() = Some(failure);
        let text = line(&format, &record, record.started);
        proptest::prop_assert_eq!(text.matches('\n').count(), 1);
        let object: Value = serde_json::from_str(&text).unwrap();
        proptest::prop_assert_eq!(object.as_object().map(serde_json::Map::len), Some(26));
    }
}
