//! The man pages and completions that packages install, made from the command line.
//!
//! `LONGWIRE_BLESS=1 cargo test --test it generated` writes them; read the difference before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use longwire::commands::cli::Cli;

/// The command line as packages describe it: without the features and the commit of this build.
fn command() -> clap::Command {
    Cli::command().version(env!("CARGO_PKG_VERSION"))
}

/// Each file by its path in `packaging/`.
fn generated() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(command(), folder.path()).unwrap();
    let mut files = BTreeMap::new();
    for page in fs::read_dir(folder.path()).unwrap() {
        let page = page.unwrap();
        files.insert(format!("man/{}", page.file_name().into_string().unwrap()), fs::read(page.path()).unwrap());
    }
    for (shell, name) in [(Shell::Bash, "longwire.bash"), (Shell::Zsh, "_longwire"), (Shell::Fish, "longwire.fish")] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "longwire", &mut script);
        files.insert(format!("completions/{name}"), script);
    }
    files
}

#[test]
fn man_pages_and_completions_are_those_of_the_command_line() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let made = generated();
    assert!(made.contains_key("man/longwire.1") && made.contains_key("man/longwire-serve.1"), "{:?}", made.keys());
    if std::env::var_os("LONGWIRE_BLESS").is_some() {
        for (name, content) in &made {
            let file = packaging.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
    }
    let mut written = BTreeMap::new();
    for folder in ["man", "completions"] {
        for file in fs::read_dir(packaging.join(folder)).expect("it is part of the repository") {
            let file = file.unwrap();
            written.insert(
                format!("{folder}/{}", file.file_name().into_string().unwrap()),
                fs::read(file.path()).unwrap(),
            );
        }
    }
    let differing: Vec<_> =
        made.keys().chain(written.keys()).filter(|name| made.get(*name) != written.get(*name)).collect();
    assert!(differing.is_empty(), "these differ: {differing:?}; see the top of this file");
}
