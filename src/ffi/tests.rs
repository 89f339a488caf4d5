//! Checks of arguments through the C ABI: each bad one is an error code, and a text that names the argument.

use std::ffi::{CStr, c_char};
use std::mem::size_of;
use std::ptr::{null, null_mut};

use super::address::*;
use super::error::*;
use super::events::*;
use super::mesh::*;
use super::nat::*;
use super::node::*;
use super::panic::guard;
use super::peers::*;
use super::relays::*;
use crate::codes::Code;
use crate::shell::record::{AddressRecord, EventRecord};

fn last_error() -> String {
    let mut buffer = [0u8; 600];
    // SAFETY: the buffer has that size.
    let length = unsafe { lanline_last_error(buffer.as_mut_ptr().cast(), 600) };
    String::from_utf8(buffer[..length as usize].to_vec()).unwrap()
}

#[track_caller]
fn fails(result: i32, code: Code, word: &str) {
    assert_eq!(Code::from_number(result), Some(code), "{}", last_error());
    assert!(last_error().contains(word), "\"{}\" does not name {word}", last_error());
}

fn options() -> NodeOptionsRecord {
    // SAFETY: integers and pointers.
    let mut options = unsafe { std::mem::zeroed() };
    // SAFETY: valid for the call.
    unsafe { lanline_node_options_init_sized(&mut options, size_of::<NodeOptionsRecord>() as u32) };
    (options.app, options.app_len) = (c"test".as_ptr(), 4);
    (options.bind, options.bind_len) = (c"127.0.0.1:0".as_ptr(), 11);
    options
}

#[track_caller]
fn refused(change: impl FnOnce(&mut NodeOptionsRecord), code: Code, word: &str) {
    let mut options = options();
    change(&mut options);
    let mut node = 77;
    // SAFETY: valid for the call.
    fails(unsafe { lanline_node_create(&options, &mut node) }, code, word);
    assert_eq!(node, 0);
}

#[test]
fn bad_options_are_named() {
    let bad = Code::InvalidArgument;
    let mut node = 0;
    // SAFETY: NULL is what is tested.
    unsafe {
        fails(lanline_node_create(null(), &mut node), bad, "`options`");
        fails(lanline_node_create(&options(), null_mut()), bad, "`out`");
        lanline_node_options_init_sized(null_mut(), 104);
    }
    for size in [0, 4, 96, 112, u32::MAX] {
        refused(|options| options.struct_size = size, Code::WrongSize, "struct_size");
    }
    refused(|options| options.app_len = 0, bad, "`app`");
    refused(|options| options.app = null(), bad, "`app`");
    refused(|options| options.app_len = u32::MAX, bad, "`app`");
    refused(
        |options| options.app = c"\xff\xfe\xff\xff".as_ptr(),
        bad,
        "`app` is not UTF-8",
    );
    refused(|options| options.app_len = 5, bad, "`app` holds a NUL");
    refused(|options| options.bind_len = 4, bad, "`bind`");
    refused(
        |options| (options.public_address, options.public_address_len) = (c"1.2.3.4:0".as_ptr(), 9),
        bad,
        "`public_address`",
    );
    refused(|options| options.max_peers = 0, bad, "`max_peers`");
    refused(
        |options| options.lost_peer_timeout_ms = 499,
        bad,
        "`lost_peer_timeout_ms`",
    );
    refused(|options| options.join_timeout_ms = 0, bad, "`join_timeout_ms`");
    refused(|options| options.relay_policy = 3, bad, "`relay_policy`");
    refused(|options| options.accept_from = 3, bad, "`accept_from`");
    refused(|options| options.join_manual = 2, bad, "`join_manual`");
    refused(|options| options.partial_mesh = 255, bad, "`partial_mesh`");
    refused(
        |options| (options.session_password, options.session_password_len) = (c"x".as_ptr(), 1),
        Code::Unsupported,
        "`session_password`",
    );
    refused(
        |options| (options.identity_file, options.identity_file_len) = (c"/no/such/x".as_ptr(), 10),
        Code::Io,
        "/no/such/x",
    );
    refused(
        |options| options.bind = c"192.0.2.1:1".as_ptr(),
        Code::Io,
        "192.0.2.1:1",
    );
}

