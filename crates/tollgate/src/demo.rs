//! `tollgate demo`: an example against the built-in mock, which answers over TLS as all the hosts that the example names,
//! so that the whole path is the real one.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tollgate_mock_llm::{Options, Tls};

use crate::examples::{self, Example};
use crate::failure::Failure;
use crate::flags::{ConfigFlags, DemoFlags};
use crate::gateway::{self, Extras};

/// Values of the examples' variables.
const VARIABLES: &[(&str, &str)] = &[
    ("LLM", "qwen"),
    ("LLM_DOMAIN", "dashscope.aliyuncs.com"),
    ("LLM_PATH", "/compatible-mode/v1/chat/completions"),
    ("LLM_MODEL", "qwen-max-0403"),
    ("API_TOKEN", "sk-demo"),
];
/// Time between streamed tokens: slow enough to be seen.
const PACE: Duration = Duration::from_millis(30);

/// The value of a variable. What no example needs to be anything in particular is told by its name.
fn variable(name: &str) -> Option<String> {
    let known = VARIABLES.iter().find(|row| row.0 == name);
    Some(known.map_or_else(|| format!("demo-{}", name.to_lowercase()), |row| row.1.to_owned()))
}

pub(crate) fn run(flags: DemoFlags) -> Result<ExitCode, Failure> {
    let failed = |what: &'static str| move |cause: std::io::Error| format!("{what}: {cause}");
    let example = examples::find(&flags.example).ok_or_else(|| {
        let text = format!("no example {:?}; there are {}", flags.example, examples::names());
        Failure::usage(text)
    })?;
    let hosts = example.hosts(variable);
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let tls = Tls::new(&names).map_err(failed("the mock's certificate"))?;
    let authority = tls.authority.pem();
    let mock = tollgate_mock_llm::start(Options {
        pace: PACE,
        tls: Some(tls),
        record: 0,
        ..Options::default()
    })
    .map_err(failed("the mock"))?;
    let directory = tempfile::tempdir().map_err(failed("a temporary directory"))?;
    for (name, text) in example.documents() {
        std::fs::write(directory.path().join(name), text).map_err(failed("the example"))?;
    }

    let config = ConfigFlags {
        config: vec![directory.path().to_owned()],
        namespace: "higress-system".to_owned(),
        ingress_class: String::new(),
        envsubst: true,
    };
    let control = gateway::control_options(config.config.clone(), &config, Some(Arc::new(variable)));
    let place = directory.path().display().to_string();
    let extras = Extras {
        roots: vec![authority.into_bytes()],
        resolve: names
            .iter()
            .map(|name| format!("{name}:443:{}", mock.addr()))
            .collect(),
        banner: Some(Box::new(move |http| banner(example, http, &place))),
    };
    gateway::serve_until_stopped(control, &flags.serve, extras)
}

fn banner(example: &Example, http: SocketAddr, place: &str) -> String {
    let host = if http.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], http.port()))
    } else {
        http
    };
    let requests: Vec<String> = example
        .requests()
        .iter()
        .map(|request| request.replace("127.0.0.1:10000", &host.to_string()))
        .collect();
    format!(
        "\nThe example {} is in {place}; change it and it is read again. Try:\n\n{}\n",
        example.name,
        requests.join("\n\n")
    )
}
