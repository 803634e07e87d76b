//! How a call ends: a code of gRPC and one text.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE};
use http::Response;

use crate::frame::FrameError;

const DEADLINE_EXCEEDED: u16 = 4;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

pub struct Status {
    code: u16,
    text: String,
}

impl Status {
    pub fn new(code: u16, text: impl Into<String>) -> Status {
        Status {
            code,
            text: text.into(),
        }
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code));
        if !self.text.is_empty() {
            let text = HeaderValue::try_from(percent_encoded(&self.text)).expect("nothing but visible ASCII");
            headers.insert(GRPC_MESSAGE, text);
        }
        headers
    }
}

/// The headers of every answer, with some of its own.
pub fn head(mut headers: HeaderMap) -> Response<()> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,deflate,gzip"));
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    response
}

/// As gRPC asks for it: all but visible ASCII, and the percent sign itself.
fn percent_encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(byte.into());
        } else {
            let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)].into());
            encoded.extend(['%', digits[0], digits[1]]);
        }
    }
    encoded
}

pub fn of_frame_error(error: FrameError) -> Status {
    match error {
        FrameError::Flag(flag) => Status::new(INTERNAL, format!("a message begins with {flag}, not with 0 or 1")),
        FrameError::TooLong(length, limit) => {
            let text = format!("a message of {length} bytes is larger than max ({limit})");
            Status::new(RESOURCE_EXHAUSTED, text)
        }
        FrameError::Cut => Status::new(INTERNAL, "the request ends in the middle of a message"),
    }
}

pub fn too_many_messages() -> Status {
    Status::new(UNIMPLEMENTED, "the call carries more than its one message")
}

pub fn no_message() -> Status {
    Status::new(UNIMPLEMENTED, "the call carries no message")
}

pub fn too_many_calls() -> Status {
    Status::new(RESOURCE_EXHAUSTED, "too many calls at once; ask again later")
}

pub fn too_many_bytes() -> Status {
    Status::new(RESOURCE_EXHAUSTED, "too many long requests at once; ask again later")
}

pub fn stalled(patience: Duration) -> Status {
    Status::new(
        DEADLINE_EXCEEDED,
        format!("the sender sent nothing for {} s", patience.as_secs_f64()),
    )
}

pub fn stopping() -> Status {
    Status::new(UNAVAILABLE, "this process of the server ends; ask again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_as_grpc_asks_for_it() {
        assert_eq!(percent_encoded("100 % of\n\u{fc}~"), "100 %25 of%0A%C3%BC~");
        let headers = Status::new(3, "a\0b").headers();
        assert_eq!(headers["grpc-status"], "3");
        assert_eq!(headers["grpc-message"], "a%00b");
    }
}
