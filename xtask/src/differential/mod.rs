//! `cargo xtask differential DIR`: a built-in plugin and the compiled module of the same name, side by side.
//!
//! For each `NAME.wasm` in DIR and each config in `NAME.yaml` (documents separated by `---`; none: no config) two
//! gateways run that differ in one annotation. Both get the same requests, in order; what the client got and what the
//! upstream saw is compared. The modules are the caller's: none is shipped.

mod compare;
mod gateway;
mod http;
mod requests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gateway::Side;

/// What to run, from the command line.
struct Wanted {
    modules: PathBuf,
    binary: PathBuf,
}

pub(crate) const USAGE: &str = "cargo xtask differential DIR [--binary TOLLGATE]";

/// Runs with the arguments behind the name: 0 all agree, 1 differences, 2 it could not run.
pub(crate) fn run(root: &Path, arguments: &[String], say: fn(&str)) -> ExitCode {
    let outcome = wanted(root, arguments).and_then(|wanted| all(&wanted, say));
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(reason) => {
            say(&format!("xtask differential: {reason}\n"));
            ExitCode::from(2)
        }
    }
}

fn wanted(root: &Path, arguments: &[String]) -> Result<Wanted, String> {
    let (modules, binary) = match arguments {
        [modules] => (modules, root.join("target/debug/tollgate")),
        [modules, flag, binary] if flag == "--binary" => (modules, PathBuf::from(binary)),
        _ => return Err(format!("usage: {USAGE}")),
    };
    let modules = fs::canonicalize(modules).map_err(|cause| format!("{modules}: {cause}"))?;
    Ok(Wanted { modules, binary })
}

/// Number of differences.
fn all(wanted: &Wanted, say: fn(&str)) -> Result<usize, String> {
    let known = gateway::builtins(&wanted.binary)?;
    let listing =
        fs::read_dir(&wanted.modules).map_err(|cause| format!("{}: {cause}", wanted.modules.display()))?;
    let mut modules: Vec<PathBuf> = listing
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "wasm"))
        .collect();
    modules.sort();
    if modules.is_empty() {
        return Err(format!("{} holds no NAME.wasm", wanted.modules.display()));
    }
    let mut total = 0;
    for module in modules {
        let name = module
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !known.contains(&name) {
            say(&format!("{name}: no built-in plugin has this name\n"));
            continue;
        }
        for (number, config) in configs(&module.with_extension("yaml")).iter().enumerate() {
            let (asked, differences) = one(&wanted.binary, &name, &module, config)?;
            let place = format!("{name}, config {}", number + 1);
            say(&format!(
                "{place}: {asked} requests, {} differences\n",
                differences.len()
            ));
            for difference in &differences {
                say(&format!("{place}: {difference}\n"));
            }
            total += differences.len();
        }
    }
    Ok(total)
}

/// The configs of a file; one empty config when there is none.
fn configs(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut configs = vec![String::new()];
    for line in text.lines() {
        match (line.trim_end(), configs.last_mut()) {
            ("---", _) | (_, None) => configs.push(String::new()),
            (_, Some(config)) => {
                config.push_str(line);
                config.push('\n');
            }
        }
    }
    configs.retain(|config| !config.trim().is_empty());
    if configs.is_empty() {
        configs.push(String::new());
    }
    configs
}

/// How many requests were sent, and where the two did not agree.
fn one(binary: &Path, name: &str, module: &Path, config: &str) -> Result<(usize, Vec<String>), String> {
    let native = Side::start(
        binary,
        &gateway::plugin("native", &format!("oci://built.in/{name}:1"), config),
    )?;
    let wasm = Side::start(
        binary,
        &gateway::plugin("wasm", &format!("file://{}", module.display()), config),
    )?;
    let mut differences = Vec::new();
    if native.complains() != wasm.complains() {
        let says = |side: &Side| side.complains().unwrap_or_else(|| "accepts it".to_owned());
        differences.push(format!(
            "the config: built-in {}, module {}",
            says(&native),
            says(&wasm)
        ));
    }
    let requests = requests::generate(config);
    for request in &requests {
        let (left, right) = (native.ask(request)?, wasm.ask(request)?);
        let found = compare::differences(&left, &right);
        differences.extend(
            found
                .into_iter()
                .map(|what| format!("{}: {what}", request.title())),
        );
    }
    Ok((requests.len(), differences))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_documents_and_none_is_one_empty_config() {
        let directory = std::env::temp_dir().join(format!("differential-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.yaml");
        assert_eq!(configs(&path), [""]);
        fs::write(&path, "a: 1\nb:\n- x\n---\n\n---\na: 2\n").unwrap();
        assert_eq!(configs(&path), ["a: 1\nb:\n- x\n", "a: 2\n"]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn wrong_arguments_are_told_and_nothing_runs() {
        let root = Path::new("/");
        for arguments in [&[][..], &["a".to_owned(), "b".to_owned()]] {
            assert!(wanted(root, arguments).err().unwrap().starts_with("usage: "));
        }
        let missing = ["/no/such/directory".to_owned()];
        assert!(
            wanted(root, &missing)
                .err()
                .unwrap()
                .contains("/no/such/directory")
        );
    }
}
