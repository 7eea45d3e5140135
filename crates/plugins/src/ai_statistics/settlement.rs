//! The end of the story: `ai_log`, tags and both metric families, once an exchange (plugins spec §1.1, §1.6, §1.7).

use std::time::{Duration, SystemTime};

use serde_json::Number;
use tollgate_base::clock::Instant;
use tollgate_observe::metrics::{UsageLabels, UsageMetric, UsageMetrics, UsageSeries};
use tollgate_observe::usage::{Source, Tokens};
use tollgate_observe::{Ending, Record, Usage, Usual};

use super::attribute::{Attribute, ValueSource};
use super::config::{Config, SpanSource};
use super::observation::{Answer, State};
use super::request::{api_route, spans};
use crate::token_usage::Reading;

/// Settles one observed exchange.
pub(super) fn settle(config: &Config, record: &Record, ending: &Ending<'_>, state: &mut State) {
    spans(config, record, SpanSource::Property, |span| {
        property(record, &span.value)
    });
    record.set_span_tag("gen_ai.span.kind", "LLM");
    let took = milliseconds(ending.ended.saturating_duration_since(record.started));
    let Some(answer) = &mut state.answer else {
        // Nothing passed, but rounds of a plugin may have been over by then.
        if !config.without_usage && record.usage.borrow().source.is_some() {
            conclude(config, record, ending, None, took);
        }
        return;
    };
    let is_good = answer.watch.is_good;
    // A plugin may answer with an error; what its rounds cost is spent.
    let counts = answer.wanted && !config.without_usage && (is_good || record.usage.borrow().is_closed());
    if counts && is_good {
        overrides(config, record, &mut record.usage.borrow_mut());
    }
    if state.estimable && answer.watch.lacks_usage(record) {
        answer
            .watch
            .supply(record, &std::mem::take(&mut state.asked).read());
    }
    if !answer.wanted {
        return;
    }
    note_answer(record, &record.usage.borrow(), answer, took);
    if counts {
        let reading = is_good.then_some(&mut answer.watch.reading);
        conclude(config, record, ending, reading, took);
    }
}

/// Notes and counts what is known. `reading`: of the model's answer, if it is one.
fn conclude(config: &Config, record: &Record, ending: &Ending<'_>, reading: Option<&mut Reading>, took: u64) {
    let mut usage = record.usage.borrow_mut();
    note_usage(config, record, &usage, reading);
    first_generation(config, record, &usage, took);
    let is_known = usage.source.is_some() || usage.model.is_some();
    if !is_known || std::mem::replace(&mut usage.counted, true) {
        return;
    }
    count(config, record, ending, &usage, took);
}

fn note_answer(record: &Record, usage: &Usage, answer: &mut Answer, took: u64) {
    let kind = if answer.watch.streamed { "stream" } else { "normal" };
    record.set_ai_log_text(Usual::ResponseType, kind);
    if let Some(id) = answer.watch.chat_id.take() {
        record.set_ai_log_text(Usual::ChatId, id);
    }
    if let Some(first) = first_token(record, usage) {
        record.set_ai_log_count(Usual::FirstTokenDuration, first);
    }
    record.set_ai_log_count(Usual::ServiceDuration, took);
}

/// Milliseconds to the first content of a stream, else to its first event.
fn first_token(record: &Record, usage: &Usage) -> Option<u64> {
    let came = usage
        .first_token
        .or(usage.first_event)
        .filter(|_| usage.streamed)?;
    Some(milliseconds(came.saturating_duration_since(record.started)))
}

/// Attributes of these names that a config takes from the answer stand for the vendor's usage.
const OVERRIDES: [&str; 4] = ["model", "input_token", "output_token", "total_token"];
/// Attributes of these names too are of the vendor's usage, unless a config takes them from the answer itself.
const DETAILS: [Usual; 2] = [Usual::InputTokenDetails, Usual::OutputTokenDetails];

/// Whether some of these attributes take the place of what usage gives; almost never, so that it is asked once.
pub(super) fn take_its_place(attributes: &[Attribute]) -> bool {
    let mut names = OVERRIDES.into_iter().chain(DETAILS.map(Usual::name));
    names.any(|name| is_among(attributes, name))
}

fn is_among(attributes: &[Attribute], name: &str) -> bool {
    let of_answer = [
        ValueSource::ResponseHeader,
        ValueSource::ResponseBody,
        ValueSource::ResponseStreamingBody,
    ];
    attributes.iter().any(|attribute| {
        &*attribute.key == name
            && attribute.to_log
            && !attribute.separate
            && of_answer.iter().any(|source| attribute.reads(*source))
    })
}

/// Whether the config itself takes this attribute of the log from the answer.
fn is_configured(config: &Config, name: &str) -> bool {
    config.overrides_usage && is_among(&config.attributes, name)
}

fn overrides(config: &Config, record: &Record, usage: &mut Usage) {
    if !config.overrides_usage {
        return;
    }
    let log = record.ai_log.borrow();
    let [model, input, output, total] = OVERRIDES.map(|name| is_configured(config, name).then_some(name));
    if let Some(name) = model.and_then(|name| log.text(name))
        && !name.is_empty()
    {
        usage.model = Some(crate::answer_watch::bounded(name.to_owned()).into_boxed_str());
    }
    let count = |name: Option<&str>| log.number(name?).and_then(whole);
    let (input, output, total) = (count(input), count(output), count(total));
    if input.is_none() && output.is_none() && total.is_none() {
        return;
    }
    let mut tokens = usage.tokens;
    tokens.input = input.unwrap_or(tokens.input);
    tokens.output = output.unwrap_or(tokens.output);
    tokens.total = total.unwrap_or_else(|| tokens.input.saturating_add(tokens.output));
    usage.report(tokens, false);
}

