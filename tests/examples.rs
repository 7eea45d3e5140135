//! Every directory under `examples/`, as a user tries it: `tollgate demo --example NAME`, then the requests of its README.

use std::path::Path;
use std::process::Command;

use tollgate_testkit::process::Gateway;

use crate::support::gateway;

/// The `curl` commands of a README that go to the gateway.
fn requests(readme: &str) -> Vec<String> {
    let mut requests = Vec::new();
    let mut open = String::new();
    for line in readme.lines() {
        if open.is_empty() && !line.starts_with("curl ") {
            continue;
        }
        open.push_str(line);
        open.push('\n');
        if !line.ends_with('\\') && open.matches('\'').count().is_multiple_of(2) {
            requests.push(std::mem::take(&mut open));
        }
    }
    requests.retain(|request| request.contains("//127.0.0.1:10000/"));
    requests
}

/// Runs a command of a README against this gateway: the answer's status and body.
fn run(gateway: &Gateway, request: &str) -> (u16, String) {
    let here = request.replace("127.0.0.1:10000", &gateway.http.to_string());
    let command = here.replacen("curl ", "curl -sS -w '\\n%{http_code}' ", 1);
    let output = Command::new("sh").arg("-c").arg(&command).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Whether an example is more than a piece of a configuration.
fn has_routes(example: &Path) -> bool {
    std::fs::read_dir(example).unwrap().any(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        text.contains("kind: Ingress")
    })
}

#[test]
fn every_example_runs_and_its_requests_are_answered() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut names: Vec<String> = std::fs::read_dir(&examples)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let gateway = gateway().command("demo").option("--example", &name).go().unwrap();
        let readme = std::fs::read_to_string(examples.join(&name).join("README.md")).unwrap();
        let requests = requests(&readme);
        if !has_routes(&examples.join(&name)) {
            // A piece to be added to another: it starts, and that is all.
            continue;
        }
        assert!(!requests.is_empty(), "{name}: its README shows no request");
        for request in &requests {
            let (status, body) = run(&gateway, request);
            assert!(status < 500, "{name}: {request}{status} {body}");
        }
        let banner = format!("http://{}/", gateway.http);
        gateway.errors.wait_for(|line| line.contains(&banner)).unwrap();
        let wrong: Vec<String> = gateway
            .errors
            .all()
            .into_iter()
            .filter(|line| line.contains(": error: "))
            .collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
}

#[test]
fn an_example_that_does_not_exist_is_told_with_those_that_do() {
    let output = gateway()
        .command("demo")
        .option("--example", "nonsense")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("nonsense") && told.contains("ai-agent, ai-json-resp"),
        "{told}"
    );
}
