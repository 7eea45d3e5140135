//! Headers that belong to one message on one connection: where it ends, where it goes, what the connection is for.
//! None of them is copied from one message into another.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName};

/// All but `Host`, which says where a message goes.
const OF_ONE_MESSAGE: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether this is one of them.
pub(crate) fn is_framing(name: &HeaderName) -> bool {
    *name == HOST || OF_ONE_MESSAGE.contains(name)
}

/// Takes them out of a head that another message begins with; `Host` stays.
pub(crate) fn remove_framing(headers: &mut HeaderMap) {
    for name in OF_ONE_MESSAGE {
        headers.remove(name);
    }
}
