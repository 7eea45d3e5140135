//! A text in every content coding, for tests of what undoes them.

use std::io::Write;

/// One event, a hundred times: what compresses well.
#[must_use]
pub fn text() -> Vec<u8> {
    b"data: {\"usage\":{\"prompt_tokens\":5}}\n\n".repeat(100)
}

/// The text in every coding.
#[must_use]
#[expect(clippy::expect_used, reason = "a vector takes everything")]
pub fn compressed(text: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let level = flate2::Compression::default();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(text).expect("a vector takes everything");
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), level);
    deflate.write_all(text).expect("a vector takes everything");
    let mut brotli = Vec::new();
    brotli::BrotliCompress(
        &mut &*text,
        &mut brotli,
        &brotli::enc::BrotliEncoderParams::default(),
    )
    .expect("a vector takes everything");
    [
        ("gzip", gzip.finish().expect("a vector takes everything")),
        ("deflate", deflate.finish().expect("a vector takes everything")),
        ("br", brotli),
        (
            "zstd",
            zstd::encode_all(text, 0).expect("a vector takes everything"),
        ),
    ]
}
