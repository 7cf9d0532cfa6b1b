//! How much may come: sessions and connections of a node (`admission`), connect events of an app (`gates`), by what a rate allows
//! (`bucket`). What happens where a limit is passed is the same for all of them (`passed`).

mod admission;
mod bucket;
mod gates;
mod passed;

pub use self::admission::{Admission, Permit};
pub(super) use self::bucket::Bucket;
pub use self::gates::ConnectGates;
pub use self::passed::PassedLimits;
