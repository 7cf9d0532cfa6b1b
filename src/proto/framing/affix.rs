//! The bytes that a framing puts before a body, small enough to live on the stack.

use std::fmt;
use std::ops::Deref;

/// Room for the largest WebSocket header (14 bytes, RFC 6455 section 5.2) and for any usual length header; 22 keeps an
/// [`Affix`] at 24 bytes.
const INLINE: usize = 22;

/// Bytes before (or after) a body on the wire. Dereferences to these bytes. Only length headers above 22 bytes cost an allocation.
#[derive(Clone)]
pub struct Affix(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Affix {
    /// No bytes.
    pub const EMPTY: Affix = Affix(Repr::Inline { len: 0, bytes: [0; INLINE] });

    /// `len` zero bytes for the caller to fill in.
    pub(super) fn zeroed(len: usize) -> Self {
        if len <= INLINE {
            Affix(Repr::Inline { len: len as u8, bytes: [0; INLINE] })
        } else {
            Affix(Repr::Heap(vec![0; len].into_boxed_slice()))
        }
    }
}

impl Deref for Affix {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Affix {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Affix {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Repr::Inline { len, bytes } => &mut bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl PartialEq for Affix {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Affix {}

impl fmt::Debug for Affix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Affix({:02x?})", &**self)
    }
}
