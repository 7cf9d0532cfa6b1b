//! Checks text that arrives in pieces, where a character may be split between two.

use super::error::FrameError;

/// Continues the check of text that is still arriving: the first `checked` bytes are known to be valid. An incomplete character at the
/// end is not an error yet.
pub(super) fn check_utf8(text: &[u8], checked: &mut usize) -> Result<(), FrameError> {
    match str::from_utf8(&text[*checked..]) {
        Ok(good) => *checked += good.len(),
        Err(error) if error.error_len().is_none() => *checked += error.valid_up_to(),
        Err(_) => return Err(FrameError::NotUtf8),
    }
    Ok(())
}