#[test]
fn ids_that_are_no_nodes_are_answered_everywhere() {
    let gone = {
        let mut node = 0;
        // SAFETY: valid for the calls.
        unsafe {
            assert_eq!(lanline_node_create(&options(), &mut node), 0, "{}", last_error());
            assert_eq!(lanline_node_destroy(node, 100), 0);
        }
        node
    };
    for node in [0, gone, u32::MAX] {
        let (mut number, mut address, mut key) = (0, AddressRecord::default(), [0; 32]);
        let mut event = EventRecord::default();
        let mut stats = PeerStatsRecord {
            struct_size: 128,
            ..Default::default()
        };
        let mut node_stats = NodeStatsRecord {
            struct_size: 64,
            ..Default::default()
        };
        let mut facts = NatFactsRecord {
            struct_size: 120,
            ..Default::default()
        };
        let mut port = ManualPortRecord {
            struct_size: 32,
            ..Default::default()
        };
        let text: *const c_char = c"1.2.3.4".as_ptr();
        // SAFETY: valid for the calls.
        let results = unsafe {
            [
                lanline_node_destroy(node, 0),
                lanline_node_guid(node, &mut number),
                lanline_node_key(node, key.as_mut_ptr()),
                lanline_node_address(node, &mut address),
                lanline_poll(node, &mut event, 128, 1),
                lanline_wait(node, 1000),
                lanline_server_connect(node, text, 7, null(), null_mut()),
                lanline_server_disconnect(node, null_mut()),
                lanline_open_nat(node, 5, null_mut()),
                lanline_peer_connect(node, 5, null(), null_mut()),
                lanline_peer_disconnect(node, 5, 0, null(), 0),
                lanline_send(node, 5, 0, 0, null(), 0),
                lanline_cancel(node, 1),
                lanline_join_start(node, 5, null(), 0, null_mut()),
                lanline_join_members(node, 5, null_mut(), 0, 0),
                lanline_join_data(node, 5, null(), 0),
                lanline_join_respond(node, 5, 1, null(), 0),
                lanline_mesh_reset_host_calculation(node),
                lanline_mesh_host(node, &mut number),
                lanline_mesh_order(node, &mut number, 1),
                lanline_mesh_participants(node, null_mut(), 0, 0),
                lanline_mesh_leave(node),
                lanline_mesh_kick(node, 5, null(), 0),
                lanline_peer_stats_get(node, 5, &mut stats),
                lanline_node_stats_get(node, &mut node_stats),
                lanline_nat_detect(node, null(), null_mut()),
                lanline_nat_facts_get(node, &mut facts),
                lanline_nat_text(node, 0, null_mut(), 0),
                lanline_port_map(node, 0, null_mut()),
                lanline_port_manual(node, &mut port, null_mut(), 0),
                lanline_report(node, 0, null(), null_mut()),
                lanline_route(node, 5, null_mut()),
                lanline_proxy(node, 5, 0, null_mut()),
                lanline_set_relay_policy(node, 0),
                lanline_set_session_relay_policy(node, 0),
                lanline_relay_policy_get(node, null_mut(), null_mut()),
            ]
        };
        for (index, result) in results.into_iter().enumerate() {
            assert_eq!(result, Code::InvalidNode.number(), "call {index} with node {node}");
        }
        assert!(last_error().contains("`node`"));
    }
}

