//! The process as the kernel sees it, under the names that every Prometheus client library uses. Read when asked for.

use std::fmt::Write as _;
use std::fs;

/// Appends what `/proc/self` tells; what cannot be read is left out.
pub(super) fn render(out: &mut String) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let resident = resident_bytes(&status).map(|bytes| bytes.to_string());
    put(out, "process_resident_memory_bytes", "gauge", resident);
    put(
        out,
        "process_open_fds",
        "gauge",
        files.map(|count| count.to_string()),
    );
    put(out, "process_cpu_seconds_total", "counter", cpu_seconds(&stat));
}

fn put(out: &mut String, name: &str, kind: &str, value: Option<String>) {
    let Some(value) = value else { return };
    let written = writeln!(out, "# TYPE {name} {kind}\n{name}{{}} {value}");
    debug_assert!(written.is_ok(), "a string takes every text");
}

/// `VmRSS:     1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// User and system time, the 14th and 15th field, in the hundredths of a second that Linux counts in.
fn cpu_seconds(stat: &str) -> Option<String> {
    // The second field, the name, may hold anything, brackets and blanks too.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user + system;
    Some(format!("{}.{:02}", ticks / 100, ticks % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(
            resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"),
            Some(1_263_616)
        );
        assert_eq!(resident_bytes("VmRSS:\t x kB\n"), None);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 57 0 0";
        assert_eq!(cpu_seconds(stat).as_deref(), Some("2.07"));
        assert_eq!(cpu_seconds("7 (a"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let mut out = String::new();
        render(&mut out);
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_cpu_seconds_total",
        ] {
            assert!(out.contains(&format!("\n{name}{{}} ")), "{out}");
        }
    }
}
