//! A module out of its wrapping: gzip around tar, as images and some web servers deliver it (wasm-host spec §8).
//!
//! Nothing is written to disk, no path of an archive is believed, and no wrapping can grow beyond the module's limit.

use std::io::{ErrorKind, Read};

use flate2::read::MultiGzDecoder;

/// What every module begins with.
const MAGIC: &[u8] = b"\0asm";
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Where a POSIX archive says that it is one.
const USTAR: std::ops::Range<usize> = 257..262;
/// Wrappings inside one another that are opened.
const MOST_LAYERS: usize = 4;
/// Entries of an archive that are looked at.
const MOST_ENTRIES: usize = 1000;
/// Name of the module in an image's archive.
const MODULE_NAME: &str = "plugin.wasm";

/// Whether these bytes begin as a module does.
pub(crate) fn is_module(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The module in what a web server sent: itself, or the first file of an archive, perhaps compressed.
///
/// # Errors
/// Why there is none.
pub(crate) fn from_web(bytes: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut current = bytes.to_vec();
    for _ in 0..MOST_LAYERS {
        current = if is_module(&current) {
            return Ok(current);
        } else if current.starts_with(GZIP) {
            read(MultiGzDecoder::new(&current[..]), limit)?
        } else if current.get(USTAR) == Some(b"ustar") {
            first_file(&current[..], limit, |_| true)?.ok_or("the archive has no file")?
        } else {
            break;
        };
    }
    match is_module(&current) {
        true => Ok(current),
        false => Err("this is no Wasm module".to_owned()),
    }
}

/// The module in an image's layer: `plugin.wasm` of a compressed archive.
///
/// # Errors
/// Why there is none.
pub(crate) fn from_layer(bytes: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let named = |path: &std::path::Path| path.file_name().is_some_and(|name| name == MODULE_NAME);
    let found = first_file(MultiGzDecoder::new(bytes), limit, named)?;
    let module = found.ok_or_else(|| format!("the layer has no {MODULE_NAME}"))?;
    match is_module(&module) {
        true => Ok(module),
        false => Err(format!("{MODULE_NAME} is no Wasm module")),
    }
}

fn first_file(
    source: impl Read,
    limit: usize,
    wanted: impl Fn(&std::path::Path) -> bool,
) -> Result<Option<Vec<u8>>, String> {
    let broken = |cause: std::io::Error| match cause.kind() {
        ErrorKind::FileTooLarge => cause.to_string(),
        _ => format!("broken archive: {cause}"),
    };
    // What lies in front of the module is unpacked too, and is no reason to work for ever.
    let bounded = Bounded {
        source,
        left: limit.saturating_mul(2),
        limit,
    };
    let mut archive = tar::Archive::new(bounded);
    for entry in archive.entries().map_err(broken)?.take(MOST_ENTRIES) {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?;
        if entry.header().entry_type().is_file() && wanted(&path) {
            return read(entry, limit).map(Some);
        }
    }
    Ok(None)
}

fn read(source: impl Read, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|cause| match cause.kind() {
            ErrorKind::FileTooLarge => cause.to_string(),
            _ => format!("broken archive: {cause}"),
        })?;
    match bytes.len() > limit {
        true => Err(too_large(limit)),
        false => Ok(bytes),
    }
}

/// The words for a module beyond its limit.
pub(crate) fn too_large(limit: usize) -> String {
    format!("the module is larger than wasm_module_limit, {limit} bytes")
}

/// A source that fails when more than `left` bytes are read of it.
struct Bounded<R> {
    source: R,
    left: usize,
    limit: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        let Some(left) = self.left.checked_sub(count) else {
            return Err(std::io::Error::new(
                ErrorKind::FileTooLarge,
                too_large(self.limit),
            ));
        };
        self.left = left;
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    pub(crate) const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const LIMIT: usize = 4096;

    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_module_is_found_in_every_wrapping() {
        let tar = archive(&[("any.wasm", MODULE)]);
        for wrapped in [
            MODULE.to_vec(),
            gzip(MODULE),
            tar.clone(),
            gzip(&tar),
            gzip(&gzip(MODULE)),
        ] {
            assert_eq!(from_web(&wrapped, LIMIT).unwrap(), MODULE);
        }
        let layer = gzip(&archive(&[("README.md", b"x"), ("opt/plugin.wasm", MODULE)]));
        assert_eq!(from_layer(&layer, LIMIT).unwrap(), MODULE);
    }

    #[test]
    fn what_holds_none_is_told() {
        assert_eq!(from_web(b"<html>", LIMIT).unwrap_err(), "this is no Wasm module");
        assert_eq!(from_web(b"", LIMIT).unwrap_err(), "this is no Wasm module");
        assert!(
            from_web(&[0x1f, 0x8b, 1, 2], LIMIT)
                .unwrap_err()
                .contains("broken archive")
        );
        let nested = (0..8).fold(MODULE.to_vec(), |inner, _| gzip(&inner));
        assert_eq!(from_web(&nested, LIMIT).unwrap_err(), "this is no Wasm module");
        let other = gzip(&archive(&[("other.wasm", MODULE)]));
        assert_eq!(
            from_layer(&other, LIMIT).unwrap_err(),
            "the layer has no plugin.wasm"
        );
        let text = gzip(&archive(&[("plugin.wasm", b"text")]));
        assert_eq!(
            from_layer(&text, LIMIT).unwrap_err(),
            "plugin.wasm is no Wasm module"
        );
        let cut = &gzip(&archive(&[("plugin.wasm", MODULE)]))[..40];
        assert!(from_layer(cut, LIMIT).unwrap_err().contains("broken archive"));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut large = MODULE.to_vec();
        large.resize(1 << 20, 0);
        let told = too_large(LIMIT);
        assert_eq!(from_web(&gzip(&large), LIMIT).unwrap_err(), told);
        assert_eq!(
            from_layer(&gzip(&archive(&[("plugin.wasm", &large)])), LIMIT).unwrap_err(),
            told
        );
        let behind = gzip(&archive(&[("padding", &large), ("plugin.wasm", MODULE)]));
        assert_eq!(from_layer(&behind, LIMIT).unwrap_err(), told);
    }
}
