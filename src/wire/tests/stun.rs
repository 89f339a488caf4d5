use super::*;
use crate::wire::stun::raw::{Builder, HEADER, MAX_MESSAGE, Message, attribute};
use crate::wire::stun::{
    ChangeRequest, MAX_REASON, MAX_RESPONSE, MAX_UNKNOWN, Request, Response, UnknownAttributes, is_request, is_stun,
    peek_transaction,
};

/// The samples of RFC 5769.
mod samples {
    /// Section 2.1: a request with short-term credentials.
    pub const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
        | 80220010 5354554e207465737420636c69656e74 | 00240004 6e0001ff | 80290008 932ff9b151263b36
        | 00060009 6576746a3a68367659202020 | 00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 | 80280004 e57a3bcf";
    /// Section 2.2: its answer, IPv4.
    pub const RESPONSE_4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae | 8022000b 7465737420766563746f7220
        | 00200008 0001a147e112a643 | 00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 | 80280004 c07d4c96";
    /// Section 2.3: its answer, IPv6.
    pub const RESPONSE_6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae | 8022000b 7465737420766563746f7220
        | 00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
        | 00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 | 80280004 c8fb0b4c";
    /// Section 2.4: a request with long-term credentials.
    pub const LONG_TERM: &str = "00010060 2112a442 78ad3433c6ad72c029da412e
        | 00060012 e3839ee38388e383aae38383e382afe382b90000
        | 0015001c 662f2f3439396b39353464364f4c33346f4c394653547679363473 41 | 0014000b 6578616d706c652e6f726700
        | 00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";
    /// The password of sections 2.1 to 2.3.
    pub const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
    /// MD5 of "マトリックス:example.org:TheMatrIX", the key of section 2.4.
    pub const LONG_TERM_KEY: &str = "e8ca7ad59d5eb0518e312911d2dab2a9";
    /// The transaction of sections 2.1 to 2.3.
    pub const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
}

#[test]
fn samples_of_rfc_5769_are_read() {
    let request = Request::decode(&hex(samples::REQUEST)).unwrap();
    assert_eq!(request.transaction, samples::TRANSACTION);
    // PRIORITY must be understood, and is not.
    assert_eq!(request.unknown.as_slice(), [0x0024]);
    for (digits, mapped) in [
        (samples::RESPONSE_4, "192.0.2.1:32853"),
        (samples::RESPONSE_6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let transaction = samples::TRANSACTION;
        let expected = Response::Success {
            transaction,
            mapped: address(mapped),
            origin: None,
            other: None,
            cookie: None,
        };
        assert_eq!(Response::decode(&hex(digits)), Ok(expected));
    }
    let request = Request::decode(&hex(samples::LONG_TERM)).unwrap();
    assert!(request.unknown.is_empty());
    assert_eq!(to_hex(&request.transaction), "78ad3433c6ad72c029da412e");
}

#[test]
fn samples_of_rfc_5769_are_authentic() {
    for digits in [samples::REQUEST, samples::RESPONSE_4, samples::RESPONSE_6] {
        let bytes = hex(digits);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.check_integrity(samples::PASSWORD), Ok(()));
        assert_eq!(message.check_integrity(b"another"), Err(DecodeError::Unauthenticated));
    }
    let bytes = hex(samples::LONG_TERM);
    assert_eq!(
        Message::parse(&bytes)
            .unwrap()
            .check_integrity(&hex(samples::LONG_TERM_KEY)),
        Ok(())
    );
    let bytes = encoded(|out| Request::new([1; 12]).encode(out));
    assert_eq!(
        Message::parse(&bytes).unwrap().check_integrity(b""),
        Err(DecodeError::Unauthenticated)
    );
}

