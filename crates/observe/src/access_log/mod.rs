//! The access log: a format compiled once, lines written into a worker's buffer, one thread that does the I/O.
//!
//! `format` reads Envoy's operator language, `operator` is its table, `value` prints one operator, `escape` keeps a
//! line one line, `sink` takes finished lines off the data path.

mod escape;
mod format;
mod json;
mod operator;
mod sink;
#[cfg(test)]
mod tests;
mod time;
mod value;

pub use escape::escaped;
pub use format::{Encoding, Format, FormatError, HIGRESS_DEFAULT};
pub use operator::{OperatorDoc, operators};
pub use sink::{LineWriter, Sink, Target};
pub(crate) use value::{address_text, covered, ip_text};
