//! Who may come by address, and what a refusal says. The connection's other end is 192.0.2.7 here.

use serde_json::{Value, json};

use crate::test_chain::{get, global, rule, run};

const NAME: &str = "ip-restriction";
const BODY: &str = r#"{"message":"Your IP address is blocked."}"#;

async fn line(config: &Value, headers: &[(&str, &str)]) -> String {
    run(&global(NAME, config).unwrap(), get("/", headers))
        .await
        .line()
}

#[tokio::test]
async fn the_connections_other_end_against_either_list() {
    for (list, entry, passes) in [
        ("allow", "192.0.2.7", true),
        ("allow", "192.0.2.0/24", true),
        ("allow", "192.0.3.200/23", true),
        ("allow", "0.0.0.0/0", true),
        ("allow", "::ffff:192.0.2.7", true),
        ("allow", "192.0.2.8", false),
        ("allow", "::/0", false),
        ("deny", "192.0.2.7", false),
        ("deny", "192.0.0.0/16", false),
        ("deny", "192.0.2.8", true),
    ] {
        let expected = match (passes, list) {
            (true, _) => "200 [from upstream] ".to_owned(),
            (false, "allow") => format!("403 [{BODY}] key-auth.ip_not_allowed"),
            (false, _) => format!("403 [{BODY}] key-auth.ip_denied"),
        };
        // Whatever a client writes into headers.
        let forged = [("x-forwarded-for", "192.0.2.7"), ("x-real-ip", "10.0.0.1")];
        assert_eq!(
            line(&json!({list: [entry]}), &forged).await,
            expected,
            "{list} {entry}"
        );
    }
}

#[tokio::test]
async fn the_first_entry_of_a_header() {
    let allow = json!({"ip_source_type": "header", "allow": ["10.0.0.0/8", "fd00::/8"]});
    let passes = [
        "10.1.2.3",
        " 10.1.2.3 ",
        "10.1.2.3, 8.8.8.8",
        "10.1.2.3:4711",
        "::ffff:10.1.2.3",
        "fd00::1",
        "[fd00::1]",
        "[fd00::1]:443,10.1.2.3",
    ];
    for value in passes {
        let went = line(&allow, &[("x-forwarded-for", value)]).await;
        assert_eq!(went, "200 [from upstream] ", "{value}");
    }
    for value in ["8.8.8.8, 10.1.2.3", "11.0.0.1", "fe80::1"] {
        let went = line(&allow, &[("x-forwarded-for", value)]).await;
        assert_eq!(went, format!("403 [{BODY}] key-auth.ip_not_allowed"), "{value}");
    }
    let twice = [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "8.8.8.8")];
    assert!(
        line(&allow, &twice).await.starts_with("200"),
        "the first line counts"
    );
    let named = json!({"ip_source_type": "header", "ip_header_name": "X-Real-IP", "deny": ["10.0.0.1"]});
    let went = line(
        &named,
        &[("x-real-ip", "10.0.0.1"), ("x-forwarded-for", "8.8.8.8")],
    )
    .await;
    assert_eq!(went, format!("403 [{BODY}] key-auth.ip_denied"));
}

#[tokio::test]
async fn whoever_has_no_address_is_kept_out_by_either_list() {
    let long = "1".repeat(8192);
    for list in ["allow", "deny"] {
        let config = json!({"ip_source_type": "header", list: ["0.0.0.0/0"]});
        for value in [
            "",
            "unknown",
            ",10.0.0.1",
            "10.0.0",
            "10.0.0.1/8",
            "адрес",
            "fe80::1%eth0",
            &long,
        ] {
            let went = line(&config, &[("x-forwarded-for", value)]).await;
            assert_eq!(
                went,
                format!("403 [{BODY}] key-auth.get_ip_failed"),
                "{list} {value}"
            );
        }
        let none = line(&config, &[]).await;
        assert_eq!(none, format!("403 [{BODY}] key-auth.get_ip_failed"));
    }
}

#[tokio::test]
async fn the_refusals_status_and_text() {
    let config = json!({"deny": ["0.0.0.0/0"], "status": "401", "message": "say \"please\"\n"});
    assert_eq!(
        line(&config, &[]).await,
        r#"401 [{"message":"say \"please\"\n"}] key-auth.ip_denied"#
    );
    for ignored in [json!(0), json!(1), json!(-7), json!(null)] {
        let config = json!({"deny": ["0.0.0.0/0"], "status": ignored});
        assert!(line(&config, &[]).await.starts_with("403 "), "{ignored}");
    }
    let plugin = global(NAME, &json!({"deny": ["0.0.0.0/0"]})).unwrap();
    let went = run(&plugin, get("/", &[])).await;
    assert_eq!(went.header("content-type"), "text/plain");
    assert!(went.upstream.is_none());
}

#[tokio::test]
async fn a_rule_stands_alone() {
    let plugin = rule(
        NAME,
        &json!({"deny": ["0.0.0.0/0"], "status": 418}),
        &json!({"allow": ["192.0.2.7"]}),
    );
    assert_eq!(run(&plugin.unwrap(), get("/", &[])).await.status, 200);
    assert!(rule(NAME, &json!({"deny": ["0.0.0.0/0"]}), &json!({"status": 418})).is_err());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let wrong = [
        (json!([]), "must be an object"),
        (json!({}), "one of allow and deny is required, with entries"),
        (
            json!({"allow": [], "deny": []}),
            "one of allow and deny is required, with entries",
        ),
        (
            json!({"allow": ["1.1.1.1"], "deny": ["2.2.2.2"]}),
            "deny: cannot stand next to allow",
        ),
        (
            json!({"allow": ["1.1.1.1", "1.1.1.1/33"]}),
            "allow[1]: \"1.1.1.1/33\" is neither an address nor a network",
        ),
        (
            json!({"deny": [""]}),
            "deny[0]: \"\" is neither an address nor a network",
        ),
        (json!({"deny": "1.1.1.1"}), "deny: must be a list"),
        (json!({"deny": [7]}), "deny[0]: must be a text: quote it"),
        (
            json!({"deny": ["1.1.1.1"], "ip_source_type": "headers"}),
            "ip_source_type: must be origin-source or header",
        ),
        (
            json!({"deny": ["1.1.1.1"], "ip_header_name": "x y"}),
            "ip_header_name: is no name of a header",
        ),
        (
            json!({"deny": ["1.1.1.1"], "status": 99}),
            "status: must be a status from 200 to 599",
        ),
        (
            json!({"deny": ["1.1.1.1"], "status": "no"}),
            "status: must be a whole number",
        ),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let twice = json!({"allow": ["1.1.1.1", "1.1.1.1", "1.1.1.0/24"]});
    assert!(global(NAME, &twice).is_ok());
}