#[test]
fn bad_arguments_are_named() {
    let bad = Code::InvalidArgument;
    let mut node = 0;
    let mut address = AddressRecord {
        family: 5,
        port: 1,
        ..Default::default()
    };
    // SAFETY: the pointers are valid or what is tested.
    unsafe {
        assert_eq!(lanline_node_create(&options(), &mut node), 0, "{}", last_error());
        fails(lanline_node_guid(node, null_mut()), bad, "`out`");
        fails(lanline_node_key(node, null_mut()), bad, "`key32`");
        fails(lanline_node_address(node, null_mut()), bad, "`out`");
        fails(lanline_poll(node, null_mut(), 128, 1), bad, "`out`");
        fails(lanline_poll(node, &mut EventRecord::default(), 120, 1), bad, "`stride`");
        fails(lanline_poll(node, &mut EventRecord::default(), 129, 1), bad, "`stride`");
        assert_eq!(lanline_poll(node, null_mut(), 0, 0), 0);
        fails(
            lanline_server_connect(node, null(), 3, null(), null_mut()),
            bad,
            "`address`",
        );
        fails(
            lanline_server_connect(node, c"a b:1".as_ptr(), 5, null(), null_mut()),
            bad,
            "`address`",
        );
        fails(lanline_open_nat(node, 0, null_mut()), bad, "`peer`");
        fails(lanline_open_nat(node, u64::MAX, null_mut()), bad, "`peer`");
        fails(lanline_peer_connect(node, 0, null(), null_mut()), bad, "`peer`");
        fails(lanline_peer_connect(node, 0, &address, null_mut()), bad, "`address`");
        address.family = 4;
        fails(lanline_peer_connect(node, 0, &address, null_mut()), bad, "`address`");
        fails(
            lanline_peer_disconnect(node, 5, 0, null(), 0),
            Code::NotConnected,
            "`peer`",
        );
        fails(lanline_peer_disconnect(node, 5, 0, c"x".as_ptr(), 257), bad, "`text`");
        fails(lanline_send(node, 5, 64, 0, null(), 0), bad, "`channel`");
        fails(lanline_send(node, 5, 0, 4, null(), 0), bad, "`mode`");
        fails(lanline_send(node, 5, 0, 0, null(), 1), bad, "`data`");
        fails(
            lanline_send(node, 5, 0, 0, null(), (64 << 10) + 1),
            Code::TooLarge,
            "`len`",
        );
        fails(
            lanline_send(node, 5, 0, 2, null(), (1 << 20) + 1),
            Code::TooLarge,
            "`len`",
        );
        fails(lanline_send(node, 5, 0, 2, null(), 0), Code::NotConnected, "`peer`");
        assert_eq!(lanline_send(node, u64::MAX, 0, 2, null(), 0), 0, "to nobody");
        fails(lanline_cancel(node, 0), bad, "`request`");
        fails(lanline_cancel(node, 9), Code::NotFound, "`request`");
        fails(
            lanline_join_start(node, 5, null(), 0, null_mut()),
            Code::NotConnected,
            "`peer`",
        );
        fails(lanline_join_start(node, 5, null(), 70_000, null_mut()), bad, "`data`");
        fails(
            lanline_join_members(node, 5, null_mut(), 0, 0),
            Code::NotFound,
            "`host`",
        );
        fails(lanline_join_data(node, 5, null(), 0), Code::NotFound, "`host`");
        fails(lanline_join_respond(node, 5, 2, null(), 0), bad, "`accept`");
        fails(lanline_join_respond(node, 5, 1, null(), 0), Code::NotFound, "`peer`");
        fails(lanline_mesh_host(node, null_mut()), bad, "`out`");
        fails(lanline_mesh_order(node, null_mut(), 1), bad, "`out`");
        fails(lanline_mesh_participants(node, null_mut(), 24, 1), bad, "`out`");
        fails(lanline_peer_stats_get(node, 5, null_mut()), bad, "`out`");
        fails(
            lanline_peer_stats_get(node, 5, &mut PeerStatsRecord::default()),
            Code::WrongSize,
            "struct_size",
        );
        fails(
            lanline_node_stats_get(node, &mut NodeStatsRecord::default()),
            Code::WrongSize,
            "struct_size",
        );
        assert_eq!(lanline_node_destroy(node, 100), 0);
    }
}

