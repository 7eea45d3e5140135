//! Who is taken for a crawler, who is not, and what a refusal says.

use serde_json::{Value, json};

use crate::test_chain::{get, global, parse, rule, run};

const NAME: &str = "bot-detect";

async fn status(config: &Value, agent: &str) -> u16 {
    let plugin = global(NAME, config).unwrap();
    run(&plugin, get("/", &[("user-agent", agent)])).await.status
}

#[tokio::test]
async fn crawlers_that_are_known() {
    let crawlers = [
        "BaiduMobaider/1.1.0",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; Baiduspider-render/2.0)",
        "Mozilla/5.0 (compatible; YandexImages/3.0)",
        "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
        "Mozilla/5.0 (compatible; SemrushBot/7~bl)",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        "WhatsApp/2.23",
        "Scrapy/2.11 (+https://scrapy.org)",
        "WordPress/6.4; https://a.example",
        "Java/1.8 MyIndexer 3",
        "agent/Examplebot-7",
        "my CRAWLER",
        "FeedSpider",
        "screen scraper",
        "Zao/0.1",
        "Yeti/1.1",
        "site 50.nu",
        "Microsoft URL Control Bot",
    ];
    for agent in crawlers {
        assert_eq!(status(&json!({}), agent).await, 403, "{agent}");
    }
}

#[tokio::test]
async fn everybody_else() {
    let others = [
        "",
        "Go-client",
        "curl/8.5.0",
        "OpenAI/Python 1.40.0",
        "Anthropic/JS 0.27.0",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1",
        "a robot's friend",
        "BaiduMobaider",
        "xBaiduMobaider/1",
        "googlebot",
        "my Zao",
        "50-nu",
        "агент/1.0",
    ];
    for agent in others {
        assert_eq!(status(&json!({}), agent).await, 200, "{agent}");
    }
    let plugin = global(NAME, &json!({})).unwrap();
    assert_eq!(run(&plugin, get("/", &[])).await.status, 200, "without any");
}

#[tokio::test]
async fn lists_of_ones_own_match_a_whole_agent() {
    let config = json!({"blocked_code": 401, "blocked_message": "no", "allow": ["BaiduMobaider.*", "Tailsweep"], "deny": ["Go-Client", "ключ.*", ""]});
    for (agent, expected) in [
        ("BaiduMobaider/1.1.0", 200),
        // Allowed goes before known.
        ("BaiduMobaider spider", 200),
        ("x BaiduMobaider/1.1.0", 401),
        ("Tailsweep", 200),
        ("Go-Client", 401),
        ("Go-Client/1.1", 200),
        ("go-client", 200),
        ("ключ 1", 401),
        // An expression of nothing is for those without a name.
        ("", 401),
        ("bingbot", 401),
    ] {
        assert_eq!(status(&config, agent).await, expected, "{agent}");
    }
    let plugin = global(NAME, &config).unwrap();
    let went = run(&plugin, get("/", &[("user-agent", "bingbot")])).await;
    assert_eq!(went.line(), "401 [no] ");
    assert!(went.upstream.is_none());
    // Of a repeated header the first counts.
    let twice = [("user-agent", "curl/8"), ("user-agent", "bingbot")];
    assert_eq!(run(&plugin, get("/", &twice)).await.status, 200);
}

#[tokio::test]
async fn no_config_is_an_empty_one_and_a_rule_stands_alone() {
    let none = parse(NAME, None, None, false).unwrap().0;
    let bot = || get("/", &[("user-agent", "bingbot")]);
    let went = run(&none, bot()).await;
    assert_eq!(went.line(), "403 [] ");
    assert_eq!(went.header("content-type"), "");
    let allowed = rule(NAME, &json!({"blocked_code": 418}), &json!({"allow": ["bing.*"]})).unwrap();
    assert_eq!(run(&allowed, bot()).await.status, 200);
    let empty = rule(NAME, &json!({"allow": ["bing.*"]}), &json!({})).unwrap();
    assert_eq!(run(&empty, bot()).await.status, 403);
}

/// Expressions that a backtracking matcher would never finish.
#[tokio::test]
async fn long_agents_are_judged_too() {
    let config = json!({"allow": ["(a|b)*c"], "deny": ["(x+x+)+y"]});
    let plugin = global(NAME, &config).unwrap();
    for unit in ["x", "ab", "Microsoft ", "IP2abot", "archive.", "A/", "/Aaaaaa"] {
        let mut agent = unit.repeat(65536 / unit.len());
        assert_eq!(
            run(&plugin, get("/", &[("user-agent", &agent)])).await.status,
            200,
            "{unit}"
        );
        agent.push_str("bingbot");
        assert_eq!(
            run(&plugin, get("/", &[("user-agent", &agent)])).await.status,
            403,
            "{unit}"
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let wrong = [
        (json!([]), "must be an object"),
        (json!({"allow": "a"}), "allow: must be a list"),
        (json!({"deny": ["a", 1]}), "deny[1]: must be a text: quote it"),
        (
            json!({"blocked_code": 99}),
            "blocked_code: must be a status from 200 to 599",
        ),
        (
            json!({"blocked_message": 7}),
            "blocked_message: must be a text: quote it",
        ),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    for (list, expression) in [("allow", "(a"), ("deny", "a)|(b"), ("deny", "a{1000}{1000}")] {
        let told = global(NAME, &json!({list: ["ok", expression]})).err().unwrap();
        assert!(told.starts_with(&format!("{list}[1]: ")), "{told}");
    }
}
