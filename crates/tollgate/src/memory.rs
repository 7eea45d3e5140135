//! How the process gets its memory: in pages of the usual size.
//!
//! The allocator asks the kernel for huge pages. Each then counts whole, 2 MB, as soon as one byte of it is used: an
//! idle gateway took 26 MB instead of 16, an open stream 35 KB instead of 23. No request got slower without them.

/// Asks the kernel for pages of the usual size. A kernel that refuses costs memory only.
pub(crate) fn prefer_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(cause) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(error = %cause, "huge pages stay on");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_kernel_is_told() {
        super::prefer_small_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
