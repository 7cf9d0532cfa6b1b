//! Checks `docker/` without Docker, and the Helm chart without Kubernetes: the files named in the compose files exist, the mounted
//! configurations are checked by the programs that would read them, and `tests/containers/` builds the image and runs it as the compose
//! file and the chart say.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{end_with_the_run, target_dir};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A compose file, with its anchors resolved.
fn compose(name: &str) -> Value {
    let program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let file = fs::File::open(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let output = Command::new("/usr/bin/python3").args(["-c", program]).stdin(file).output().expect("Debian has it");
    serde_json::from_slice(&succeeded(name, &output).stdout).expect("it writes JSON")
}

#[track_caller]
fn succeeded<'o>(what: &str, output: &'o Output) -> &'o Output {
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{what}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    output
}

/// The texts of a list, or the names of a table.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Object(table) => table.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The status of a program of `tests/containers/` on a machine that does not allow containers.
const NOT_ALLOWED: i32 = 77;

/// Runs a program of `tests/containers/` with the binary of this test run, and checks that it says each of these steps.
#[track_caller]
fn replay(python: &Path, program: &str, steps: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("timeout");
    command.arg("120").arg(python).arg(root.join("tests/containers").join(program));
    command.arg(env!("CARGO_BIN_EXE_longwire")).stdin(Stdio::null());
    // `timeout` hands the signal on.
    end_with_the_run(&mut command, libc::SIGTERM);
    let output = command.output().expect("timeout belongs to coreutils");
    if output.status.code() == Some(NOT_ALLOWED) {
        let why = String::from_utf8_lossy(&output.stderr);
        // Not by eprintln, because its output is hidden if a test passes.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED, NOTHING WAS TESTED: {program}: {}\n", why.trim());
        return;
    }
    let said = String::from_utf8_lossy(&succeeded(program, &output).stdout).into_owned();
    for step in steps {
        assert!(said.contains(step), "{program} did not say {step:?}: {said}");
    }
}

#[test]
fn the_image_is_built_and_the_steps_of_its_readme_work() {
    let steps = [
        "user 10001:10001",
        "health: 1 without PHP",
        "health: 0 with PHP",
        "echo: ws://127.0.0.1:8080/echo",
        "push: from form.php",
        "push: from a script in the php container",
        "stop: 0",
    ];
    replay(Path::new("/usr/bin/python3"), "compose.py", &steps);
}

#[test]
fn the_cluster_of_containers_survives_a_killed_node() {
    let steps = ["health: 0 of three nodes", "chat: from node-", "was killed, and node-", "stop: 0"];
    replay(Path::new("/usr/bin/python3"), "cluster.py", &steps);
}

#[test]
fn the_helm_chart_is_valid_and_its_pod_runs() {
    let python = target_dir().join("charts-venv/bin/python");
    assert!(python.exists(), "Helm is not installed: run tests/venv.sh charts (`make test` does)");
    let steps = [
        "everything: ",
        "refused: ",
        "values: all are used",
        "renewals: only of pods that something has changed for",
        "pod: its probes succeed",
        "pod: an echo, and a push from PHP",
        "pod: stopped with 0, and PHP after it",
    ];
    replay(&python, "chart.py", &steps);
}

