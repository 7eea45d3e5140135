//! What must not be in the dependency graph: a second crypto provider, OpenSSL, another HTTP client in what is
//! shipped, code from outside the registry, a patched crate.
//!
//! Reads `cargo tree`, not `cargo metadata`: the latter lists optional dependencies that no feature turns on
//! (`ring` by way of `ring?/std`), the former shows exactly what is built, on every platform.

use crate::{Report, cargo};
use std::collections::BTreeMap;
use std::path::Path;

/// A crate that must not be built, with the reason that the reader gets.
struct Ban {
    /// The crate's name; one that ends in `*` stands for all that begin so.
    name: &'static str,
    /// Whether tests and tools may use it all the same.
    only_shipped: bool,
    why: &'static str,
}

static BANS: &[Ban] = &[
    Ban {
        name: "openssl",
        only_shipped: false,
        why: "TLS is rustls with aws-lc-rs",
    },
    Ban {
        name: "openssl-sys",
        only_shipped: false,
        why: "TLS is rustls with aws-lc-rs",
    },
    Ban {
        name: "openssl-src",
        only_shipped: false,
        why: "TLS is rustls with aws-lc-rs",
    },
    Ban {
        name: "native-tls",
        only_shipped: false,
        why: "TLS is rustls with aws-lc-rs",
    },
    Ban {
        name: "ring",
        only_shipped: false,
        why: "aws-lc-rs is the one crypto provider",
    },
    Ban {
        name: "boring*",
        only_shipped: false,
        why: "aws-lc-rs is the one crypto provider",
    },
    Ban {
        name: "rustls-rustcrypto",
        only_shipped: false,
        why: "aws-lc-rs is the one crypto provider",
    },
    Ban {
        name: "rustls-openssl",
        only_shipped: false,
        why: "aws-lc-rs is the one crypto provider",
    },
    Ban {
        name: "reqwest",
        only_shipped: true,
        why: "one pool, one TLS, one timer model: crates/upstream",
    },
];

/// One package of the graph and the way cargo first came to it, the workspace member first.
#[derive(Debug, PartialEq)]
struct Package {
    name: String,
    /// What stands in brackets behind the version: a folder or an address; empty for the registry's.
    source: String,
    way: Vec<String>,
}

pub(crate) fn run(root: &Path) -> Result<Report, String> {
    let everything = packages(&tree(root, &["--workspace", "--edges", "normal,build,dev"])?)?;
    let shipped = packages(&tree(
        root,
        &["--package", "tollgate", "--edges", "normal,build"],
    )?)?;
    let mut problems = banned(&everything, |ban| !ban.only_shipped);
    problems.extend(banned(&shipped, |ban| ban.only_shipped));
    problems.extend(foreign(&everything, root));
    for file in ["Cargo.toml", ".cargo/config.toml"] {
        let text = match std::fs::read_to_string(root.join(file)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{file}: {error}")),
        };
        problems.extend(patches(file, &text));
    }
    Ok(Report {
        seen: format!("{} packages", everything.len()),
        problems,
    })
}

fn tree(root: &Path, what: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["tree", "--target", "all", "--prefix", "depth", "--format", "|{p}"];
    arguments.extend(what);
    cargo::output(root, &arguments)
}

/// Parses lines such as `2|ring v0.17.14` or `0|tollgate v0.1.0 (/src/crates/tollgate) (*)`.
fn packages(tree: &str) -> Result<Vec<Package>, String> {
    let mut way: Vec<String> = Vec::new();
    let mut found = BTreeMap::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let parts = line
            .split_once('|')
            .and_then(|(depth, rest)| Some((depth.parse().ok()?, rest)));
        let (depth, rest): (usize, &str) =
            parts.ok_or_else(|| format!("cargo tree printed a line that is not understood: {line}"))?;
        let mut words = rest.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        let version = words.next().unwrap_or_default().to_owned();
        let source = words
            .next()
            .filter(|word| *word != "(*)" && *word != "(proc-macro)")
            .unwrap_or_default();
        way.truncate(depth);
        way.push(name.clone());
        found.entry((name.clone(), version)).or_insert_with(|| Package {
            name,
            source: source.trim_matches(['(', ')']).to_owned(),
            way: way.clone(),
        });
    }
    Ok(found.into_values().collect())
}

