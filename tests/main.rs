//! Black-box scenarios: each starts the real binary on free ports with a mock vendor of its own behind it, and looks
//! only at what a client, an operator or the vendor sees. They run in parallel and share nothing.

#[cfg(test)]
mod bodies;
#[cfg(test)]
mod document_000;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod timers;
