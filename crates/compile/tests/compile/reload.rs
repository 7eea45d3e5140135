//! What a reload keeps: plugins whose config did not change.

use std::sync::Arc;

use tollgate_plugin::Plugin;
use tollgate_snapshot::Snapshot;

use crate::support::{compile_text, fake_options};

const PLUGIN: &str = "\
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: auth}
spec:
  url: oci://hub/plugins/key-auth:1.0.0
  defaultConfig: {idle: 1, x: 1}
---
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: proxy}
spec:
  url: oci://hub/plugins/ai-proxy:1.0.0
  defaultConfig: {x: 1}
";

fn plugin(snapshot: &Snapshot, index: usize) -> &Arc<dyn Plugin> {
    snapshot.unrouted[index].candidates[0].plugin.as_ref().unwrap()
}

#[test]
fn an_unchanged_plugin_lives_on_and_a_changed_one_is_new() {
    let options = fake_options();
    let (first, warnings) = compile_text(PLUGIN.as_bytes(), "a.yaml", &options);
    let changed = PLUGIN.replace("idle: 1, x: 1", "idle: 1, x: 2");
    let (second, _) = compile_text(changed.as_bytes(), "a.yaml", &options);
    assert!(!Arc::ptr_eq(plugin(&first, 0), plugin(&second, 0)));
    assert!(Arc::ptr_eq(plugin(&first, 1), plugin(&second, 1)));
    let (third, again) = compile_text(PLUGIN.as_bytes(), "a.yaml", &options);
    assert!(Arc::ptr_eq(plugin(&first, 0), plugin(&third, 0)));
    // A warning is told at every reload, not only when the config is parsed.
    assert_eq!(warnings.len(), 1);
    assert_eq!(again, warnings);
}

#[test]
fn what_is_no_longer_used_is_forgotten() {
    let options = fake_options();
    let (first, _) = compile_text(PLUGIN.as_bytes(), "a.yaml", &options);
    assert_eq!(format!("{:?}", options.cache), "PluginCache(2)");
    drop(first);
    let (empty, _) = compile_text(b"", "a.yaml", &options);
    assert!(empty.unrouted.is_empty());
    assert_eq!(format!("{:?}", options.cache), "PluginCache(0)");
}
