//! Shared by the mock upstream, the load generator and the relay: a thin epoll wrapper, the monotonic clock,
//! non-blocking socket calls, and the little HTTP parsing that they need. One thread each, no allocation where
//! it would be measured.

pub mod histogram;
pub mod response;

use std::os::fd::RawFd;

/// Nanoseconds of `CLOCK_MONOTONIC`, the same in every process of the machine.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Timers of this process fire when due, not up to 50 µs later.
pub fn fine_timers() {
    // SAFETY: this option takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize, 0, 0, 0) };
}

/// Level-triggered epoll; every socket is watched for input, and for output while `out` is set.
pub struct Epoll {
    fd: RawFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// Takes at most `capacity` events from the kernel at once.
    pub fn new(capacity: usize) -> Self {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0, "epoll_create1");
        Epoll {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; capacity],
        }
    }

    fn control(&self, operation: i32, fd: RawFd, token: u64, out: bool) {
        let interest = libc::EPOLLIN | if out { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: token,
        };
        // SAFETY: `event` lives until the call returns; a bad descriptor is an error code.
        unsafe { libc::epoll_ctl(self.fd, operation, fd, &mut event) };
    }

    pub fn add(&self, fd: RawFd, token: u64, out: bool) {
        self.control(libc::EPOLL_CTL_ADD, fd, token, out);
    }

    pub fn modify(&self, fd: RawFd, token: u64, out: bool) {
        self.control(libc::EPOLL_CTL_MOD, fd, token, out);
    }

    /// Waits at most until `deadline` (`now_ns` time; None: for ever) and fills `ready` with (token, events).
    pub fn wait(&mut self, deadline: Option<u64>, ready: &mut Vec<(u64, u32)>) {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_sub(now_ns());
            libc::timespec {
                tv_sec: (left / 1_000_000_000) as i64,
                tv_nsec: (left % 1_000_000_000) as i64,
            }
        });
        let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the buffer and its length belong together; `timeout` is null or points to `left`.
        let count = unsafe {
            libc::epoll_pwait2(
                self.fd,
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                timeout,
                std::ptr::null(),
            )
        };
        ready.clear();
        ready.extend(
            self.events[..count.max(0) as usize]
                .iter()
                .map(|event| (event.u64, event.events)),
        );
    }
}

pub fn nodelay(fd: RawFd) {
    let one: i32 = 1;
    // SAFETY: the pointer and the length describe `one`.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            std::ptr::from_ref(&one).cast(),
            4,
        );
    }
}

/// `recv`: bytes read, 0 at the end, negative on error or when it would block.
pub fn read_fd(fd: RawFd, buffer: &mut [u8]) -> isize {
    // SAFETY: the pointer and the length describe `buffer`.
    unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) }
}

/// `send` without SIGPIPE: bytes written, negative on error or when it would block.
pub fn write_fd(fd: RawFd, bytes: &[u8]) -> isize {
    // SAFETY: the pointer and the length describe `bytes`.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }
}

pub fn close_fd(fd: RawFd) {
    // SAFETY: callers own the descriptor and forget it with this call.
    unsafe { libc::close(fd) };
}

/// Whether the last call failed only because the socket was not ready.
pub fn would_block() -> bool {
    let kind = std::io::Error::last_os_error().kind();
    kind == std::io::ErrorKind::WouldBlock || kind == std::io::ErrorKind::Interrupted
}

/// Where `needle` first occurs.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() || haystack.len() < needle.len() {
        return None;
    }
    // SAFETY: both pointers and lengths describe the slices.
    let found = unsafe {
        libc::memmem(
            haystack.as_ptr().cast(),
            haystack.len(),
            needle.as_ptr().cast(),
            needle.len(),
        )
    };
    (!found.is_null()).then(|| found as usize - haystack.as_ptr() as usize)
}

/// Case-insensitive header look-up in a raw head (request or response).
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let colon = line.get(name.len())?;
        let same = *colon == b':' && line[..name.len()].eq_ignore_ascii_case(name.as_bytes());
        same.then(|| line[name.len() + 1..].trim_ascii())
    })
}

/// The decimal number that `text` begins with; 0 if none.
pub fn number(text: &[u8]) -> u64 {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
}

/// The hexadecimal number that `text` begins with; 0 if none.
pub fn hexadecimal(text: &[u8]) -> u64 {
    text.iter()
        .map_while(|&byte| (byte as char).to_digit(16))
        .fold(0, |sum, digit| sum * 16 + u64::from(digit))
}
