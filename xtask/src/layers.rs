//! Crates form one line: a crate may depend only on those above it, so that slow, YAML-reading code can never
//! be reached from the data path. The order is docs/architecture.md's; a new crate is one entry in `ORDER`.
//!
//! Reads `cargo metadata --no-deps`: edges as the manifests declare them, optional ones and those of other
//! platforms included.

use crate::{Report, cargo};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folder names below `crates/`, from the ground up.
const ORDER: &[&str] = &[
    "base",
    "kinds",
    "body",
    "observe",
    "store",
    "plugin",
    "snapshot",
    "llm",
    "upstream",
    "ledger",
    "modules",
    "artefacts",
    "wasm",
    "plugins",
    "compile",
    "control",
    "proxy",
    "console",
    "mock-llm",
    "testkit",
    "tollgate",
];

/// Crates that tests of any layer may use.
const FOR_TESTS: &[&str] = &["testkit", "mock-llm"];

/// Exists for tests alone: never part of what users run.
const ONLY_FOR_TESTS: &str = "testkit";

/// A dependency that the order would allow and the design does not.
struct Barrier {
    from: &'static str,
    to: &'static [&'static str],
    /// Whether the way through other crates is closed too.
    indirect: bool,
    why: &'static str,
}

static BARRIERS: &[Barrier] = &[
    Barrier {
        from: "proxy",
        to: &["kinds", "compile", "control"],
        indirect: true,
        why: "the data plane sees compiled snapshots only, never documents",
    },
    Barrier {
        from: "llm",
        to: &["hyper", "hyper-util", "axum", "tokio-rustls"],
        indirect: false,
        why: "wire formats know no HTTP server or connection",
    },
    Barrier {
        from: "snapshot",
        to: &["serde", "tokio", "hyper"],
        indirect: false,
        why: "a snapshot is plain compiled data: no parsing, no input or output",
    },
    Barrier {
        from: "compile",
        to: &["tokio", "hyper", "notify"],
        indirect: false,
        why: "compiling is a pure function from documents to a snapshot",
    },
];

#[derive(Debug, Clone, PartialEq)]
struct Edge {
    to: String,
    dev: bool,
}

/// Crate folder → what its manifest depends on: folder names for our crates, package names for others.
type Graph = BTreeMap<String, Vec<Edge>>;

pub(crate) fn run(root: &Path) -> Result<Report, String> {
    let text = cargo::output(root, &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let graph = graph(&metadata)?;
    Ok(Report {
        seen: format!("{} crates", graph.len()),
        problems: problems(&graph),
    })
}

/// The crates of `crates/` and their declared edges; members elsewhere (xtask, tests) stand outside the order.
fn graph(metadata: &Value) -> Result<Graph, String> {
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata has no list of packages")?;
    let mut folder_of_package = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().ok_or("a package without a name")?;
        let manifest = package["manifest_path"]
            .as_str()
            .ok_or("a package without a manifest")?;
        if let Some(folder) = crate_folder(Path::new(manifest)) {
            folder_of_package.insert(name, folder);
        }
    }
    let mut graph = Graph::new();
    for package in packages {
        let Some(folder) = package["name"]
            .as_str()
            .and_then(|name| folder_of_package.get(name))
        else {
            continue;
        };
        let declared = package["dependencies"]
            .as_array()
            .ok_or("a package without dependencies")?;
        let edges = declared.iter().filter_map(|dependency| {
            let name = dependency["name"].as_str()?;
            let to = folder_of_package
                .get(name)
                .map_or(name, String::as_str)
                .to_owned();
            Some(Edge {
                to,
                dev: dependency["kind"] == "dev",
            })
        });
        graph.insert(folder.clone(), edges.collect());
    }
    Ok(graph)
}

/// `…/crates/NAME/Cargo.toml` → `NAME`.
fn crate_folder(manifest: &Path) -> Option<String> {
    let folder = manifest.parent()?;
    let parent = folder.parent()?.file_name()?;
    (parent == "crates")
        .then(|| folder.file_name()?.to_str().map(str::to_owned))
        .flatten()
}

fn problems(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (from, edges) in graph {
        let Some(height) = place(from) else {
            found.push(format!(
                "crates/{from} has no place in the order: add it to ORDER in xtask/src/layers.rs"
            ));
            continue;
        };
        for edge in edges.iter().filter(|edge| graph.contains_key(&edge.to)) {
            if let Some(complaint) = wrong_way(from, height, edge) {
                found.push(complaint);
            }
        }
    }
    for barrier in BARRIERS {
        found.extend(crossings(graph, barrier));
    }
    found
}

fn place(folder: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == folder)
}

fn wrong_way(from: &str, height: usize, edge: &Edge) -> Option<String> {
    let to = edge.to.as_str();
    if edge.dev && FOR_TESTS.contains(&to) {
        return None;
    }
    if to == ONLY_FOR_TESTS {
        return Some(format!("{from} -> {to}: {to} is for [dev-dependencies] only"));
    }
    // A crate without a place is reported for itself.
    if place(to)? < height {
        return None;
    }
    let section = if edge.dev { "dev-dependency" } else { "dependency" };
    Some(format!(
        "{from} -> {to}: this {section} points the wrong way, {to} stands below {from} in the order"
    ))
}

