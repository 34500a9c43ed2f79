//! What the rare paths share. Bytes are read and written through helpers, not pointers: offsets vary, and
//! nobody counts nanoseconds here.

pub mod covers;
pub mod fragment;
pub mod inside;
pub mod locate;
pub mod quote;
