//! Which body a message has: the table that keeps two parsers from reading two different messages.
//!
//! Anything that another recipient could frame differently is refused, not repaired. It reads heads only; the
//! octets are `body`'s. Sessions ask for requests, the upstream client for responses.

use thiserror::Error;

use super::head::{Method, RequestHead, ResponseHead, Version};
use super::headers::Headers;
use super::syntax::decimal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The message ends with its head.
    None,
    Length(u64),
    Chunked,
    /// Responses only: the body ends where the connection does.
    UntilClose,
}

/// Why a message's framing is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FramingError {
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    CodingOnHttp10,
    #[error("the final transfer coding is not chunked, or chunked is not applied exactly once")]
    NotChunked,
    #[error("a transfer coding other than chunked")]
    UnknownCoding,
    #[error("Content-Length is not one number")]
    BadLength,
}

impl FramingError {
    /// What a client gets. (What an origin server sends is 502, whatever is wrong.)
    pub fn status(self) -> u16 {
        match self {
            FramingError::UnknownCoding => 501,
            _ => 400,
        }
    }
}

/// What the two framing fields claim, before the kind of message is looked at.
enum Claim {
    Nothing,
    Length(u64),
    Chunked,
}

/// RFC 9112 section 6.3, for a request.
pub fn of_request(request: &RequestHead) -> Result<Framing, FramingError> {
    match claim(request.version, &request.headers)? {
        // 4. "If a Transfer-Encoding header field is present and the chunked transfer coding is the final encoding, the
        //    message body length is determined by reading and decoding the chunked data"
        Claim::Chunked => Ok(Framing::Chunked),
        // 6. "If a valid Content-Length header field is present without Transfer-Encoding, its decimal value defines the
        //    expected message body length in octets."
        Claim::Length(length) => Ok(Framing::Length(length)),
        // 7. "If this is a request message and none of the above are true, then the message body length is zero"
        Claim::Nothing => Ok(Framing::None),
    }
}

/// RFC 9112 section 6.3, for the response to a request of that method. Contradictory claims are an error even
/// where the response has no body: whoever sends them is not to be trusted with the next message.
pub fn of_response(method: &Method, response: &ResponseHead) -> Result<Framing, FramingError> {
    let claim = claim(response.version, &response.headers)?;
    match (method, response.status, claim) {
        // 1. "Any response to a HEAD request and any response with a 1xx (Informational), 204 (No Content), or 304 (Not
        //    Modified) status code is always terminated by the first empty line after the header fields, regardless of
        //    the header fields present in the message"
        (Method::Head, _, _) | (_, 100..=199 | 204 | 304, _) => Ok(Framing::None),
        // 2. "Any 2xx (Successful) response to a CONNECT request implies that the connection will become a tunnel
        //    immediately after the empty line that concludes the header fields."
        (Method::Connect, 200..=299, _) => Ok(Framing::None),
        (_, _, Claim::Chunked) => Ok(Framing::Chunked),
        (_, _, Claim::Length(length)) => Ok(Framing::Length(length)),
        // 8. "Otherwise, this is a response message without a declared message body length, so the message body length is
        //    determined by the number of octets received prior to the server closing the connection."
        (_, _, Claim::Nothing) => Ok(Framing::UntilClose),
    }
}

fn claim(version: Version, headers: &Headers) -> Result<Claim, FramingError> {
    match (
        headers.contains("transfer-encoding"),
        headers.contains("content-length"),
    ) {
        // 3. "If a message is received with both a Transfer-Encoding and a Content-Length header field, [...] ought to be
        //    handled as an error."
        (true, true) => Err(FramingError::LengthAndCoding),
        // 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field MUST
        // treat the message as if the framing is faulty"
        (true, false) if version == Version::Http10 => Err(FramingError::CodingOnHttp10),
        (true, false) => coding(headers),
        (false, true) => length(headers),
        (false, false) => Ok(Claim::Nothing),
    }
}

fn coding(headers: &Headers) -> Result<Claim, FramingError> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let (mut chunked, mut others, mut last) = (0, 0, false);
    for coding in headers.list("transfer-encoding") {
        last = is_chunked(coding);
        match last {
            true => chunked += 1,
            false => others += 1,
        }
    }
    match (chunked, others, last) {
        // Stricter than a list: one field line with the one word, so that `,chunked` is not read in two ways either.
        (1, 0, _)
            if headers.get("transfer-encoding").is_some_and(is_chunked)
                && headers.count("transfer-encoding") == 1 =>
        {
            Ok(Claim::Chunked)
        }
        // 6.1: "A server that receives a request message with a transfer coding it does not understand SHOULD respond with
        // 501 (Not Implemented)."
        (1, 1.., true) => Err(FramingError::UnknownCoding),
        // 4. "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the final
        //    encoding, [...] the server MUST respond with the 400 (Bad Request) status code"
        _ => Err(FramingError::NotChunked),
    }
}

