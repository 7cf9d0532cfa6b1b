//! Checks that the files named in docs/architecture.md exist.

use std::path::Path;

const MAP: &str = include_str!("../../../docs/architecture.md");

#[test]
fn every_file_on_the_map_is_there() {
    let named = paths(MAP);
    assert!(named.len() > 50, "{named:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<&str> =
        named.into_iter().filter(|path| !root.join(path).exists() && !root.join("src").join(path).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// The paths in backticks.
fn paths(text: &str) -> Vec<&str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| code.contains('/') && !code.contains([' ', '=', '$', '[']))
        .collect()
}

#[test]
fn paths_are_told_from_other_code() {
    let text = "`a/b.rs` and `c` and `x = 1/2`\n`src/d/` not `make test`";
    assert_eq!(paths(text), ["a/b.rs", "src/d/"]);
}