#[test]
fn addresses_go_both_ways_and_bad_ones_are_named() {
    for (text, written) in [
        ("1.2.3.4:5", "1.2.3.4:5"),
        ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        ("::1", "[::1]:0"),
    ] {
        let mut address = AddressRecord::default();
        let mut buffer = [0x7f as c_char; 64];
        // SAFETY: valid for the calls.
        unsafe {
            assert_eq!(
                lanline_address_parse(text.as_ptr().cast(), text.len() as u32, &mut address),
                0
            );
            let needed = lanline_address_format(&address, buffer.as_mut_ptr(), 64);
            assert_eq!(needed as usize, written.len());
            assert_eq!(CStr::from_ptr(buffer.as_ptr()).to_str().unwrap(), written);
            // Cut, with a NUL, and nothing behind it touched.
            buffer = [0x7f; 64];
            assert_eq!(lanline_address_format(&address, buffer.as_mut_ptr(), 4), needed);
            assert_eq!((buffer[3], buffer[4]), (0, 0x7f));
            assert_eq!(lanline_address_format(&address, null_mut(), 0), needed);
        }
    }
    let mut address = AddressRecord {
        family: 9,
        ..Default::default()
    };
    // SAFETY: valid, or what is tested.
    unsafe {
        fails(
            lanline_address_format(&address, null_mut(), 0),
            Code::InvalidArgument,
            "`address`",
        );
        fails(
            lanline_address_format(null(), null_mut(), 0),
            Code::InvalidArgument,
            "`address`",
        );
        fails(
            lanline_address_parse(c"nonsense".as_ptr(), 8, &mut address),
            Code::InvalidArgument,
            "`text`",
        );
        fails(
            lanline_address_parse(c"1.2.3.4".as_ptr(), 7, null_mut()),
            Code::InvalidArgument,
            "`out`",
        );
    }
}

#[test]
fn a_panic_becomes_an_error_and_nothing_more() {
    fails(
        guard(|| panic!("this test panics on purpose")),
        Code::Internal,
        "on purpose",
    );
}

