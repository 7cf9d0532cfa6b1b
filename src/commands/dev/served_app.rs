//! The argument of `longwire dev`: a script, or a folder that has one.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the script in a folder.
const HANDLER: &str = "handler.php";
/// The name of the page in a folder.
const PAGE: &str = "index.html";
/// The path of the built-in page if the folder has a page of its own.
const ASIDE: &str = "/_longwire";

/// The script and, if the argument is a folder, its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServedApp {
    /// The handler of every event.
    pub(super) script: PathBuf,
    /// The folder whose files browsers may load.
    pub(super) folder: Option<PathBuf>,
    has_page: bool,
}

/// Why the script or folder cannot be served.
#[derive(Debug)]
pub enum ServedAppError {
    /// The path cannot be read.
    Path(PathBuf, io::Error),
    /// The folder has no `handler.php`.
    NoHandler(PathBuf),
}

impl fmt::Display for ServedAppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServedAppError::Path(path, error) => write!(f, "{}: {error}", path.display()),
            ServedAppError::NoHandler(folder) => {
                write!(
                    f,
                    "{} has no {HANDLER}; if the script has another name, give its path instead of the folder",
                    folder.display()
                )
            }
        }
    }
}

impl std::error::Error for ServedAppError {}

impl ServedApp {
    /// Looks up the path of the command line.
    pub(super) fn find(path: &Path) -> Result<Self, ServedAppError> {
        let real = path.canonicalize().map_err(|error| ServedAppError::Path(path.to_owned(), error))?;
        if !real.is_dir() {
            return Ok(Self { script: real, folder: None, has_page: false });
        }
        let script = real.join(HANDLER);
        if !script.is_file() {
            return Err(ServedAppError::NoHandler(path.to_owned()));
        }
        let has_page = real.join(PAGE).is_file();
        Ok(Self { script, folder: Some(real), has_page })
    }

    /// Whether this user can read the script. The php-fpm of `dev` runs as this user.
    pub(super) fn check_readable(&self) -> Result<(), ServedAppError> {
        File::open(&self.script).map(drop).map_err(|error| ServedAppError::Path(self.script.clone(), error))
    }

    /// Whether the folder has a page of its own.
    pub(super) fn has_page(&self) -> bool {
        self.has_page
    }

    /// The path of the page that is built into this program.
    pub(super) fn built_in_page(&self) -> &'static str {
        if self.has_page { ASIDE } else { "/" }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_its_handler_its_files_and_its_page() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        let missing = ServedApp::find(&folder).unwrap_err().to_string();
        assert!(missing.contains("has no handler.php"), "{missing}");

        fs::write(folder.join(HANDLER), "<?php").unwrap();
        let bare = ServedApp::find(&folder).unwrap();
        assert_eq!((&bare.script, &bare.folder), (&folder.join(HANDLER), &Some(folder.clone())));
        assert_eq!(bare.built_in_page(), "/");

        fs::write(folder.join(PAGE), "<!doctype html>").unwrap();
        assert_eq!(ServedApp::find(&folder).unwrap().built_in_page(), "/_longwire");

        let script = ServedApp::find(&folder.join(HANDLER)).unwrap();
        assert_eq!((script.folder.as_ref(), script.built_in_page()), (None, "/"));
        assert!(ServedApp::find(&folder.join("nowhere")).is_err());
    }
}
