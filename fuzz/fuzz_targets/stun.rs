//! STUN: no bytes panic, and answers read the same once written, within their bound.
#![no_main]

use lanline::wire::stun::raw::Message;
use lanline::wire::stun::{MAX_RESPONSE, Request, Response, is_request, peek_transaction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (is_request(bytes), peek_transaction(bytes));
    if let Ok(message) = Message::parse(bytes) {
        let _ = message.check_integrity(b"password");
    }
    if let Ok(request) = Request::decode(bytes) {
        // An answer is filled up to what was sent, and never goes to port 0.
        assert!(request.padding.is_none_or(|padding| usize::from(padding) < bytes.len()));
        assert!(request.response_port != Some(0));
        let mut written = Vec::new();
        request.encode(&mut written);
        let again = Request::decode(&written).expect("our own request");
        assert_eq!((again.transaction, again.change), (request.transaction, request.change));
        assert_eq!((again.response_port, again.cookie), (request.response_port, request.cookie));
    }
    if let Ok(response) = Response::decode(bytes) {
        let mut written = Vec::new();
        response.encode(&mut written);
        assert!(written.len() <= MAX_RESPONSE);
        let again = Response::decode(&written).expect("our own response");
        let (Response::Success { .. }, Response::Success { .. }) = (&again, &response) else {
            assert_eq!(again, response);
            return;
        };
        // What has no room within the bound is left out the first time, and nothing more the second time.
        let mut twice = Vec::new();
        again.encode(&mut twice);
        assert_eq!(Response::decode(&twice), Ok(again));
        let mut padded = Vec::new();
        response.encode_padded(&mut padded, bytes.len());
        assert!(padded.len() <= bytes.len().max(MAX_RESPONSE));
    }
});
