//! Checks that the packages linked into the program keep the rules of `deny.toml` that can be checked without a network.
//!
//! `cargo deny check` reads the same file and the advisory database besides, which has to be fetched.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

/// The rules, as `deny.toml` has them.
#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    sources: Sources,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
}

/// One package of `cargo metadata`.
struct Package {
    name: String,
    license: Option<String>,
    /// Where cargo takes it from; none is this repository itself.
    source: Option<String>,
}

#[test]
fn each_dependency_may_be_used_and_comes_from_the_registry() {
    let rules = rules(include_str!("../../../deny.toml"));
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    let complaints: Vec<String> = packages.iter().flat_map(|package| complaints(&rules, package)).collect();
    assert_eq!(complaints, Vec::<String>::new());
}

fn rules(text: &str) -> Rules {
    toml::from_str(text).expect("the rules have this shape")
}

/// All packages that this platform's program and tests are built from.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", &host(), "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().expect("a list of packages").iter();
    packages
        .map(|package| Package {
            name: text(&package["name"]).expect("each has a name"),
            license: text(&package["license"]),
            source: text(&package["source"]),
        })
        .collect()
}

/// The platform that cargo builds for here: cargo has fetched the packages of this one.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc starts");
    let text = String::from_utf8(output.stdout).expect("rustc writes UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

#[test]
fn no_platform_has_a_banned_dependency() {
    let (rules, lock) = (rules(include_str!("../../../deny.toml")), include_str!("../../../Cargo.lock"));
    for ban in rules.bans.deny {
        assert!(!lock.contains(&format!("name = \"{}\"\n", ban.name)), "{} is in Cargo.lock", ban.name);
    }
}

fn complaints(rules: &Rules, package: &Package) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = &package.name;
    match &package.license {
        None => complaints.push(format!("{name} names no licence")),
        Some(license) => match Expression::parse_mode(license, ParseMode::LAX) {
            Err(error) => complaints.push(format!("{name}: {license} is no SPDX expression: {error}")),
            Ok(expression) if !may_be_used(rules, &expression) => {
                complaints.push(format!("{name}: {license} is not in [licenses] allow"));
            }
            Ok(_) => {}
        },
    }
    if let Some(source) = &package.source {
        let registry = source.strip_prefix("registry+");
        if !registry.is_some_and(|registry| rules.sources.allow_registry.iter().any(|allowed| allowed == registry)) {
            complaints.push(format!("{name} comes from {source}"));
        }
    }
    if rules.bans.deny.iter().any(|ban| ban.name == *name) {
        complaints.push(format!("{name} is banned"));
    }
    complaints
}

/// Whether the licences that are allowed satisfy the expression. An exception (`WITH`) only adds to what a licence permits.
fn may_be_used(rules: &Rules, expression: &Expression) -> bool {
    expression.evaluate(|requirement| {
        requirement.license.id().is_some_and(|id| rules.licenses.allow.iter().any(|allowed| allowed == id.name))
    })
}

#[test]
fn a_package_that_breaks_a_rule_is_named() {
    let rules = rules(
        r#"
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        [sources]
        allow-registry = ["https://index.example"]
        [bans]
        deny = [{ crate = "bad", reason = "it is" }]
        "#,
    );
    let index = Some("registry+https://index.example");
    for (name, license, source, expected) in [
        ("a", Some("MIT OR Apache-2.0"), index, &[][..]),
        ("a", Some("MIT/GPL-3.0"), None, &[]),
        ("a", Some("Apache-2.0 WITH LLVM-exception"), index, &[]),
        ("a", Some("MIT AND ISC"), index, &["a: MIT AND ISC is not in [licenses] allow"]),
        ("a", None, index, &["a names no licence"]),
        ("a", Some("MIT"), Some("git+https://host.example/a"), &["a comes from git+https://host.example/a"]),
        ("bad", Some("MIT"), index, &["bad is banned"]),
    ] {
        let package =
            Package { name: name.to_owned(), license: license.map(str::to_owned), source: source.map(str::to_owned) };
        assert_eq!(complaints(&rules, &package), expected, "{license:?} {source:?}");
    }
}
