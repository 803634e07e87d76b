//! The one error of the codec: a text that names the thing that is wrong. It never carries bytes of the input.

use std::fmt;

/// Why a body, a layout or a buffer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(String);

pub type Result<T> = std::result::Result<T, WireError>;

impl WireError {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same error, told from one level further out: `payload: objects: …`.
    pub fn within(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for WireError {}

/// Builds a `WireError` with the arguments of `format!`.
macro_rules! wire_error {
    ($($argument:tt)*) => { $crate::codec::error::WireError::new(format!($($argument)*)) };
}
pub(crate) use wire_error;