/// A number of tokens; texts are none.
fn whole(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        (0.0..9.0e15).contains(&float).then_some(float as u64)
    })
}

/// The usage as members of the log and tags of the span.
fn note_usage(config: &Config, record: &Record, usage: &Usage, reading: Option<&mut Reading>) {
    let Some(source) = usage.source else { return };
    let is_answer = reading.is_some();
    let is_configured = |name| is_answer && is_configured(config, name);
    let tokens = usage.tokens;
    let model = usage.model_name().unwrap_or("unknown");
    if !is_configured("model") {
        record.set_ai_log_text(Usual::Model, model.to_owned());
    }
    let counts = [
        (Usual::InputToken, tokens.input),
        (Usual::OutputToken, tokens.output),
        (Usual::TotalToken, tokens.total),
    ];
    for (name, count) in counts {
        if !is_configured(name.name()) {
            record.set_ai_log_count(name, count);
        }
    }
    let [of_input, of_output] = DETAILS;
    let details = reading.map(|reading| {
        [
            (of_input, &mut reading.input_details),
            (of_output, &mut reading.output_details),
        ]
    });
    for (name, details) in details.into_iter().flatten() {
        let is_own = |_: &_| !is_configured(name.name());
        if let Some(counts) = details.take_counts().filter(is_own) {
            record.set_ai_log_counts(name, counts);
        }
    }
    if source != Source::Provider {
        record.set_ai_log_text(Usual::UsageSource, source.name());
    }
    record.set_span_tag("gen_ai.model_name", model);
    record.set_span_tag("gen_ai.usage.input_tokens", tokens.input);
    record.set_span_tag("gen_ai.usage.output_tokens", tokens.output);
    record.set_span_tag("gen_ai.usage.total_tokens", tokens.total);
}

/// Filter states and tags that only the first form of the config has.
fn first_generation(config: &Config, record: &Record, usage: &Usage, took: u64) {
    if config.first_generation.is_none() {
        return;
    }
    record.set_span_tag("total_time", took);
    if let Some(first) = usage.first_event.filter(|_| usage.streamed) {
        record.set_span_tag("first_token_time", epoch_milliseconds(record, first));
    }
    if usage.source.is_none() {
        return;
    }
    let (input, output) = (usage.tokens.input.to_string(), usage.tokens.output.to_string());
    let model = tollgate_observe::access_log::escaped(usage.model_name().unwrap_or("unknown"));
    record.set_filter_state("wasm.model", model);
    record.set_filter_state("wasm.input_token", input.clone());
    record.set_filter_state("wasm.output_token", output.clone());
    record.set_span_tag("input_tokens", input);
    record.set_span_tag("output_tokens", output);
}

/// Without counts the durations are still told, as long as the answer names its model.
fn count(config: &Config, record: &Record, ending: &Ending<'_>, usage: &Usage, took: u64) {
    let (route, cluster) = (record.route.borrow(), record.cluster.borrow());
    let route = route.as_deref().unwrap_or("-");
    let consumer = record.consumer.borrow();
    let metrics = &ending.metrics.usage;
    let series = metrics.series(UsageLabels {
        route: api_route(route).unwrap_or(route),
        cluster: cluster.as_deref().unwrap_or("-"),
        model: usage.model_name().unwrap_or("unknown"),
        consumer: consumer.as_deref().unwrap_or("none"),
    });
    if usage.source.is_some() {
        count_tokens(metrics, &series, usage.tokens);
        if config.first_generation.is_some() {
            metrics.add_plain(&series, usage.tokens);
        }
    }
    metrics.add(&series, UsageMetric::ServiceDuration, took);
    metrics.add(&series, UsageMetric::DurationCount, 1);
    if let Some(first) = first_token(record, usage) {
        metrics.add(&series, UsageMetric::FirstTokenDuration, first);
        metrics.add(&series, UsageMetric::StreamDurationCount, 1);
    }
}

/// A count of nothing makes no series, as in Higress.
fn count_tokens(metrics: &UsageMetrics, series: &UsageSeries, tokens: Tokens) {
    let all = [
        (UsageMetric::InputToken, tokens.input),
        (UsageMetric::OutputToken, tokens.output),
        (UsageMetric::TotalToken, tokens.total),
    ];
    for (metric, amount) in all.into_iter().filter(|(_, amount)| *amount > 0) {
        metrics.add(series, metric, amount);
    }
}

/// Properties of the proxy that a `tracing_span` may name.
fn property(record: &Record, name: &str) -> Option<String> {
    let original = &record.original;
    Some(match name {
        "route_name" => record.route.borrow().as_deref()?.to_owned(),
        "cluster_name" => record.cluster.borrow().as_deref()?.to_owned(),
        "request.id" => record.request_id.to_str().ok()?.to_owned(),
        "request.method" => original.method.as_str().to_owned(),
        "request.host" => original.authority.as_ref().to_owned(),
        "request.path" => record.path_to_show(),
        "request.url_path" => original.path.path().to_owned(),
        "response.code" => record.status.get().to_string(),
        "response.code_details" => record.details.borrow().clone().into_owned(),
        "source.address" => record.connection.peer.to_string(),
        _ => return None,
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn epoch_milliseconds(record: &Record, at: Instant) -> u64 {
    let since = record.start_time + at.saturating_duration_since(record.started);
    since
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, milliseconds)
}
