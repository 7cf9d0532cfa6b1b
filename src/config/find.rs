//! Which configuration file a command reads when none is named.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where a configuration is looked for, in this order. The first place is what packages install.
const PLACES: [&str; 2] = ["/etc/longwire/longwire.toml", "longwire.toml"];

/// No file was named, and none is where one is looked for.
#[derive(Debug)]
pub struct NoFile;

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [installed, here] = PLACES;
        write!(
            f,
            "no configuration: there is no {installed} and no {here} in this folder; name a file with --config FILE, or run \
             `longwire dev handler.php`, which needs none"
        )
    }
}

impl std::error::Error for NoFile {}

/// The file that was `named`, or the first that exists of `/etc/longwire/longwire.toml` and `longwire.toml` in this folder.
///
/// # Errors
///
/// No file was named, and neither exists.
pub fn file(named: Option<&Path>) -> Result<PathBuf, NoFile> {
    match named {
        Some(file) => Ok(file.to_owned()),
        None => first_of(PLACES.map(Path::new)),
    }
}

fn first_of<'a>(places: impl IntoIterator<Item = &'a Path>) -> Result<PathBuf, NoFile> {
    // A file that this user may not look at is there all the same, and so is a link that leads nowhere: an administrator has made it.
    // Reading it then says what is wrong.
    let is_there =
        |place: &&Path| !place.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    places.into_iter().find(is_there).map(Path::to_owned).ok_or(NoFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_exists_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first.toml", "second.toml"].map(|name| folder.path().join(name));
        let found = || first_of([&*first, &*second]);
        assert!(found().is_err());
        std::fs::write(&second, "").unwrap();
        assert_eq!(found().unwrap(), second);
        std::fs::write(&first, "").unwrap();
        assert_eq!(found().unwrap(), first);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first.toml", "second.toml"].map(|name| folder.path().join(name));
        std::os::unix::fs::symlink(folder.path().join("unmounted"), &first).unwrap();
        std::fs::write(&second, "").unwrap();
        assert_eq!(first_of([&*first, &*second]).unwrap(), first);
    }

    #[test]
    fn a_named_file_is_taken_as_it_is() {
        assert_eq!(file(Some(Path::new("missing.toml"))).unwrap(), Path::new("missing.toml"));
    }

    #[test]
    fn the_error_names_both_places() {
        let error = first_of([]).unwrap_err().to_string();
        assert!(PLACES.iter().all(|place| error.contains(place)), "{error}");
    }
}
