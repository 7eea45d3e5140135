//! `tollgate conversation ID`: one conversation as a tree: requests, the tools that were called between them, attempts.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde_json::json;
use tollgate_base::Amount;
use tollgate_ledger::{Reader, Turn};

use crate::failure::Failure;
use crate::flags::ConversationFlags;
use crate::usage::harmless;

pub(crate) fn run(flags: &ConversationFlags) -> Result<ExitCode, Failure> {
    let reader = Reader::open(&flags.data.data).map_err(|cause| cause.to_string())?;
    let turns = reader
        .conversation(&flags.id)
        .map_err(|cause| cause.to_string())?;
    if turns.is_empty() {
        let message = format!(
            "no conversation {}; `tollgate usage --by conversation` lists them",
            harmless(&flags.id)
        );
        return Err(message.into());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match flags.json {
        true => as_json(&mut out, &turns),
        false => as_tree(&mut out, &flags.id, &turns),
    };
    // Whoever closed our output has seen enough.
    drop(written.and_then(|()| out.flush()));
    Ok(ExitCode::SUCCESS)
}

fn as_json(out: &mut impl Write, turns: &[Turn]) -> io::Result<()> {
    let turns: Vec<_> = turns
        .iter()
        .map(|turn| {
            json!({
                "depth": turn.depth,
                "time": turn.time,
                "request_id": turn.request_id,
                "consumer": turn.consumer,
                "model": turn.model,
                "vendor": turn.vendor,
                "input": turn.input,
                "output": turn.output,
                "duration_ms": turn.duration_ms,
                "cost": turn.cost.map(|cost| cost.to_string()),
                "currency": turn.currency,
                "status": turn.status,
                "termination": turn.termination,
                "attempts": turn.attempts,
                "tools": turn.tools,
            })
        })
        .collect();
    writeln!(out, "{:#}", serde_json::Value::Array(turns))
}

fn as_tree(out: &mut impl Write, id: &str, turns: &[Turn]) -> io::Result<()> {
    let sum = |of: fn(&Turn) -> i64| turns.iter().map(of).sum::<i64>();
    let cost = turns
        .iter()
        .filter_map(|turn| turn.cost)
        .fold(Amount::default(), Amount::plus);
    let currency = turns
        .iter()
        .find_map(|turn| turn.currency.as_deref())
        .unwrap_or_default();
    let cost = if currency.is_empty() {
        String::new()
    } else {
        format!(", {cost} {}", harmless(currency))
    };
    writeln!(
        out,
        "{}: {} requests, {} + {} tokens{cost}",
        harmless(id),
        turns.len(),
        sum(|turn| turn.input),
        sum(|turn| turn.output)
    )?;
    let mut open: Vec<bool> = Vec::new();
    for turn in turns {
        open.truncate(turn.depth);
        let stems: String = open
            .iter()
            .map(|more| if *more { "│  " } else { "   " })
            .collect();
        let stem = if turn.has_next_sibling {
            "├─ "
        } else {
            "└─ "
        };
        open.push(turn.has_next_sibling);
        let inner = if turn.has_next_sibling { "│  " } else { "   " };
        writeln!(out, "{stems}{stem}{}", line(turn))?;
        if !turn.tools.is_empty() {
            writeln!(
                out,
                "{stems}{inner}   with the results of {}",
                harmless(&turn.tools.join(", "))
            )?;
        }
        if turn.attempts > 1 {
            writeln!(out, "{stems}{inner}   {} attempts upstream", turn.attempts)?;
        }
    }
    Ok(())
}

fn line(turn: &Turn) -> String {
    let mut parts = vec![turn.time.clone()];
    let model = turn.model.as_deref().unwrap_or("-");
    match &turn.vendor {
        Some(vendor) => parts.push(format!("{} ({})", harmless(model), harmless(vendor))),
        None => parts.push(harmless(model)),
    }
    parts.push(format!("{} {}", turn.status, turn.termination));
    parts.push(format!("{} + {} tokens", turn.input, turn.output));
    parts.push(format!("{} ms", turn.duration_ms));
    if let (Some(cost), Some(currency)) = (turn.cost, &turn.currency) {
        parts.push(format!("{cost} {}", harmless(currency)));
    }
    if let Some(consumer) = &turn.consumer {
        parts.push(harmless(consumer));
    }
    parts.push(harmless(&turn.request_id));
    parts.join("  ")
}