fn banned(packages: &[Package], applies: impl Fn(&Ban) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        for ban in BANS
            .iter()
            .filter(|ban| applies(ban) && matches(ban.name, &package.name))
        {
            found.push(format!(
                "{} is banned ({}): {}",
                package.name,
                ban.why,
                package.way.join(" -> ")
            ));
        }
    }
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

/// Packages that come neither from the registry nor from this workspace.
fn foreign(packages: &[Package], root: &Path) -> Vec<String> {
    packages
        .iter()
        .filter(|package| !package.source.is_empty() && !Path::new(&package.source).starts_with(root))
        .map(|package| {
            let way = package.way.join(" -> ");
            format!(
                "{} comes from {}, not from the registry: {way}",
                package.name, package.source
            )
        })
        .collect()
}

/// `[patch…]` and `[replace]` tables, which swap a crate where the lock file's reader does not see it.
fn patches(file: &str, text: &str) -> Vec<String> {
    let is_swap = |line: &str| line.starts_with("[patch") || line.starts_with("[replace]");
    text.lines()
        .enumerate()
        .filter(|(_, line)| is_swap(line.trim_start()))
        .map(|(index, line)| format!("{file}:{}: {} swaps a dependency", index + 1, line.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0|tollgate v0.1.0 (/src/crates/tollgate)\n\
        1|rustls v0.23.0\n\
        2|ring v0.17.14\n\
        1|openssl-probe v0.2.0\n\
        1|serde_derive v1.0.0 (proc-macro)\n\
        2|boring-sys v4.0.0\n\
        \n\
        0|tollgate-testkit v0.1.0 (/src/crates/testkit)\n\
        1|reqwest v0.12.0\n\
        1|rustls v0.23.0 (*)\n\
        1|fork v0.1.0 (https://example.org/fork?rev=1#0123abcd)\n\
        1|beside v0.1.0 (/elsewhere/beside)\n";

    fn tree_packages() -> Vec<Package> {
        packages(TREE).expect("a tree")
    }

    #[test]
    fn a_banned_crate_is_reported_with_its_way() {
        let found = banned(&tree_packages(), |ban| !ban.only_shipped);
        assert_eq!(
            found,
            [
                "boring-sys is banned (aws-lc-rs is the one crypto provider): tollgate -> serde_derive -> boring-sys",
                "ring is banned (aws-lc-rs is the one crypto provider): tollgate -> rustls -> ring",
            ]
        );
    }

    #[test]
    fn a_crate_banned_from_the_product_is_found_in_the_tree_it_is_asked_of() {
        let found = banned(&tree_packages(), |ban| ban.only_shipped);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("tollgate-testkit -> reqwest"), "{found:?}");
    }

    #[test]
    fn the_certificate_finder_is_not_openssl() {
        assert!(!BANS.iter().any(|ban| matches(ban.name, "openssl-probe")));
    }

    #[test]
    fn git_and_outside_folders_are_foreign() {
        let found = foreign(&tree_packages(), Path::new("/src"));
        assert_eq!(
            found,
            [
                "beside comes from /elsewhere/beside, not from the registry: tollgate-testkit -> beside",
                "fork comes from https://example.org/fork?rev=1#0123abcd, not from the registry: tollgate-testkit -> fork",
            ]
        );
    }

    #[test]
    fn patch_tables_are_named_by_line() {
        let text = "[workspace]\n# [patch.crates-io]\n[patch.crates-io]\nhyper = { path = \"x\" }\n";
        assert_eq!(
            patches("Cargo.toml", text),
            ["Cargo.toml:3: [patch.crates-io] swaps a dependency"]
        );
    }

    #[test]
    fn another_format_of_the_tree_is_an_error_not_a_pass() {
        assert!(packages("tollgate v0.1.0\n").is_err());
    }
}
