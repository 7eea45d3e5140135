//! HTTP/1.1 as both sides of the gateway speak it: what ends a body, how a head's fields are read and written, how
//! bytes get from and to a socket without a buffer of each connection's own.
//!
//! `input` reads, `decoder` finds a body's end, `fields` reads and writes header fields, `output` writes. Who talks
//! when, and what a head means, is the business of the two sides themselves (`upstream::http1`, `proxy::http1`).

mod decoder;
mod fields;
mod input;
mod output;

#[cfg(test)]
mod tests;

pub use decoder::{Chunked, Decoded, Framing};
pub use fields::{
    MOST_FIELDS, digits, has_option, header_map, may_trail, parse_failure, write_field, write_number,
};
pub use input::poll_read;
pub use output::{Misfit, Outbound, Output, room};
