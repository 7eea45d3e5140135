//! Tests of the mock through its sockets, with clients that see every byte.

mod client;
mod dialects;
mod faults;
mod h2;
mod openai;
mod plain;
