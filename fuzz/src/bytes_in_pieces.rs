//! Streams of bytes: however they are cut into frames, what is read of them is the same, and nothing is lost.
//!
//! The first byte of an input says how long the frames are.

use bytes::{Bytes, BytesMut};
use tollgate_body::SseDecoder;
use tollgate_body::http1::{Chunked, Framing};

/// Events of a stream, cut by the decoder.
pub(crate) fn event_stream(input: &[u8]) {
    let Some((size, stream)) = input.split_first() else {
        return;
    };
    let (whole, pieces) = (events(stream, stream.len()), events(stream, usize::from(*size)));
    assert_eq!(whole, pieces, "frames decide what an event is");
    let joined = whole.concat();
    assert!(stream.starts_with(&joined), "events are not the bytes that came");
}

fn events(stream: &[u8], size: usize) -> Vec<Bytes> {
    let mut decoder = SseDecoder::new();
    let mut events = Vec::new();
    for frame in stream.chunks(size.max(1)) {
        for event in decoder.push(Bytes::copy_from_slice(frame)).flatten() {
            // What is asked of an event on its way.
            let _ = (event.data_slice(), event.event(), event.id(), event.is_done());
            events.push(event.into_bytes());
        }
    }
    events
}

/// A chunked body.
pub(crate) fn chunked_body(input: &[u8]) {
    let Some((size, body)) = input.split_first() else {
        return;
    };
    let (whole, pieces) = (payload(body, body.len()), payload(body, usize::from(*size)));
    assert_eq!(whole, pieces, "frames decide what a chunk is");
    assert!(whole.0.len() <= body.len(), "a payload of more than came");
}

/// The payload, whether it ended, and why it is broken.
fn payload(body: &[u8], size: usize) -> (Vec<u8>, bool, Option<&'static str>) {
    let mut framing = Framing::Chunked(Chunked::default());
    let mut payload = Vec::new();
    for frame in body.chunks(size.max(1)) {
        let mut input = BytesMut::from(frame);
        let decoded = framing.decode(&mut input);
        payload.extend_from_slice(&decoded.data);
        if decoded.ended || decoded.broken.is_some() {
            return (payload, decoded.ended, decoded.broken);
        }
    }
    (payload, false, None)
}
