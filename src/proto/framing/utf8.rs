//! Text that arrives in pieces, which may cut a character in two.

use super::error::FrameError;

/// Goes on with a check of text that is still arriving: `checked` bytes are known to be good. A character that lacks
/// its end is not an error yet.
pub(super) fn check_utf8(text: &[u8], checked: &mut usize) -> Result<(), FrameError> {
    match str::from_utf8(&text[*checked..]) {
        Ok(good) => *checked += good.len(),
        Err(error) if error.error_len().is_none() => *checked += error.valid_up_to(),
        Err(_) => return Err(FrameError::NotUtf8),
    }
    Ok(())
}