#[test]
fn the_image_is_compiled_with_the_rust_that_is_tested() {
    let manifest = include_str!("../../../Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'));
    let image = format!(" rust:{}-bookworm ", version.expect("Cargo.toml has a rust-version"));
    assert!(text("Dockerfile").contains(&image), "the Dockerfile begins FROM{image}");
}

#[test]
fn whatever_the_compose_files_name_is_there() {
    for name in ["compose.yaml", "compose.cluster.yaml"] {
        let compose = compose(name);
        let services = compose["services"].as_object().expect("there are services");
        assert!(services.len() >= 2, "{name}");
        for (service, what) in services {
            let is_there = |path: &str| folder().join(path).exists();
            let build = &what["build"];
            assert!(what["image"].is_string() || build.is_object(), "{name}: {service} is neither pulled nor built");
            if let Some(context) = build["context"].as_str() {
                let file = build["dockerfile"].as_str().expect("its Dockerfile is named");
                assert!(is_there(&format!("{context}/{file}")), "{name}: {service}: {context}/{file}");
            }
            for other in texts(&what["depends_on"]) {
                assert!(services.contains_key(other), "{name}: {service} depends on {other}");
            }
            for volume in texts(&what["volumes"]) {
                let from = volume.split(':').next().expect("split gives something");
                let is_known = if from.starts_with('.') {
                    is_there(from)
                } else {
                    compose["volumes"].as_object().is_some_and(|volumes| volumes.contains_key(from))
                };
                assert!(is_known, "{name}: {service} mounts {volume}");
            }
            // No port may be open to other machines.
            for port in texts(&what["ports"]) {
                assert!(port.starts_with("127.0.0.1:"), "{name}: {service} publishes {port}");
            }
        }
    }
}

#[test]
fn the_nodes_their_balancer_and_their_engines_know_each_other() {
    let compose = compose("compose.cluster.yaml");
    let services = compose["services"].as_object().expect("there are services");
    for node in NODES {
        let (file, serves) = (format!("/etc/longwire/{node}.toml"), texts(&services[node]["command"]));
        assert_eq!(serves, ["serve", "--config", &file], "{node}");
        assert_eq!(texts(&services[node]["healthcheck"]["test"]).last(), Some(&file.as_str()), "{node}");
        assert!(services[node]["environment"]["ROUTER_SECRET"].is_string(), "{node}");
    }
    let balancer = text("haproxy.cfg");
    let mut servers: Vec<&str> = balancer
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server ")?.split_whitespace().nth(1)?.strip_suffix(":8080"))
        .collect();
    servers.dedup();
    assert_eq!(servers, [NODES, NODES].concat(), "each of its two lists has each node");
    let node = text("cluster.toml");
    let believed = services["balancer"]["networks"]["default"]["ipv4_address"].as_str().expect("it has an address");
    assert!(node.contains(&format!("proxy_protocol = [\"{believed}\"]")), "PROXY headers of {believed} are believed");
    for (engine, port) in [("redis", 6379), ("nats", 4222)] {
        assert!(services.contains_key(engine) && node.contains(&format!("\"{engine}://{engine}:{port}\"")), "{engine}");
    }
    assert!(
        node.contains("advertise = \"node-NODE_NUMBER:9010\""),
        "php-fpm finds each router by its container's name"
    );
}

/// Runs `longwire check` on a configuration, with the containers' paths and ports replaced by those of this machine.
#[track_caller]
fn check(what: &str, config: &str, secret: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = config
        .replace("/srv/php", root.join("php-examples").to_str().expect("the path is text"))
        .replace("check_script = false", "check_script = true");
    // Free ports, because those of the containers may be in use here.
    let here = [8080, 9005, 9010, 9011]
        .iter()
        .fold(here, |text, port| text.replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let here = here.replace("/run/longwire", dir.path().to_str().expect("the path is text"));
    fs::write(dir.path().join("longwire.toml"), here).expect("the directory is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(["check", "--config", "longwire.toml"]).current_dir(dir.path()).env("ROUTER_SECRET", secret);
    succeeded(what, &command.output().expect("the binary was built for this test"));
}

/// The default secret of a service: the text after `:-`.
fn secret(service: &Value) -> String {
    let written = service["environment"]["ROUTER_SECRET"].as_str().expect("it has one");
    let secret = written.split(":-").nth(1).and_then(|rest| rest.strip_suffix('}'));
    secret.expect("it has a default").to_owned()
}

#[test]
fn longwire_takes_the_configurations_of_all_containers() {
    for name in ["longwire.toml", "page.toml"] {
        check(name, &text(name), "");
    }
    let compose = compose("compose.cluster.yaml");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let here = dir.path().to_str().expect("the path is text");
    fs::write(dir.path().join("cluster.toml"), text("cluster.toml")).expect("the directory is ours");
    // The command of the container that writes the configurations. In a compose file a dollar is written twice.
    let configure = texts(&compose["services"]["configure"]["command"]);
    let [shell, options, code] = configure[..] else { panic!("{configure:?}") };
    let code = code
        .replace("$$", "$")
        .replace("/cluster.toml", &format!("{here}/cluster.toml"))
        .replace("/etc/longwire", here);
    succeeded("configure", &Command::new(shell).args([options, &code]).output().expect("there is a shell"));
    for node in NODES {
        let config = fs::read_to_string(dir.path().join(node).with_extension("toml")).expect("it was written");
        assert!(config.contains(&format!("name = \"{node}\"")) && !config.contains("NODE_NUMBER"), "{node}:\n{config}");
        let secret = &secret(&compose["services"][node]);
        check(node, &config, secret);
        // Switch to the other engine, as the comment in the file describes.
        let (redis, nats) = ("engine = \"redis\"\nurls = [\"redis://redis:6379\"]\n", "\n# engine = \"nats\"\n# urls");
        assert!(config.contains(redis) && config.contains(nats), "{config}");
        check("nats", &config.replace(redis, "").replace(nats, "\nengine = \"nats\"\nurls"), secret);
    }
}

#[test]
fn haproxy_takes_its_configuration() {
    // Docker resolves the names of services; here none of them is known.
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-c").arg("-f").arg(folder().join("haproxy.cfg")).stdin(Stdio::null());
    let output = command.output().expect("haproxy is installed (tests/install-deps.sh test)");
    let said = String::from_utf8_lossy(&succeeded("haproxy.cfg", &output).stderr).into_owned();
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("[WARNING]") || line.contains("[ALERT]"))
        .filter(|line| !line.contains("could not resolve address 'node-"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