fn length(headers: &Headers) -> Result<Claim, FramingError> {
    // 5. "If a message is received without Transfer-Encoding and with an invalid Content-Length header field, then the
    //    message framing is invalid". Of repeated equal values, which a recipient may take, we take none.
    let mut lines = headers.get_all("content-length");
    match (lines.next().and_then(decimal), lines.next()) {
        (Some(length), None) => Ok(Claim::Length(length)),
        _ => Err(FramingError::BadLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Limits;

    fn request(fields: &str) -> Result<Framing, FramingError> {
        let mut head = RequestHead::new();
        let input = format!("POST / {}\r\n\r\n", fields.replace('\n', "\r\n"));
        head.parse(input.as_bytes(), &Limits::default())
            .unwrap()
            .unwrap();
        of_request(&head)
    }

    #[expect(clippy::too_many_lines, reason = "a table may be long")]
    #[test]
    fn requests() {
        use FramingError::*;
        for (fields, expected) in [
            ("HTTP/1.1", Ok(Framing::None)),
            ("HTTP/1.1\nContent-Length: 0", Ok(Framing::Length(0))),
            ("HTTP/1.0\nContent-Length: 007", Ok(Framing::Length(7))),
            (
                "HTTP/1.1\nContent-Length: 18446744073709551615",
                Ok(Framing::Length(u64::MAX)),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: \t ChUnKeD ",
                Ok(Framing::Chunked),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 3",
                Err(LengthAndCoding),
            ),
            (
                "HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: identity",
                Err(LengthAndCoding),
            ),
            (
                "HTTP/1.1\nContent-Length:\nTransfer-Encoding:",
                Err(LengthAndCoding),
            ),
            ("HTTP/1.0\nTransfer-Encoding: chunked", Err(CodingOnHttp10)),
            (
                "HTTP/1.1\nTransfer-Encoding: gzip, chunked",
                Err(UnknownCoding),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: gzip\nTransfer-Encoding: chunked",
                Err(UnknownCoding),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: chunked, gzip",
                Err(NotChunked),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: chunked, chunked",
                Err(NotChunked),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
                Err(NotChunked),
            ),
            (
                "HTTP/1.1\nTransfer-Encoding: chunked\nTransfer-Encoding:",
                Err(NotChunked),
            ),
            ("HTTP/1.1\nTransfer-Encoding: identity", Err(NotChunked)),
            ("HTTP/1.1\nTransfer-Encoding: xchunked", Err(NotChunked)),
            ("HTTP/1.1\nTransfer-Encoding: \"chunked\"", Err(NotChunked)),
            ("HTTP/1.1\nTransfer-Encoding: chunked;q=1", Err(NotChunked)),
            ("HTTP/1.1\nTransfer-Encoding: ,chunked", Err(NotChunked)),
            ("HTTP/1.1\nTransfer-Encoding:", Err(NotChunked)),
            ("HTTP/1.1\nContent-Length: 5, 5", Err(BadLength)),
            (
                "HTTP/1.1\nContent-Length: 5\nContent-Length: 5",
                Err(BadLength),
            ),
            (
                "HTTP/1.1\nContent-Length: 5\nContent-Length: 6",
                Err(BadLength),
            ),
            ("HTTP/1.1\nContent-Length: +5", Err(BadLength)),
            ("HTTP/1.1\nContent-Length: -5", Err(BadLength)),
            ("HTTP/1.1\nContent-Length: 0x5", Err(BadLength)),
            ("HTTP/1.1\nContent-Length: 5 5", Err(BadLength)),
            ("HTTP/1.1\nContent-Length: 5.0", Err(BadLength)),
            ("HTTP/1.1\nContent-Length:", Err(BadLength)),
            (
                "HTTP/1.1\nContent-Length: 18446744073709551616",
                Err(BadLength),
            ),
        ] {
            assert_eq!(request(fields), expected, "{fields}");
        }
    }

    fn response(
        method: Method,
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<Framing, FramingError> {
        let headers = fields.iter().copied().collect();
        of_response(
            &method,
            &ResponseHead {
                status,
                headers,
                ..ResponseHead::new()
            },
        )
    }

    #[test]
    fn responses() {
        let length = [("Content-Length", "3")];
        let chunked = [("Transfer-Encoding", "chunked")];
        assert_eq!(response(Method::Get, 200, &[]), Ok(Framing::UntilClose));
        assert_eq!(response(Method::Get, 200, &length), Ok(Framing::Length(3)));
        assert_eq!(response(Method::Get, 200, &chunked), Ok(Framing::Chunked));
        for status in [100, 103, 199, 204, 304] {
            assert_eq!(response(Method::Get, status, &length), Ok(Framing::None));
            assert_eq!(response(Method::Get, status, &chunked), Ok(Framing::None));
        }
        assert_eq!(response(Method::Head, 200, &length), Ok(Framing::None));
        assert_eq!(response(Method::Connect, 200, &length), Ok(Framing::None));
        assert_eq!(
            response(Method::Connect, 403, &length),
            Ok(Framing::Length(3))
        );
        let both = [length[0], chunked[0]];
        for method in [Method::Get, Method::Head, Method::Connect] {
            assert_eq!(
                response(method.clone(), 200, &both),
                Err(FramingError::LengthAndCoding)
            );
            assert_eq!(
                response(method, 200, &[("Content-Length", "x")]),
                Err(FramingError::BadLength)
            );
        }
        let old = ResponseHead {
            version: Version::Http10,
            headers: chunked.into_iter().collect(),
            ..ResponseHead::new()
        };
        assert_eq!(
            of_response(&Method::Head, &old),
            Err(FramingError::CodingOnHttp10)
        );
    }
}
