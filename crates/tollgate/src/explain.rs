//! `tollgate explain`: which route, plugins and upstream a request gets, and why, from the configuration alone.

use std::process::ExitCode;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tollgate_compile::explain;
use tollgate_control::Controller;
use tollgate_snapshot::route::RequestHead;
use tollgate_snapshot::{Live, Snapshot};

use crate::diagnostics::print;
use crate::failure::{FAILED, Failure};
use crate::flags::ExplainFlags;
use crate::gateway;

pub(crate) fn run(flags: &ExplainFlags) -> Result<ExitCode, Failure> {
    let live = Live::new(Snapshot::default());
    let (mut controller, _status) =
        Controller::new(gateway::controller_options(&flags.config)?, live.clone());
    controller.reload().map_err(|cause| cause.to_string())?;

    let uri: Uri = flags
        .url
        .parse()
        .map_err(|cause| Failure::usage(format!("{}: {cause}", flags.url)))?;
    let authority = uri
        .authority()
        .ok_or_else(|| Failure::usage(format!("{}: expected http://HOST/PATH", flags.url)))?
        .to_string();
    let headers = headers(&flags.headers).map_err(Failure::usage)?;
    let method = method(flags).map_err(Failure::usage)?;
    let sent_host = headers
        .get(http::header::HOST)
        .and_then(|value| value.to_str().ok());
    let authority = sent_host.map_or(authority, str::to_owned);
    let host = tollgate_proxy::host_of(&authority);
    let target = uri.path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let target = tollgate_proxy::resolved_path(&target).unwrap_or(target);
    let head = RequestHead {
        host: &host,
        method: &method,
        path: target.path(),
        query: target.query(),
        scheme: uri.scheme_str().unwrap_or("http"),
        authority: &authority,
        headers: &headers,
    };
    let explanation = explain(&live.load(), &head);
    let text = match flags.json {
        true => serde_json::to_string_pretty(&explanation).map_err(|cause| cause.to_string())?,
        false => explanation.to_string(),
    };
    print(text.trim_end());
    Ok(if explanation.route.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn method(flags: &ExplainFlags) -> Result<Method, String> {
    match (&flags.method, &flags.data) {
        (Some(name), _) => {
            Method::from_bytes(name.as_bytes()).map_err(|_| format!("-X {name}: not a method"))
        }
        (None, Some(_)) => Ok(Method::POST),
        (None, None) => Ok(Method::GET),
    }
}

fn headers(lines: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let bad = || format!("-H {line:?}: expected NAME: VALUE");
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad())?;
        headers.append(name, HeaderValue::try_from(value.trim()).map_err(|_| bad())?);
    }
    Ok(headers)
}