#[test]
fn names_sizes_and_offsets() {
    // SAFETY: static texts.
    unsafe {
        assert_eq!(CStr::from_ptr(lanline_result_name(-115)), c"LOST");
        assert_eq!(CStr::from_ptr(lanline_result_name(1)), c"UNKNOWN");
        assert_eq!(CStr::from_ptr(lanline_event_name(33)), c"MESSAGE");
        assert_eq!(CStr::from_ptr(lanline_event_name(0)), c"UNKNOWN");
        assert_eq!(CStr::from_ptr(lanline_path_name(2)), c"direct");
        assert_eq!(CStr::from_ptr(lanline_mode_name(200)), c"UNKNOWN");
        assert_eq!(CStr::from_ptr(lanline_nat_type_name(4)), c"PORT_RESTRICTED");
        assert_eq!(CStr::from_ptr(lanline_connectivity_name(1)), c"MAYBE");
        assert_eq!(CStr::from_ptr(lanline_mapping_name(3)), c"natpmp");
        assert_eq!(
            CStr::from_ptr(lanline_version()).to_str().unwrap(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(lanline_abi_version(), ABI_VERSION);
        let sizes: Vec<_> = (0..12).map(|id| lanline_struct_size(id)).collect();
        assert_eq!(sizes, [0, 128, 24, 104, 128, 64, 24, 128, 24, 120, 32, 0]);
        let offsets: Vec<_> = (0..18).map(|field| lanline_event_field_offset(field)).collect();
        assert_eq!(
            offsets,
            [0, 4, 8, 16, 24, 32, 36, 40, 41, 42, 43, 44, 48, 72, 80, 84, 88, 96]
        );
        assert_eq!(lanline_event_field_offset(18), u32::MAX);
    }
    assert_eq!(size_of::<EventRecord>(), 128);
}

#[test]
fn a_thread_that_polls_without_pause_lets_others_go_first_now_and_then() {
    let mut node = 0;
    let mut events = [EventRecord::default(); 8];
    // Far more rows of empty polls than a busy machine can tear apart.
    const POLLS: u32 = 10_000_000;
    // SAFETY: valid for the calls.
    unsafe {
        assert_eq!(lanline_node_create(&options(), &mut node), 0, "{}", last_error());
        let yielded = || crate::shell::with_node(node, |node| Ok(node.polls_that_yielded())).unwrap();
        let mut polls = 0;
        while yielded() == 0 {
            assert!(
                polls < POLLS,
                "{polls} empty polls, and the background thread had to wait for all of them"
            );
            lanline_poll(node, events.as_mut_ptr(), 128, 8);
            polls += 1;
        }
        assert_eq!(lanline_node_destroy(node, 0), 0);
    }
}

#[test]
fn a_panic_in_the_background_is_fatal_and_the_node_can_only_be_destroyed() {
    let mut node = 0;
    let mut events = [EventRecord::default(); 8];
    // SAFETY: valid for the calls.
    unsafe {
        assert_eq!(lanline_node_create(&options(), &mut node), 0, "{}", last_error());
        crate::shell::with_node(node, |node| {
            node.break_engine();
            Ok(())
        })
        .unwrap();
        let fatal = loop {
            assert!(lanline_wait(node, 1_000) >= 0, "{}", last_error());
            let count = lanline_poll(node, events.as_mut_ptr(), 128, 8);
            assert!(count >= 0, "{}", last_error());
            if let Some(event) = events[..count as usize].iter().find(|event| event.r#type == 1) {
                break *event;
            }
        };
        assert_eq!(fatal.code, Code::Internal.number());
        let text = CStr::from_ptr(fatal.text).to_str().unwrap();
        assert!(text.contains("on purpose") && text.contains("destroy it"), "{text}");
        let dead = Code::Internal;
        fails(lanline_open_nat(node, 5, null_mut()), dead, "dead");
        fails(lanline_send(node, u64::MAX, 0, 2, null(), 0), dead, "dead");
        fails(lanline_mesh_leave(node), dead, "dead");
        // Whoever only looks sees what was last known, and no second event.
        let mut host = 0;
        assert_eq!(lanline_mesh_host(node, &mut host), 0);
        assert_eq!(lanline_poll(node, events.as_mut_ptr(), 128, 8), 0);
        assert_eq!(lanline_node_destroy(node, 1_000), 0);
        fails(lanline_wait(node, 0), Code::InvalidNode, "`node`");
    }
}

#[test]
fn a_guid_that_was_never_set_is_no_broadcast() {
    let mut node = 0;
    // SAFETY: valid for the call.
    assert_eq!(unsafe { lanline_node_create(&options(), &mut node) }, 0);
    // SAFETY: no pointers.
    unsafe {
        fails(lanline_send(node, 0, 0, 0, null(), 0), Code::InvalidArgument, "`peer`");
        assert_eq!(
            lanline_send(node, u64::MAX, 0, 0, null(), 0),
            0,
            "all, of whom there are none"
        );
        assert_eq!(lanline_node_destroy(node, 0), 0);
    }
}

#[test]
fn options_of_another_size_are_filled_no_further_than_they_go() {
    let own = size_of::<NodeOptionsRecord>();
    for size in [0, 3, 4, 8, 96, own, own + 16] {
        let mut room = [0xaau64; 20];
        // SAFETY: the room is larger than any of these sizes.
        unsafe { lanline_node_options_init_sized(room.as_mut_ptr().cast(), size as u32) };
        let bytes: Vec<u8> = room.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let before: Vec<u8> = [0xaau64; 20].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let written = if size < 4 { 0 } else { size };
        assert_eq!(bytes[written..], before[written..], "{size}");
        if written > 0 {
            assert_eq!(bytes[..4], (size as u32).to_ne_bytes());
        }
    }
}

#[test]
fn a_destroy_without_time_still_waits_for_a_poll_under_way() {
    let mut node = 0;
    // SAFETY: valid for the call.
    assert_eq!(unsafe { lanline_node_create(&options(), &mut node) }, 0);
    let (entered, wait_until_entered) = std::sync::mpsc::channel();
    let returned = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let returning = returned.clone();
    let destroyed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gone = destroyed.clone();
    let poll = std::thread::spawn(move || {
        crate::shell::with_node(node, |_| {
            entered.send(()).expect("the test waits");
            // Until the destroy waits for this call alone; one that does not wait returns, and the test fails.
            while !crate::shell::table::is_awaited(node) && !gone.load(std::sync::atomic::Ordering::SeqCst) {
                std::thread::yield_now();
            }
            returning.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        })
        .expect("the node lived when the call began");
    });
    wait_until_entered.recv().expect("the call begins");
    // SAFETY: no pointers.
    assert_eq!(unsafe { lanline_node_destroy(node, 0) }, 0);
    let had_returned = returned.load(std::sync::atomic::Ordering::SeqCst);
    destroyed.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(had_returned, "the call was still under way");
    poll.join().expect("the call ends well");
}
