//! `tollgate plugins`: the built-in plugins, from their table; with `--live` the modules of a running gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use tollgate_plugins::ROWS;

use crate::diagnostics::print;
use crate::flags::PluginsFlags;

/// Longest wait for the gateway's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Columns of `--live`: title, width, and the field of `/config_dump`.
const COLUMNS: [(&str, usize, &str); 9] = [
    ("PLUGIN", 36, "plugin"),
    ("VERSION", 8, "version"),
    ("STATE", 9, "state"),
    ("ABI", 8, "abi"),
    ("WORKERS", 8, "workers_ready"),
    ("REQUESTS", 9, "requests_in_flight"),
    ("MEMORY", 11, "memory_bytes"),
    ("TRAPS", 6, "traps"),
    ("DIGEST", 64, "digest"),
];

pub(crate) fn run(flags: &PluginsFlags) -> Result<ExitCode, String> {
    if flags.live {
        return live(flags);
    }
    if flags.json {
        let rows: Vec<_> = ROWS.iter().map(describe).collect();
        print(&format!("{:#}", serde_json::Value::Array(rows)));
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!(
        "{:<22} {:<18} {:>8}  {}",
        "NAME", "PHASE", "PRIORITY", "WHAT IT DOES"
    ));
    for row in ROWS {
        print(&format!(
            "{:<22} {:<18} {:>8}  {}",
            row.name,
            row.phase.name(),
            row.priority,
            row.doc
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(row: &tollgate_plugins::Row) -> serde_json::Value {
    let field = |field: &tollgate_plugins::Field| serde_json::json!({"name": field.name, "type": field.kind, "doc": field.doc});
    serde_json::json!({
        "name": row.name,
        "phase": row.phase.name(),
        "priority": row.priority,
        "doc": row.doc,
        "fields": row.fields.iter().map(field).collect::<Vec<_>>(),
    })
}

fn live(flags: &PluginsFlags) -> Result<ExitCode, String> {
    let admin = flags.admin;
    let dump = ask(admin).map_err(|cause| format!("no gateway answers at {admin}: {cause}"))?;
    let modules = dump["modules"].as_array().cloned().unwrap_or_default();
    if flags.json {
        print(&format!("{:#}", Value::Array(modules)));
        return Ok(ExitCode::SUCCESS);
    }
    let row = |text: &dyn Fn(&(&str, usize, &str)) -> String| {
        let cells = COLUMNS
            .iter()
            .map(|column| format!("{:<1$}", text(column), column.1));
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    print(&row(&|column| column.0.to_owned()));
    for module in &modules {
        print(&row(&|column| match &module[column.2] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
    }
    Ok(ExitCode::SUCCESS)
}

/// The admin listener's dump, by the simplest request there is.
fn ask(admin: SocketAddr) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /config_dump HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(std::io::Error::other)
}
