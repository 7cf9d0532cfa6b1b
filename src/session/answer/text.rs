//! Checks whether text that arrives in pieces is UTF-8.

/// Remembers the beginning of a character that was cut at the end of the last piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextCheck {
    cut: [u8; 4],
    cut_len: usize,
}

impl TextCheck {
    /// Checks the next piece. Returns false if the text cannot be UTF-8 any more.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> bool {
        while self.cut_len > 0 && !piece.is_empty() {
            self.cut[self.cut_len] = piece[0];
            self.cut_len += 1;
            piece = &piece[1..];
            match str::from_utf8(&self.cut[..self.cut_len]) {
                Ok(_) => self.cut_len = 0,
                // `None`: still the beginning of a character, which is never longer than four bytes.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let rest = &piece[error.valid_up_to()..];
                self.cut[..rest.len()].copy_from_slice(rest);
                self.cut_len = rest.len();
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the text may end here, because no character is cut.
    pub(super) fn is_whole(&self) -> bool {
        self.cut_len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TextCheck;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut check = TextCheck::default();
        pieces.iter().all(|piece| check.push(piece)) && check.is_whole()
    }

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole_is(
            bytes in prop_oneof![
                "\\PC{0,20}".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..12),
            ],
            size in 1_usize..5,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(check(&pieces), str::from_utf8(&bytes).is_ok());
        }
    }
}
