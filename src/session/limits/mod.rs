//! Limits on what clients may do: sessions and connections of a node (`admission`) and connect events of an app
//! (`gates`). `bucket` has the rates. `passed` handles an exceeded limit, in the same way for all of them.

mod admission;
mod bucket;
mod gates;
mod passed;

pub use self::admission::{Admission, Permit};
pub(super) use self::bucket::Bucket;
pub use self::gates::ConnectGates;
pub use self::passed::PassedLimits;
