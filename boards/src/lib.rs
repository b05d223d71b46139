//! From the workstation to the boards: profiles as data, keys and signatures, flashing over the system's own ssh, and
//! a look at a fleet, unusual frames brought home. What happens on a board is the edge runtime's; this room sends bundles there and reads answers.

pub mod collect;
mod error;
pub mod flash;
pub mod fleet;
pub mod key;
pub mod profiles;
pub mod remote;

pub use error::{Error, Result};
