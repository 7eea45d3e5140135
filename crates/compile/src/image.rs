//! Which built-in plugin a WasmPlugin means: by its label, else by the end of its url. The object's name never counts.

use tollgate_kinds::WasmPlugin;

/// Label that names the built-in.
const LABEL: &str = "higress.io/wasm-plugin-name";
/// Annotation that forces or forbids the module.
pub(crate) const RUNTIME: &str = "tollgate.dev/runtime";

/// What the object wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// A built-in if there is one, else the module.
    Either,
    /// The module.
    Wasm,
    /// A built-in or nothing.
    Native,
}

/// Reads the runtime annotation; `Err` for another value.
pub(crate) fn runtime(plugin: &WasmPlugin) -> Result<Runtime, &'static str> {
    match plugin.metadata.annotations.get(RUNTIME).map(String::as_str) {
        None => Ok(Runtime::Either),
        Some("wasm") => Ok(Runtime::Wasm),
        Some("native") => Ok(Runtime::Native),
        Some(_) => Err("expected `wasm` or `native`: ignored"),
    }
}

/// Every name that the object may mean, the most telling first.
pub(crate) fn names(plugin: &WasmPlugin) -> Vec<&str> {
    let label = plugin.metadata.labels.get(LABEL).map(String::as_str);
    let mut names: Vec<&str> = label.into_iter().collect();
    names.extend(from_url(&plugin.spec.url));
    // Where no Go variant of its own exists, both builds are the same plugin.
    let go_variants: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("go-")).collect();
    names.extend(go_variants);
    names
}

/// `…/NAME:TAG`, `…/NAME@sha256:…`, `…/NAME/VERSION/plugin.wasm`, `…/NAME/plugin.wasm`.
fn from_url(url: &str) -> Vec<&str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let mut segments = path.rsplit('/').filter(|segment| !segment.is_empty());
    let last = segments.next().unwrap_or_default();
    if last.ends_with(".wasm") {
        let version = segments.next();
        let name = segments.next();
        return name.into_iter().chain(version).collect();
    }
    let name = last.split(['@', ':']).next().unwrap_or_default();
    match name.is_empty() {
        true => Vec::new(),
        false => vec![name],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_urls() {
        for (url, names) in [
            (
                "oci://higress-registry.cn-hangzhou.cr.aliyuncs.com/plugins/ai-proxy:1.0.0",
                &["ai-proxy"][..],
            ),
            ("hub:5000/plugins/key-auth", &["key-auth"]),
            ("oci://hub/p/ai-cache@sha256:12ab", &["ai-cache"]),
            ("oci://hub/p/ai-cache:2@sha256:12ab", &["ai-cache"]),
            (
                "http://host:8002/plugins/ai-proxy/2.0.0/plugin.wasm",
                &["ai-proxy", "2.0.0"],
            ),
            (
                "file:///opt/plugins/wasm-go/extensions/ai-proxy/plugin.wasm",
                &["extensions", "ai-proxy"],
            ),
            ("", &[]),
        ] {
            assert_eq!(from_url(url), names, "{url}");
        }
    }
}
