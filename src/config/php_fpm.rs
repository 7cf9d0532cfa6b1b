//! Finds the php-fpm binary for an embedded pool.
//!
//! Distributions name it `php-fpm8.2` (Debian), `php-fpm82` (Alpine) or `php-fpm` (Fedora, the official images), and put
//! it in a folder that is not in the PATH of an ordinary user.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Folders searched in addition to PATH.
const MORE_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin"];

/// The binary to start: `binary` if the operator named one, otherwise the newest php-fpm of the first folder that has any. Folders are
/// searched in the order of PATH.
///
/// # Errors
///
/// One line that says what is missing. If no binary was named, it says which package to install.
pub fn find(binary: Option<&Path>) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from)).collect();
    find_in(binary, &folders)
}

fn find_in(binary: Option<&Path>, folders: &[PathBuf]) -> Result<PathBuf, String> {
    match binary {
        Some(path) if path.components().count() > 1 => {
            if is_executable(path) {
                Ok(path.to_owned())
            } else {
                Err(format!("{} is not an executable file", path.display()))
            }
        }
        Some(name) => folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| is_executable(path))
            .ok_or_else(|| format!("{} is in no folder of PATH", name.display())),
        None => folders.iter().find_map(|folder| newest(folder)).ok_or_else(|| {
            "no php-fpm on this machine: install the package php-fpm (Debian, Ubuntu, Fedora) or php84-fpm (Alpine)"
                .into()
        }),
    }
}

fn newest(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    files
        .filter_map(|file| Some((version(&file.file_name())?, file.path())))
        .filter(|(_, path)| is_executable(path))
        .max_by_key(|(version, _)| *version)
        .map(|(_, path)| path)
}

/// Orders `php-fpm8.10` after `php-fpm8.9`, and both after `php-fpm`. `None` if the name is not one of php-fpm.
fn version(name: &OsStr) -> Option<(u32, u32)> {
    let rest = name.to_str()?.strip_prefix("php-fpm")?;
    if rest.is_empty() {
        return Some((0, 0));
    }
    let (major, minor) = match rest.split_once('.') {
        Some(parts) => parts,
        // Alpine leaves the dot out.
        None => rest.split_at_checked(1)?,
    };
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_php_fpm_is_found_and_a_named_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        };
        let folders = [PathBuf::from("/no/such/folder"), folder.path().to_owned()];
        let find = |binary: Option<&str>| find_in(binary.map(Path::new), &folders);

        assert!(find(None).unwrap_err().contains("install the package"));
        let plain = make("php-fpm", 0o755);
        assert_eq!(find(None), Ok(plain));
        let (nine, ten) = (make("php-fpm8.9", 0o755), make("php-fpm8.10", 0o755));
        make("php-fpm9.0", 0o644);
        make("php-fpm-healthcheck", 0o755);
        assert_eq!(find(None), Ok(ten));
        assert_eq!(find(Some("php-fpm8.9")), Ok(nine.clone()));
        assert_eq!(find(nine.to_str()), Ok(nine));
        assert!(find(Some("php-fpm7.4")).unwrap_err().contains("in no folder of PATH"));
        assert!(find(Some("/no/php-fpm")).unwrap_err().contains("not an executable file"));
        let alpine = make("php-fpm90", 0o755);
        assert_eq!(find(None), Ok(alpine.clone()));

        let later = tempfile::tempdir().unwrap();
        let newer = later.path().join("php-fpm99.0");
        std::fs::copy(&alpine, &newer).unwrap();
        let both = [folder.path().to_owned(), later.path().to_owned()];
        assert_eq!(find_in(None, &both), Ok(alpine), "the order of PATH counts before the version");
        assert_eq!(find_in(None, &[both[1].clone(), both[0].clone()]), Ok(newer));
    }
}
