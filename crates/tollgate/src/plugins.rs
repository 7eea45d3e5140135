//! `tollgate plugins`: the built-in plugins, from their table.

use std::process::ExitCode;

use tollgate_plugins::ROWS;

use crate::diagnostics::print;
use crate::flags::PluginsFlags;

#[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
pub(crate) fn run(flags: &PluginsFlags) -> Result<ExitCode, String> {
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