/// Each forbidden target that the barrier's crate reaches, with the way it takes.
fn crossings(graph: &Graph, barrier: &Barrier) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![barrier.from.to_owned()]];
    while let Some(way) = ways.pop() {
        let Some(edges) = way.last().and_then(|end| graph.get(end)) else {
            continue;
        };
        for edge in edges.iter().filter(|edge| !edge.dev) {
            let mut longer = way.clone();
            longer.push(edge.to.clone());
            if barrier.to.contains(&edge.to.as_str()) {
                found.push(format!("{}: {}", longer.join(" -> "), barrier.why));
            } else if barrier.indirect && seen.insert(edge.to.clone()) {
                ways.push(longer);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a crate needs: (package, kind of dependency).
    type Needs<'a> = &'a [(&'a str, Option<&'a str>)];

    /// A workspace as `cargo metadata` shows it.
    fn workspace(crates: &[(&str, Needs<'_>)]) -> Graph {
        let package = |folder: &str| {
            if folder == "tollgate" {
                folder.to_owned()
            } else {
                format!("tollgate-{folder}")
            }
        };
        let packages: Vec<Value> = crates
            .iter()
            .map(|(folder, needs)| {
                json!({
                    "name": package(folder),
                    "manifest_path": format!("/src/crates/{folder}/Cargo.toml"),
                    "dependencies": needs.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect::<Vec<_>>(),
                })
            })
            .chain([json!({"name": "xtask", "manifest_path": "/src/xtask/Cargo.toml",
                "dependencies": [{"name": "tollgate-proxy", "kind": null}]})])
            .collect();
        graph(&json!({ "packages": packages })).expect("well-formed metadata")
    }

    #[test]
    fn edges_to_crates_above_and_members_elsewhere_are_fine() {
        let graph = workspace(&[
            ("base", &[]),
            ("llm", &[("tollgate-base", None), ("http", None)]),
            (
                "proxy",
                &[("tollgate-llm", None), ("tollgate-base", Some("build"))],
            ),
        ]);
        assert_eq!(graph.len(), 3);
        assert_eq!(problems(&graph), Vec::<String>::new());
    }

    #[test]
    fn an_edge_downwards_is_named() {
        let graph = workspace(&[("base", &[("tollgate-proxy", None)]), ("proxy", &[])]);
        assert_eq!(
            problems(&graph),
            ["base -> proxy: this dependency points the wrong way, proxy stands below base in the order"]
        );
    }

    #[test]
    fn build_and_ordinary_dev_dependencies_obey_the_order() {
        let graph = workspace(&[
            (
                "base",
                &[("tollgate-body", Some("build")), ("tollgate-llm", Some("dev"))],
            ),
            ("body", &[]),
            ("llm", &[]),
        ]);
        let found = problems(&graph);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("base -> llm: this dev-dependency"), "{found:?}");
    }

    #[test]
    fn tests_of_any_layer_may_use_testkit_and_the_mock() {
        let needs: Needs<'_> = &[
            ("tollgate-testkit", Some("dev")),
            ("tollgate-mock-llm", Some("dev")),
        ];
        let graph = workspace(&[("base", needs), ("testkit", &[]), ("mock-llm", &[])]);
        assert_eq!(problems(&graph), Vec::<String>::new());
    }

    #[test]
    fn testkit_is_never_shipped() {
        let graph = workspace(&[("tollgate", &[("tollgate-testkit", None)]), ("testkit", &[])]);
        assert_eq!(
            problems(&graph),
            ["tollgate -> testkit: testkit is for [dev-dependencies] only"]
        );
    }

    #[test]
    fn the_data_plane_does_not_reach_documents_through_another_crate() {
        let graph = workspace(&[
            ("kinds", &[]),
            ("plugin", &[("tollgate-kinds", None)]),
            ("proxy", &[("tollgate-plugin", None)]),
        ]);
        assert_eq!(
            problems(&graph),
            ["proxy -> plugin -> kinds: the data plane sees compiled snapshots only, never documents"]
        );
    }

    #[test]
    fn llm_takes_no_http_server() {
        let graph = workspace(&[("llm", &[("hyper", None)])]);
        assert_eq!(
            problems(&graph),
            ["llm -> hyper: wire formats know no HTTP server or connection"]
        );
    }

    #[test]
    fn a_crate_without_a_place_is_refused() {
        let graph = workspace(&[("misc", &[])]);
        assert_eq!(
            problems(&graph),
            ["crates/misc has no place in the order: add it to ORDER in xtask/src/layers.rs"]
        );
    }

    #[test]
    fn metadata_without_packages_is_an_error() {
        assert!(graph(&json!({})).is_err());
    }
}
