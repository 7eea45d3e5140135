//! `tollgate demo`: the example `ai-proxy` against the built-in mock vendor, which answers as `dashscope.aliyuncs.com`
//! over TLS, so that the whole path is the real one.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tollgate_mock_llm::{Options, Tls};

use crate::failure::Failure;
use crate::flags::{ConfigFlags, DemoFlags};
use crate::gateway::{self, Extras};

/// The example, as it stands in `examples/`.
const EXAMPLE: &str = include_str!("../../../examples/ai-proxy/01-ai-proxy.yaml");
const VENDOR: &str = "dashscope.aliyuncs.com";
/// Values of the example's variables.
const VARIABLES: &[(&str, &str)] = &[("LLM", "qwen"), ("LLM_DOMAIN", VENDOR), ("API_TOKEN", "sk-demo")];
/// Time between streamed tokens: slow enough to be seen.
const PACE: Duration = Duration::from_millis(30);

pub(crate) fn run(flags: DemoFlags) -> Result<ExitCode, Failure> {
    let failed = |what: &'static str| move |cause: std::io::Error| format!("{what}: {cause}");
    let tls = Tls::new(&[VENDOR]).map_err(failed("the mock's certificate"))?;
    let authority = tls.authority.pem();
    let mock = tollgate_mock_llm::start(Options {
        pace: PACE,
        tls: Some(tls),
        record: 0,
        ..Options::default()
    })
    .map_err(failed("the mock"))?;
    let directory = tempfile::tempdir().map_err(failed("a temporary directory"))?;
    let file = directory.path().join("ai-proxy.yaml");
    std::fs::write(&file, EXAMPLE).map_err(failed("the example"))?;

    let config = ConfigFlags {
        config: vec![directory.path().to_owned()],
        namespace: "higress-system".to_owned(),
        ingress_class: String::new(),
        envsubst: true,
    };
    let variables = |name: &str| {
        VARIABLES
            .iter()
            .find(|row| row.0 == name)
            .map(|row| row.1.to_owned())
    };
    let control = gateway::control_options(config.config.clone(), &config, Some(Arc::new(variables)));
    let extras = Extras {
        roots: vec![authority.into_bytes()],
        resolve: vec![format!("{VENDOR}:443:{}", mock.addr())],
        banner: Some(Box::new(move |http| banner(http, &file.display().to_string()))),
    };
    gateway::serve_until_stopped(control, &flags.serve, extras)
}

fn banner(http: SocketAddr, file: &str) -> String {
    let host = if http.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], http.port()))
    } else {
        http
    };
    format!(
        r#"
The configuration is {file}; change it and it is read again. Try:

curl http://{host}/v1/chat/completions \
  -H 'Content-Type: application/json' \
  -d '{{"model":"qwen-max-0403","messages":[{{"role":"user","content":"你是谁？"}}]}}'

curl -N http://{host}/v1/chat/completions \
  -H 'Content-Type: application/json' \
  -d '{{"model":"qwen-max-0403","stream":true,"messages":[{{"role":"user","content":"你是谁？"}}]}}'
"#
    )
}
