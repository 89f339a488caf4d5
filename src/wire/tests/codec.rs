use super::*;
use crate::wire::{MAX_TEXT, Reader, Writer, unmapped};

#[test]
fn integers_are_big_endian() {
    let bytes = encoded(|out| {
        let mut writer = Writer::new(out);
        writer.u8(&1);
        writer.u16(&0x0203);
        writer.u32(&0x0405_0607);
        writer.i16(&-2);
        writer.i32(&-100);
        writer.u64(&0x0102_0304_0506_0708);
    });
    assert_eq!(to_hex(&bytes), "01020304050607fffeffffff9c0102030405060708");
    let mut reader = Reader::new(&bytes);
    assert_eq!(
        (reader.u8(), reader.u16(), reader.u32()),
        (Ok(1), Ok(0x0203), Ok(0x0405_0607))
    );
    assert_eq!(
        (reader.i16(), reader.i32(), reader.u64()),
        (Ok(-2), Ok(-100), Ok(0x0102_0304_0506_0708))
    );
    assert_eq!(reader.u8(), Err(DecodeError::Truncated));
}

#[test]
fn addresses_lose_their_clothes_and_scope() {
    let dressed = address("[::ffff:192.0.2.1]:80");
    assert_eq!(unmapped(dressed), address("192.0.2.1:80"));
    let bytes = encoded(|out| Writer::new(out).address(&dressed));
    assert_eq!(to_hex(&bytes), "040050c0000201");
    let on_the_wire = hex("06 0050 00000000 00000000 0000ffff c0000201");
    assert_eq!(Reader::new(&on_the_wire).address(), Ok(address("192.0.2.1:80")));
    let scoped = address("[fe80::1%7]:80");
    let bytes = encoded(|out| Writer::new(out).address(&scoped));
    assert_eq!(Reader::new(&bytes).address(), Ok(address("[fe80::1]:80")));
    assert_eq!(
        Reader::new(&[5, 0, 0, 0, 0, 0, 0]).address(),
        Err(DecodeError::Invalid("address family"))
    );
    assert_eq!(Reader::new(&[0]).address(), Err(DecodeError::Invalid("address family")));
    assert_eq!(Reader::new(&[0]).optional_address(), Ok(None));
}

#[test]
fn texts_are_cut_at_a_whole_character_and_must_be_utf8() {
    let text = "ä".repeat(200);
    let bytes = encoded(|out| Writer::new(out).text_of(&text, 255));
    assert_eq!(bytes.len(), 2 + 254);
    assert_eq!(Reader::new(&bytes).text(), Ok("ä".repeat(127)));
    let too_long = [&257_u16.to_be_bytes()[..], &[b'a'; 257]].concat();
    assert_eq!(Reader::new(&too_long).text(), Err(DecodeError::TooLong("text")));
    assert_eq!(Reader::new(&[0, 1, 0xff]).text(), Err(DecodeError::Invalid("text")));
    assert_eq!(MAX_TEXT, 256);
}

#[test]
fn lengths_and_counts_are_bounded_before_anything_is_taken() {
    assert_eq!(
        Reader::new(&[0xff, 0xff, 0xff]).byte_string(16, "bytes"),
        Err(DecodeError::TooLong("bytes"))
    );
    assert_eq!(
        Reader::new(&[0, 0, 16, 1]).byte_string(16, "bytes"),
        Err(DecodeError::Truncated)
    );
    assert_eq!(
        Reader::new(&[0xff, 0xff]).list(64, "list", Reader::u8),
        Err(DecodeError::TooLong("list"))
    );
    assert_eq!(
        Reader::new(&[0, 64, 1]).list(64, "list", Reader::u8),
        Err(DecodeError::Truncated)
    );
    assert_eq!(
        Reader::new(&[0, 3, 1, 2]).record(Reader::u8),
        Err(DecodeError::Truncated)
    );
    assert_eq!(Reader::new(&[2]).boolean(), Err(DecodeError::Invalid("boolean")));
}

#[test]
fn guids_have_63_bits_and_are_not_zero() {
    assert_eq!(Reader::new(&[0; 8]).guid(), Err(DecodeError::Invalid("guid")));
    assert_eq!(Reader::new(&[0; 8]).optional_guid(), Ok(Guid(0)));
    assert_eq!(
        Reader::new(&[0x80; 8]).optional_guid(),
        Err(DecodeError::Invalid("guid"))
    );
    assert_eq!(Reader::new(&[0x7f; 8]).guid(), Ok(Guid(0x7f7f_7f7f_7f7f_7f7f)));
}

#[test]
fn records_skip_what_is_not_known_inside_them() {
    let bytes = hex("0003 01 2222 | 05");
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.record(Reader::u8), Ok(1));
    assert_eq!(reader.u8(), Ok(5));
}

proptest! {
    #[test]
    fn addresses_come_back(address in any_address()) {
        assert_format(&address, |address, out| Writer::new(out).address(address), |bytes| Reader::new(bytes).address());
        assert_format(&Some(address), |address, out| Writer::new(out).fixed_address(*address), |bytes| Reader::new(bytes).fixed_address());
    }

    #[test]
    fn no_bytes_make_an_address_that_would_be_written_otherwise(bytes in any_bytes(24)) {
        if let Ok(address) = Reader::new(&bytes).address() {
            let written = encoded(|out| Writer::new(out).address(&address));
            prop_assert_eq!(Reader::new(&written).address(), Ok(address));
        }
    }
}
