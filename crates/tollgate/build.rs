//! Puts the directories under `examples/` into the program, for `tollgate demo --example NAME`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    println!("cargo::rerun-if-changed={}", examples.display());
    let mut table = String::from("pub(crate) static EXAMPLES: &[Example] = &[\n");
    for directory in entries(&examples)? {
        if !directory.is_dir() {
            continue;
        }
        println!("cargo::rerun-if-changed={}", directory.display());
        let mut files = String::new();
        for file in entries(&directory)?.iter().filter(|file| file.is_file()) {
            println!("cargo::rerun-if-changed={}", file.display());
            let path = file.canonicalize()?;
            let text = path.display().to_string();
            let _ = write!(files, "({:?}, include_str!({text:?})), ", name(file));
        }
        let _ = writeln!(
            table,
            "    Example {{ name: {:?}, files: &[{files}] }},",
            name(&directory)
        );
    }
    table.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    fs::write(out.join("examples.rs"), table)
}

/// What a directory holds, by name.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
