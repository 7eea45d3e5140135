//! Calls a tool and makes of its answer what the model gets to see.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;

use http_body::Body as _;
use tollgate_body::{Body, Response};
use tollgate_plugin::{Exchange, Next};

use super::config::Api;
use super::react::Call;
use super::tool_call;
use crate::rounds::{Rounds, Way};

/// The observation after a call. A tool that cannot be reached says nothing, as in Higress.
pub(super) async fn call(
    rounds: &mut Rounds,
    exchange: &mut Exchange,
    next: Next<'_>,
    call: Call<'_>,
) -> String {
    let api = call.api;
    let request = match tool_call::request(api, call.tool, call.arguments) {
        Ok(request) => request,
        Err(refused) => return format!("error: {}", refused.0),
    };
    let way = Way::Service(next.caller(exchange), Cow::Borrowed(api.cluster.as_str()));
    let read = |response: Response| read(api, response);
    match rounds.fetch(exchange, &way, request, api.time, read).await {
        Ok(text) => text,
        Err(failure) => {
            tracing::debug!(?failure, tool = call.tool.name, "ai-agent: a tool failed");
            String::new()
        }
    }
}

/// The beginning of an answer, without the API's key.
async fn read(api: &Api, response: Response) -> Result<String, tollgate_base::Error> {
    let mut body: Body = response.into_body();
    let mut bytes = Vec::new();
    let mut is_cut = false;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = api.answer_limit.saturating_sub(bytes.len());
        bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        if data.len() > room {
            is_cut = true;
            break;
        }
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    for secret in &api.secrets {
        if text.contains(secret.expose()) {
            text = text.replace(secret.expose(), "***");
        }
    }
    if is_cut {
        text = format!("{}… (cut)", text.trim_end_matches('\u{fffd}'));
    }
    Ok(text)
}
