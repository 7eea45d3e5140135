//! Tests of the mock through its sockets, with clients that see every byte.

mod client;
mod openai;
mod plain;
