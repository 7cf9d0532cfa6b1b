//! What `dev` is pointed at: a script, or a folder around one.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The script of a folder.
const HANDLER: &str = "handler.php";
/// The page of a folder.
const PAGE: &str = "index.html";
/// Where the built-in page goes when the folder has one of its own.
const ASIDE: &str = "/_longwire";

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// The handler of every event.
    pub(super) script: PathBuf,
    /// Whose files browsers may load.
    pub(super) folder: Option<PathBuf>,
    has_page: bool,
}

/// Why there is nothing to serve.
#[derive(Debug)]
pub enum SubjectError {
    /// The path cannot be read.
    Path(PathBuf, io::Error),
    /// The folder has no script that we would know.
    NoHandler(PathBuf),
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectError::Path(path, error) => write!(f, "{}: {error}", path.display()),
            SubjectError::NoHandler(folder) => {
                write!(f, "{} has no {HANDLER}; name the script itself if it has another name", folder.display())
            }
        }
    }
}

impl std::error::Error for SubjectError {}

impl Subject {
    /// Looks at what the command line names.
    pub(super) fn find(path: &Path) -> Result<Self, SubjectError> {
        let real = path.canonicalize().map_err(|error| SubjectError::Path(path.to_owned(), error))?;
        if !real.is_dir() {
            return Ok(Self { script: real, folder: None, has_page: false });
        }
        let script = real.join(HANDLER);
        if !script.is_file() {
            return Err(SubjectError::NoHandler(path.to_owned()));
        }
        let has_page = real.join(PAGE).is_file();
        Ok(Self { script, folder: Some(real), has_page })
    }

    /// Whether a php-fpm that runs as this user, as that of `dev` does, can read the script.
    pub(super) fn check_readable(&self) -> Result<(), SubjectError> {
        File::open(&self.script).map(drop).map_err(|error| SubjectError::Path(self.script.clone(), error))
    }

    /// Whether the folder brings a page of its own.
    pub(super) fn has_page(&self) -> bool {
        self.has_page
    }

    /// Where the page is that is part of this program.
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
        let missing = Subject::find(&folder).unwrap_err().to_string();
        assert!(missing.contains("has no handler.php"), "{missing}");

        fs::write(folder.join(HANDLER), "<?php").unwrap();
        let bare = Subject::find(&folder).unwrap();
        assert_eq!((&bare.script, &bare.folder), (&folder.join(HANDLER), &Some(folder.clone())));
        assert_eq!(bare.built_in_page(), "/");

        fs::write(folder.join(PAGE), "<!doctype html>").unwrap();
        assert_eq!(Subject::find(&folder).unwrap().built_in_page(), "/_longwire");

        let script = Subject::find(&folder.join(HANDLER)).unwrap();
        assert_eq!((script.folder.as_ref(), script.built_in_page()), (None, "/"));
        assert!(Subject::find(&folder.join("nowhere")).is_err());
    }
}
