//! Values that must not be shown: `env:NAME`, `file:PATH`.
//!
//! A [`Secret`] never shows its content, in `Debug` or elsewhere; only [`Secret::reveal`] returns it. The written text
//! is the secret itself, unless it begins with `env:` or `file:`. `plain:` marks the rest as literal, for secrets that begin with
//! one of those words.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Largest secret file. A key or a token is far smaller; the limit catches wrong paths (a log, `/dev/zero`).
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The written text: the secret itself, or where to find it. It is not shown, because it may be the secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SecretText(String);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The content. Do not log it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file named on the command line.
    ///
    /// # Errors
    ///
    /// Names the file and the reason.
    pub fn read_file(path: &Path) -> Result<Self, String> {
        read_file(path).map(|(text, _)| Self(text))
    }

    /// Reads what `written` refers to; relative files are below `base`. The second value is a warning.
    ///
    /// # Errors
    ///
    /// Says, in lower case, why the secret cannot be read.
    pub(super) fn read(written: &SecretText, base: &Path) -> Result<(Self, Option<String>), String> {
        let SecretText(written) = written;
        let (text, warning) = if let Some(name) = written.strip_prefix("env:") {
            (std::env::var(name).map_err(|error| format!("environment variable {name}: {error}"))?, None)
        } else if let Some(path) = written.strip_prefix("file:") {
            read_file(&base.join(path))?
        } else {
            (written.strip_prefix("plain:").unwrap_or(written).to_owned(), None)
        };
        if text.contains('\0') {
            return Err("contains a NUL character".into());
        }
        Ok((Self(text), warning))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

fn read_file(path: &Path) -> Result<(String, Option<String>), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(fail)?;
    let readable_by_all = file.metadata().map_err(fail)?.permissions().mode() & 0o004 != 0;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{}: a secret has at most {MAX_FILE_BYTES} bytes", path.display()));
    }
    // Editors and `echo` end files with a newline that is not part of a key.
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned();
    let warning = readable_by_all.then(|| format!("{} can be read by every user of this machine", path.display()));
    Ok((text, warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, base: &Path, expected: Result<(&str, bool), &str>) {
        match (Secret::read(&written.to_owned().into(), base), expected) {
            (Ok((secret, warning)), Ok((text, warned))) => {
                assert_eq!((secret.reveal(), warning.is_some()), (text, warned), "{written}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{written}: {error}"),
            (got, _) => panic!("{written}: {got:?}"),
        }
    }

    #[test]
    fn secrets_come_from_where_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, mode) in [("tight", "s3cret\r\n", 0o600), ("open", "s3cret\n\n", 0o644)] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::write(folder.path().join("big"), vec![b'x'; MAX_FILE_BYTES as usize + 1]).unwrap();
        let path = std::env::var("PATH").unwrap();
        for (written, expected) in [
            ("file:tight", Ok(("s3cret", false))),
            ("file:open", Ok(("s3cret\n", true))),
            ("file:absent", Err("No such file")),
            ("file:big", Err("at most 65536 bytes")),
            ("env:PATH", Ok((path.as_str(), false))),
            ("env:LONGWIRE_NO_SUCH_VARIABLE", Err("environment variable LONGWIRE_NO_SUCH_VARIABLE")),
            ("literal", Ok(("literal", false))),
            ("plain:env:PATH", Ok(("env:PATH", false))),
        ] {
            check(written, folder.path(), expected);
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::from("s3cret")), "Secret(..)");
        assert_eq!(format!("{:?}", SecretText::from("s3cret".to_owned())), "SecretText(..)");
    }
}
