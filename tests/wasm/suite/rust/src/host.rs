//! What the SDK has no words for: Higress's Redis calls, and the details of an answer that a module makes itself.
//! The host's functions are declared here once more, as the ABI has them.

use proxy_wasm::types::Bytes;

/// Number of the buffer with Redis's reply: one of Higress's own, behind those of the SDK.
const REDIS_REPLY: u32 = 9;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_redis_init(
        cluster: *const u8,
        cluster_size: usize,
        user: *const u8,
        user_size: usize,
        password: *const u8,
        password_size: usize,
        timeout: u32,
    ) -> u32;
    fn proxy_redis_call(
        cluster: *const u8,
        cluster_size: usize,
        query: *const u8,
        query_size: usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

/// The status that the host refuses with.
pub type Refused = u32;

fn accepted(status: u32) -> Result<(), Refused> {
    if status == 0 { Ok(()) } else { Err(status) }
}

/// Introduces a cluster of Redis without credentials.
pub fn redis_init(cluster: &str, timeout: u32) -> Result<(), Refused> {
    let none: &[u8] = &[];
    // SAFETY: each address is valid for the size beside it, and the host keeps none of them.
    accepted(unsafe {
        proxy_redis_init(
            cluster.as_ptr(),
            cluster.len(),
            none.as_ptr(),
            0,
            none.as_ptr(),
            0,
            timeout,
        )
    })
}

/// Sends bytes in Redis's own protocol; the call's token.
pub fn redis_call(cluster: &str, query: &[u8]) -> Result<u32, Refused> {
    let mut token = 0;
    // SAFETY: as above, and the host writes four bytes to `token`.
    let status = unsafe {
        proxy_redis_call(
            cluster.as_ptr(),
            cluster.len(),
            query.as_ptr(),
            query.len(),
            &raw mut token,
        )
    };
    accepted(status).map(|()| token)
}

/// Redis's reply as it came; only inside its callback.
pub fn redis_reply(size: usize) -> Option<Bytes> {
    let (mut data, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: the host writes an address and a size to the two places.
    let status = unsafe { proxy_get_buffer_bytes(REDIS_REPLY, 0, size, &raw mut data, &raw mut length) };
    if status != 0 || data.is_null() {
        return None;
    }
    // SAFETY: the host has the memory from the SDK's allocator, a boxed slice of this size, and it is ours now.
    let reply = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, length)) };
    Some(reply.into_vec())
}

/// A map as the ABI passes it: count, sizes, then texts with a zero behind each.
fn pairs(of: &[(&str, &str)]) -> Bytes {
    let texts = || of.iter().flat_map(|(name, value)| [name, value]);
    let number = |size: usize| u32::try_from(size).unwrap().to_le_bytes();
    let mut out = number(of.len()).to_vec();
    texts().for_each(|text| out.extend(number(text.len())));
    texts().for_each(|text| {
        out.extend(text.as_bytes());
        out.push(0);
    });
    out
}

/// An answer of the module's own; the access log tells `details`.
pub fn answer(status: u32, details: &str, headers: &[(&str, &str)], body: &str) -> Result<(), Refused> {
    let headers = pairs(headers);
    // SAFETY: as above.
    accepted(unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}