#[test]
fn samples_of_rfc_5769_are_written_byte_for_byte() {
    let request = encoded(|out| {
        Builder::new(out, 0x0001, &samples::TRANSACTION)
            .pad_with(b' ')
            .attribute(attribute::SOFTWARE, b"STUN test client")
            .attribute(0x0024, &hex("6e0001ff"))
            .attribute(0x8029, &hex("932ff9b151263b36"))
            .attribute(attribute::USERNAME, b"evtj:h6vY")
            .integrity(samples::PASSWORD)
            .fingerprint();
    });
    assert_eq!(to_hex(&request), to_hex(&hex(samples::REQUEST)));
    for (digits, mapped) in [
        (samples::RESPONSE_4, "192.0.2.1:32853"),
        (samples::RESPONSE_6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let response = encoded(|out| {
            Builder::new(out, 0x0101, &samples::TRANSACTION)
                .pad_with(b' ')
                .attribute(attribute::SOFTWARE, b"test vector")
                .xor_address(attribute::XOR_MAPPED_ADDRESS, address(mapped))
                .integrity(samples::PASSWORD)
                .fingerprint();
        });
        assert_eq!(to_hex(&response), to_hex(&hex(digits)));
    }
    let transaction = hex("78ad3433c6ad72c029da412e").try_into().unwrap();
    let long_term = encoded(|out| {
        Builder::new(out, 0x0001, &transaction)
            .attribute(attribute::USERNAME, "マトリックス".as_bytes())
            .attribute(attribute::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
            .attribute(attribute::REALM, b"example.org")
            .integrity(&hex(samples::LONG_TERM_KEY));
    });
    assert_eq!(to_hex(&long_term), to_hex(&hex(samples::LONG_TERM)));
}

#[test]
fn golden_bytes() {
    let spaces = |count| "20".repeat(count);
    assert_golden(
        &Request::with_change(samples::TRANSACTION, ChangeRequest { ip: true, port: true }),
        &format!(
            "0001004c 2112a442 b7e7a701bc34d686fa87dfae | 00030004 00000006 | 80220038 6c616e6c696e65 {} | 80280004 56da58af",
            spaces(49)
        ),
        Request::encode,
        Request::decode,
    );
    assert_golden(
        &Request::with_change(samples::TRANSACTION, ChangeRequest { ip: false, port: true })
            .with_response_port(61_113)
            .with_cookie(),
        &format!(
            "0001004c 2112a442 b7e7a701bc34d686fa87dfae | 00030004 00000002 | 00270004 eeb90000 | f1a10000
            | 8022002c 6c616e6c696e65 {} | 80280004 bf77af24",
            spaces(37)
        ),
        Request::encode,
        Request::decode,
    );
    assert_golden(
        &Response::Success {
            transaction: samples::TRANSACTION,
            mapped: address("192.0.2.1:32853"),
            origin: Some(address("203.0.113.1:61111")),
            other: Some(address("203.0.113.2:61112")),
            cookie: None,
        },
        "01010044 2112a442 b7e7a701bc34d686fa87dfae | 00200008 0001a147e112a643 | 802b0008 0001eeb7cb007101
        | 802c0008 0001eeb8cb007102 | 00010008 00018055c0000201 | 80220007 6c616e6c696e6500 | 80280004 c4d907a0",
        Response::encode,
        Response::decode,
    );
    assert_golden(
        &Response::Success {
            transaction: samples::TRANSACTION,
            mapped: address("192.0.2.1:32853"),
            origin: Some(address("203.0.113.1:61111")),
            other: Some(address("203.0.113.2:61112")),
            cookie: Some([0xc0; 16]),
        },
        &format!(
            "0101004c 2112a442 b7e7a701bc34d686fa87dfae | 00200008 0001a147e112a643 | f1a10010 {} | 802b0008 0001eeb7cb007101
            | 802c0008 0001eeb8cb007102 | 00010008 00018055c0000201 | 80280004 d10201c4",
            "c0".repeat(16)
        ),
        Response::encode,
        Response::decode,
    );
    assert_golden(
        &Response::unknown_attributes(samples::TRANSACTION, [0x0024, 0x0027, 0x7fff].into_iter().collect()),
        "0111003c 2112a442 b7e7a701bc34d686fa87dfae | 00090015 00000414 556e6b6e6f776e20417474726962757465 000000
        | 000a0006 002400277fff0000 | 80220007 6c616e6c696e6500 | 80280004 08667b05",
        Response::encode,
        Response::decode,
    );
}

#[test]
fn our_requests_are_as_large_as_the_largest_answer() {
    for (ip, port) in [(false, false), (true, false), (false, true), (true, true)] {
        let request = Request::with_change([5; 12], ChangeRequest { ip, port });
        for request in [
            request,
            request.with_cookie(),
            request.with_response_port(9),
            request.with_cookie().with_response_port(65_535),
        ] {
            let bytes = encoded(|out| request.encode(out));
            assert_eq!(bytes.len(), MAX_RESPONSE);
            assert_eq!(Request::decode(&bytes), Ok(request));
            assert!(is_request(&bytes) && peek_transaction(&bytes) == Some([5; 12]));
        }
    }
}

#[test]
fn no_answer_is_larger_than_96_bytes() {
    let six = address("[2001:db8::1]:65535");
    let largest = [
        Response::Success {
            transaction: [1; 12],
            mapped: six,
            origin: Some(six),
            other: Some(six),
            cookie: None,
        },
        Response::Error {
            transaction: [1; 12],
            code: 420,
            reason: "x".repeat(MAX_REASON),
            unknown: (1..100).collect(),
        },
    ];
    for response in largest {
        let bytes = encoded(|out| response.encode(out));
        assert!(bytes.len() <= MAX_RESPONSE, "{} bytes", bytes.len());
        assert_eq!(Response::decode(&bytes), Ok(response));
        assert!(!is_request(&bytes));
    }
}

#[test]
fn over_ipv6_a_cookie_takes_the_place_of_the_other_address() {
    let six = address("[2001:db8::1]:65535");
    let response = |other| Response::Success {
        transaction: [1; 12],
        mapped: six,
        origin: Some(six),
        other,
        cookie: Some([7; 16]),
    };
    let bytes = encoded(|out| response(Some(six)).encode(out));
    assert_eq!(bytes.len(), MAX_RESPONSE);
    assert_eq!(Response::decode(&bytes), Ok(response(None)));
}

#[test]
fn padded_requests_get_answers_of_their_own_length() {
    let four = address("192.0.2.1:32853");
    let response = Response::Success {
        transaction: [1; 12],
        mapped: four,
        origin: Some(four),
        other: Some(four),
        cookie: None,
    };
    let plain = encoded(|out| response.encode(out)).len();
    for length in (0..=MAX_MESSAGE + 100).step_by(4) {
        let bytes = encoded(|out| response.encode_padded(out, length));
        assert_eq!(Response::decode(&bytes), Ok(response.clone()), "{length}");
        let expected = match length {
            _ if length < plain + 4 => plain,
            _ => length.min(MAX_MESSAGE),
        };
        assert_eq!(bytes.len(), expected, "{length}");
    }
    let error = Response::bad_request([1; 12]);
    assert!(encoded(|out| error.encode_padded(out, 1_500)).len() <= MAX_RESPONSE);
}

#[test]
fn what_asks_for_a_cookie_and_what_comes_as_one() {
    let request = |value: &[u8]| {
        let bytes = encoded(|out| {
            Builder::new(out, 0x0001, &[0; 12]).attribute(attribute::LANLINE_COOKIE, value);
        });
        Request::decode(&bytes).unwrap().cookie
    };
    assert!(request(&[]) && request(&[0; 16]));
    assert!(!request(&[0; 15]) && !request(&[1; 16]));
    for (value, expected) in [(&[3; 16][..], Some([3; 16])), (&[3; 12][..], None)] {
        let bytes = encoded(|out| {
            Builder::new(out, 0x0101, &[0; 12])
                .xor_address(attribute::XOR_MAPPED_ADDRESS, address("192.0.2.1:1"))
                .attribute(attribute::LANLINE_COOKIE, value);
        });
        let Ok(Response::Success { cookie, .. }) = Response::decode(&bytes) else {
            panic!("no success")
        };
        assert_eq!(cookie, expected);
    }
}

#[test]
fn response_ports_that_are_none_are_refused() {
    for value in [&[0, 0, 0, 0][..], &[0, 0], &[1]] {
        let bytes = encoded(|out| {
            Builder::new(out, 0x0001, &[0; 12]).attribute(attribute::RESPONSE_PORT, value);
        });
        assert!(Request::decode(&bytes).is_err(), "{value:?}");
    }
}

#[test]
fn bare_requests_and_what_a_server_must_know_about_them() {
    let bare = hex("0001 0000 2112a442 000000000000000000000000");
    assert_eq!(Request::decode(&bare), Ok(Request::new([0; 12])));
    let odd = encoded(|out| {
        Builder::new(out, 0x0001, &[0; 12])
            .attribute(attribute::PADDING, &[0; 6])
            .attribute(attribute::RESPONSE_PORT, &[0, 80])
            .attribute(attribute::RESPONSE_PORT, &[0, 81, 0, 0])
            .attribute(attribute::RESPONSE_ADDRESS, &[0, 1, 0, 80, 1, 2, 3, 4])
            .attribute(0xC001, b"optional")
            .attribute(attribute::CHANGE_REQUEST, &[0, 0, 0, 2]);
    });
    let request = Request::decode(&odd).unwrap();
    assert_eq!(request.padding, Some(6));
    assert_eq!(request.response_port, Some(80));
    assert_eq!(request.unknown.as_slice(), [attribute::RESPONSE_ADDRESS]);
    assert_eq!(request.change, ChangeRequest { ip: false, port: true });
    let many: UnknownAttributes = (0..100).collect();
    assert_eq!(many.as_slice().len(), MAX_UNKNOWN);
}

#[test]
fn answers_of_foreign_servers_are_read() {
    let mapped = address("192.0.2.1:32853");
    let old_style = encoded(|out| {
        Builder::new(out, 0x0101, &[0; 12])
            .address(attribute::MAPPED_ADDRESS, mapped)
            .address(attribute::SOURCE_ADDRESS, mapped)
            .address(attribute::CHANGED_ADDRESS, mapped)
            .attribute(attribute::SOFTWARE, b"Coturn-4.6.1 'Gorst'");
    });
    let expected = Response::Success {
        transaction: [0; 12],
        mapped,
        origin: None,
        other: None,
        cookie: None,
    };
    assert_eq!(Response::decode(&old_style), Ok(expected));
    let demanding = encoded(|out| {
        Builder::new(out, 0x0101, &[0; 12])
            .xor_address(attribute::XOR_MAPPED_ADDRESS, mapped)
            .attribute(0x7fff, b"");
    });
    assert_eq!(
        Response::decode(&demanding),
        Err(DecodeError::Invalid("STUN attribute"))
    );
    let nothing = hex("0101 0000 2112a442 000000000000000000000000");
    assert_eq!(Response::decode(&nothing), Err(DecodeError::Truncated));
}

#[test]
fn broken_messages_are_refused() {
    let good = hex(samples::RESPONSE_4);
    let refused = |change: &dyn Fn(&mut Vec<u8>), error| {
        let mut bytes = good.clone();
        change(&mut bytes);
        assert_eq!(Response::decode(&bytes), Err(error), "{}", to_hex(&bytes));
    };
    refused(&|bytes| bytes[3] -= 1, DecodeError::Invalid("STUN length"));
    refused(
        &|bytes| bytes.extend_from_slice(&[0; 4]),
        DecodeError::Invalid("STUN length"),
    );
    refused(&|bytes| bytes[4] = 0, DecodeError::Invalid("STUN header"));
    refused(&|bytes| bytes[0] = 0x40, DecodeError::Invalid("STUN header"));
    refused(&|bytes| bytes[79] ^= 1, DecodeError::Invalid("STUN fingerprint"));
    refused(&|bytes| bytes[30] ^= 1, DecodeError::Invalid("STUN fingerprint"));
    refused(&|bytes| bytes[23] = 0x40, DecodeError::Truncated);
    refused(&|bytes| bytes.truncate(HEADER - 1), DecodeError::Truncated);
    refused(
        &|bytes| bytes.resize(MAX_MESSAGE + 1, 0),
        DecodeError::TooLong("STUN message"),
    );
    assert_eq!(Request::decode(&good), Err(DecodeError::Invalid("STUN message type")));
    assert_eq!(
        Response::decode(&hex(samples::REQUEST)),
        Err(DecodeError::Invalid("STUN message type"))
    );
    let not_last = encoded(|out| {
        Builder::new(out, 0x0001, &[0; 12])
            .fingerprint()
            .attribute(attribute::SOFTWARE, b"late");
    });
    assert_eq!(
        Request::decode(&not_last),
        Err(DecodeError::Invalid("STUN fingerprint"))
    );
}

#[test]
fn what_stands_behind_the_integrity_does_not_count() {
    let bytes = encoded(|out| {
        Builder::new(out, 0x0001, &[0; 12])
            .integrity(b"password")
            .attribute(attribute::CHANGE_REQUEST, &[0, 0, 0, 6])
            .fingerprint();
    });
    assert_eq!(Request::decode(&bytes), Ok(Request::new([0; 12])));
}

fn any_unknown() -> impl Strategy<Value = UnknownAttributes> {
    any_list(any::<u16>(), MAX_UNKNOWN).prop_map(UnknownAttributes::from_iter)
}

fn any_response() -> impl Strategy<Value = Response> {
    let other = || proptest::option::of(any_address());
    let cookie = proptest::option::of(any::<[u8; 16]>());
    let success = (any::<[u8; 12]>(), any_address(), other(), other(), cookie);
    let error = (any::<[u8; 12]>(), 300..=699_u16, any_text(MAX_REASON), any_unknown());
    prop_oneof![
        success.prop_map(|(transaction, mapped, origin, other, cookie)| Response::Success {
            transaction,
            mapped,
            origin,
            other,
            cookie
        }),
        error.prop_map(|(transaction, code, reason, unknown)| Response::Error {
            transaction,
            code,
            reason,
            unknown
        }),
    ]
}

/// What comes back of a response: the other address has no room beside a cookie and two addresses of IPv6.
fn without_what_has_no_room(response: &Response) -> Response {
    let mut response = response.clone();
    if let Response::Success {
        mapped,
        origin,
        other,
        cookie: Some(_),
        ..
    } = &mut response
    {
        let bytes = |address: &SocketAddr| if address.is_ipv4() { 12 } else { 24 };
        let all = [Some(&*mapped), origin.as_ref(), other.as_ref()];
        let sum: usize = all.into_iter().flatten().map(bytes).sum();
        if HEADER + 20 + sum > MAX_RESPONSE {
            *other = None;
        }
    }
    response
}

proptest! {
    #[test]
    fn every_request_comes_back_at_its_length(transaction: [u8; 12], ip: bool, port: bool, response_port: Option<u16>, cookie: bool) {
        let mut request = Request::with_change(transaction, ChangeRequest { ip, port });
        if let Some(port) = response_port.filter(|port| *port != 0) {
            request = request.with_response_port(port);
        }
        if cookie {
            request = request.with_cookie();
        }
        let bytes = encoded(|out| request.encode(out));
        prop_assert_eq!(bytes.len(), MAX_RESPONSE);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
    }

    #[test]
    fn padding_never_outgrows_the_request(response in any_response(), length in 0..2_000_usize) {
        let bytes = encoded(|out| response.encode_padded(out, length));
        prop_assert!(bytes.len() <= length.max(MAX_RESPONSE));
        prop_assert_eq!(Response::decode(&bytes), Ok(without_what_has_no_room(&response)));
    }

    #[test]
    fn every_response_comes_back_within_its_bound(response in any_response()) {
        let bytes = encoded(|out| response.encode(out));
        prop_assert!(bytes.len() <= MAX_RESPONSE && is_stun(&bytes));
        prop_assert_eq!(Response::decode(&bytes), Ok(without_what_has_no_room(&response)));
        for length in 0..bytes.len() {
            prop_assert!(Response::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn any_attributes_are_harmless(kind in prop_oneof![Just(0x0001_u16), Just(0x0101), Just(0x0111), any::<u16>()], attributes in any_bytes(120)) {
        let mut bytes = [&kind.to_be_bytes()[..], &[0, 0, 0x21, 0x12, 0xa4, 0x42], &[9; 12], &attributes].concat();
        bytes.truncate(bytes.len() / 4 * 4);
        let length = (bytes.len() - HEADER) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let _ = (Request::decode(&bytes), Response::decode(&bytes));
        if let Ok(message) = Message::parse(&bytes) {
            let _ = message.check_integrity(b"password");
        }
    }

    #[test]
    fn one_wrong_byte_is_harmless(response in any_response(), place in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encoded(|out| response.encode(out));
        let place = place.index(bytes.len());
        bytes[place] = value;
        let _ = (Request::decode(&bytes), Response::decode(&bytes));
    }
}
