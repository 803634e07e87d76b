//! Messages of log events: a `%` template and the values for it, made to text exactly as Python would. Used by the
//! recorder when it writes texts, and by the codec when it reads blocks that keep templates and values apart.

pub mod floats;
pub mod template;
pub mod value;
