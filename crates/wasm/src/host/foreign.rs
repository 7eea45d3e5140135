//! Foreign functions: those that Higress's plugins call. An unknown name is "not found", on which they rely.

use std::io::Read;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};

use super::header::Range;
use super::{Guest, Outcome, Status, control, give, log, read_text, slice};
use crate::generation::Generation;
use crate::limits::Bound;

pub(super) fn call(guest: &mut Guest<'_>, name: Range, argument: Range, to: u32, size_to: u32) -> Outcome {
    let name = read_text(guest, name.0, name.1)?;
    let bytes = slice(guest, argument.0, argument.1)?;
    let result = match name.as_str() {
        "get_log_level" => log::level().to_le_bytes().to_vec(),
        "set_global_max_requests_per_io_cycle" | "declare_property" => Vec::new(),
        "inject_encoded_data_to_filter_chain" | "inject_encoded_data_to_filter_chain_on_header" => {
            let (body, end) = injection(bytes).ok_or(Status::ParseFailure)?;
            control::inject_bytes(guest.data_mut(), body, end)?;
            Vec::new()
        }
        "compress" => compress(&guest.data().generation, bytes)?,
        "uncompress" => uncompress(&guest.data().generation, bytes)?,
        _ => return Err(Status::NotFound.into()),
    };
    // A caller without use for the result passes no place for it.
    if to == 0 || size_to == 0 {
        return Ok(());
    }
    give(guest, &result, to, size_to)
}

fn compress(generation: &Generation, bytes: &[u8]) -> Result<Vec<u8>, Status> {
    if bytes.len() > generation.host.limits.compress {
        generation.metrics.beyond(Bound::Compress);
        return Err(Status::InternalFailure);
    }
    through(ZlibEncoder::new(bytes, Compression::default()))
}

/// Also what goes in is bounded: there are endless texts that stand for nothing.
fn uncompress(generation: &Generation, bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let most = generation.host.limits.uncompress;
    let made = match bytes.len() <= most {
        true => through(ZlibDecoder::new(bytes).take(most as u64 + 1))?,
        false => Vec::new(),
    };
    if bytes.len().max(made.len()) > most {
        generation.metrics.beyond(Bound::Uncompress);
        return Err(Status::InternalFailure);
    }
    Ok(made)
}

fn through(mut stream: impl Read) -> Result<Vec<u8>, Status> {
    let mut out = Vec::new();
    match stream.read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(_) => Err(Status::SerializationFailure),
    }
}

/// The protobuf message `{1: bytes body, 2: bool end}`.
fn injection(mut message: &[u8]) -> Option<(Bytes, bool)> {
    let (mut body, mut end) = (Bytes::new(), false);
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag {
            0x0a => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (piece, rest) = message.split_at_checked(length)?;
                body = Bytes::copy_from_slice(piece);
                message = rest;
            }
            0x10 => end = varint(&mut message)? != 0,
            _ => return None,
        }
    }
    Some((body, end))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_are_read_and_damaged_ones_refused() {
        assert_eq!(
            injection(b"\x0a\x02hi\x10\x01"),
            Some((Bytes::from_static(b"hi"), true))
        );
        assert_eq!(injection(b""), Some((Bytes::new(), false)));
        for bad in [
            &b"\x0a\x05hi"[..],
            b"\x1a\x00",
            b"\x10",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(injection(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let packed = through(ZlibEncoder::new(&b"aaaa"[..], Compression::default())).unwrap();
        assert_eq!(through(ZlibDecoder::new(&packed[..])).unwrap(), b"aaaa");
        assert!(through(ZlibDecoder::new(&b"junk"[..])).is_err());
    }
}
