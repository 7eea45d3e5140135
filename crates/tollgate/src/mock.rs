//! `tollgate mock-llm`: the mock vendor alone.

use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tollgate_mock_llm::{Options, Tls};

use crate::diagnostics::say;
use crate::flags::MockFlags;
use crate::signals::Signals;

pub(crate) fn run(flags: &MockFlags) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| format!("cannot start: {cause}"))?;
    runtime.block_on(serve(flags))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(flags: &MockFlags) -> Result<(), String> {
    // Before it says that it is ready: a signal that nobody listens for kills.
    let mut signals = Signals::new().map_err(|cause| format!("cannot listen for signals: {cause}"))?;
    let tls = tls(flags)?;
    let failed = |cause: std::io::Error| format!("cannot listen on {}: {cause}", flags.listen);
    let listener = TcpListener::bind(flags.listen).await.map_err(failed)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    say(&format!(
        "mock-llm ready {scheme}={}",
        listener.local_addr().map_err(failed)?
    ));
    let options = Options {
        pace: Duration::from_millis(flags.pace),
        tls,
        record: 0,
        ..Options::default()
    };
    let stop = async move {
        signals.next().await;
    };
    tollgate_mock_llm::serve(listener, options, stop)
        .await
        .map_err(|cause| cause.to_string())
}

fn tls(flags: &MockFlags) -> Result<Option<Tls>, String> {
    if flags.tls.is_empty() {
        return match &flags.ca_out {
            Some(_) => Err("--ca-out needs --tls NAME".to_owned()),
            None => Ok(None),
        };
    }
    let names: Vec<&str> = flags.tls.iter().map(String::as_str).collect();
    let tls = Tls::new(&names).map_err(|cause| format!("--tls: {cause}"))?;
    if let Some(path) = &flags.ca_out {
        std::fs::write(path, tls.authority.pem())
            .map_err(|cause| format!("--ca-out {}: {cause}", path.display()))?;
    }
    Ok(Some(tls))
}
