//! `tollgate check`: reads the configuration and prints one diagnostic a line; 0 valid, 1 not.

use std::process::ExitCode;

use tollgate_control::Controller;
use tollgate_snapshot::{Live, Snapshot};

use crate::diagnostics::print;
use crate::failure::{FAILED, Failure};
use crate::flags::CheckFlags;
use crate::gateway;

pub(crate) fn run(flags: &CheckFlags) -> Result<ExitCode, Failure> {
    let live = Live::new(Snapshot::default());
    let options = gateway::controller_options(&flags.config)?;
    let (mut controller, _status) = Controller::new(options, live);
    let status = controller.reload().map_err(|cause| cause.to_string())?;
    for diagnostic in status.diagnostics.iter() {
        match flags.json {
            true => print(&serde_json::to_string(diagnostic).map_err(|cause| cause.to_string())?),
            false => print(&diagnostic.to_string()),
        }
    }
    let valid = !status
        .diagnostics
        .iter()
        .any(tollgate_kinds::Diagnostic::is_error);
    Ok(if valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}
