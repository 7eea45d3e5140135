//! The fetcher against servers of our own: image layouts, challenges, digests, redirects, failures, cache.

mod images;
mod server;
mod sources;
