//! Bad input through every exported function: an error code, a text that names the argument, and nothing else changes.
//!
//! Each function has a line in [`CASES`]; a test holds that none is missing.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::mem::{size_of, zeroed};
use std::ptr::{null, null_mut};

use lanline::codes::Code;
use lanline::ffi::address::*;
use lanline::ffi::error::*;
use lanline::ffi::events::*;
use lanline::ffi::mesh::*;
use lanline::ffi::nat::*;
use lanline::ffi::node::*;
use lanline::ffi::peers::*;
use lanline::ffi::relays::*;
use lanline::shell::record::{AddressRecord, EventRecord};

const EVENT: u32 = size_of::<EventRecord>() as u32;
/// A guid that nobody has.
const NOBODY: u64 = 4711;
/// What output arguments hold before a call.
const UNTOUCHED: u32 = 0x5a5a_5a5a;

fn last_error() -> String {
    let mut buffer = [0u8; 600];
    // SAFETY: the buffer has that size.
    let length = unsafe { lanline_last_error(buffer.as_mut_ptr().cast(), 600) };
    String::from_utf8(buffer[..length as usize].to_vec()).unwrap()
}

/// The call failed with that code, and its text names the argument.
#[track_caller]
fn fails(result: i32, code: Code, argument: &str) {
    assert_eq!(Code::from_number(result), Some(code), "{argument}: {}", last_error());
    assert!(
        last_error().contains(argument),
        "\"{}\" does not name {argument}",
        last_error()
    );
}

#[track_caller]
fn bad(result: i32, argument: &str) {
    fails(result, Code::InvalidArgument, argument);
}

/// Every id that is no node, for a call that is right otherwise.
#[track_caller]
fn stale(gone: u32, mut call: impl FnMut(u32) -> i32) {
    for node in [0, gone, gone ^ 1, u32::MAX] {
        fails(call(node), Code::InvalidNode, "`node`");
    }
}

fn options() -> NodeOptionsRecord {
    // SAFETY: integers and pointers; valid for the call.
    unsafe {
        let mut options = zeroed();
        lanline_node_options_init_sized(&mut options, size_of::<NodeOptionsRecord>() as u32);
        (options.app, options.app_len) = (c"bad input".as_ptr(), 9);
        (options.bind, options.bind_len) = (c"127.0.0.1:0".as_ptr(), 11);
        options
    }
}

fn node() -> u32 {
    let mut node = 0;
    // SAFETY: valid for the call.
    assert_eq!(
        unsafe { lanline_node_create(&options(), &mut node) },
        0,
        "{}",
        last_error()
    );
    node
}

/// Texts that no call takes: (pointer, length, what is wrong with it).
fn bad_texts() -> [(*const c_char, u32); 5] {
    [
        (null(), 3),
        (c"\xff\xfe\xfd".as_ptr(), 3),
        (c"a\xc3".as_ptr(), 2),
        (c"ab".as_ptr(), 3),
        (c"x".as_ptr(), u32::MAX),
    ]
}

const UNALIGNED: usize = 3;

/// Every detection option that is wrong, for a call that is right otherwise.
#[track_caller]
fn bad_detect_options(call: impl Fn(*const NatDetectOptionsRecord) -> i32) {
    let size = size_of::<NatDetectOptionsRecord>() as u32;
    let options = || {
        // SAFETY: integers and pointers.
        let mut options: NatDetectOptionsRecord = unsafe { zeroed() };
        options.struct_size = size;
        options
    };
    for size in [0, 4, size - 8, size + 8, u32::MAX] {
        let options = NatDetectOptionsRecord {
            struct_size: size,
            ..options()
        };
        fails(call(&options), Code::WrongSize, "`options->struct_size`");
    }
    let good = options();
    // SAFETY: stays inside of what is there; never followed.
    bad(call(unsafe { (&raw const good).byte_add(UNALIGNED) }), "`options`");
    for (text, length) in bad_texts() {
        let options = NatDetectOptionsRecord {
            stun_host: text,
            stun_host_len: length,
            ..options()
        };
        bad(call(&options), "`stun_host`");
    }
    for text in [c"a b", c"a/b", c"a:5"] {
        let options = NatDetectOptionsRecord {
            stun_host: text.as_ptr(),
            stun_host_len: text.to_bytes().len() as u32,
            ..options()
        };
        bad(call(&options), "`stun_host`");
    }
    let long = [b'a'; 254];
    let options_long = NatDetectOptionsRecord {
        stun_host: long.as_ptr().cast(),
        stun_host_len: 254,
        ..options()
    };
    bad(call(&options_long), "`stun_host`");
    let port_alone = NatDetectOptionsRecord {
        stun_port: 3478,
        ..options()
    };
    bad(call(&port_alone), "`stun_port`");
    for lifetime_up_to_ms in [600_001, u32::MAX] {
        let options = NatDetectOptionsRecord {
            lifetime_up_to_ms,
            ..options()
        };
        bad(call(&options), "`lifetime_up_to_ms`");
    }
}

/// The functions, each with the calls that it must turn down. `node` lives, `gone` was destroyed.
type Case = (&'static str, unsafe fn(node: u32, gone: u32));

const CASES: &[Case] = &[
    ("lanline_abi_version", |_, _| unsafe {
        assert!(lanline_abi_version() > 0)
    }),
    ("lanline_version", |_, _| unsafe {
        assert!(!lanline_version().is_null())
    }),
    ("lanline_struct_size", |_, _| unsafe {
        for id in [0, 11, u32::MAX] {
            assert_eq!(lanline_struct_size(id), 0);
        }
    }),
    ("lanline_event_field_offset", |_, _| unsafe {
        for field in [18, u32::MAX] {
            assert_eq!(lanline_event_field_offset(field), u32::MAX);
        }
    }),
    ("lanline_last_error", |_, _| unsafe {
        bad(lanline_last_error(null_mut(), 1), "`buffer`");
        assert!(lanline_last_error(null_mut(), 0) > 0);
    }),
    ("lanline_result_name", |_, _| unsafe {
        for code in [i32::MIN, 1, i32::MAX] {
            assert_eq!(CStr::from_ptr(lanline_result_name(code)), c"UNKNOWN");
        }
    }),
    ("lanline_event_name", |_, _| unsafe {
        for number in [0, u32::MAX] {
            assert_eq!(CStr::from_ptr(lanline_event_name(number)), c"UNKNOWN");
        }
    }),
    ("lanline_path_name", |_, _| unsafe {
        assert_eq!(CStr::from_ptr(lanline_path_name(255)), c"UNKNOWN");
    }),
    ("lanline_mode_name", |_, _| unsafe {
        assert_eq!(CStr::from_ptr(lanline_mode_name(4)), c"UNKNOWN");
    }),
    ("lanline_nat_type_name", |_, _| unsafe {
        for number in [0, 6, 256, u32::MAX] {
            assert_eq!(CStr::from_ptr(lanline_nat_type_name(number)), c"UNKNOWN");
        }
    }),
    ("lanline_connectivity_name", |_, _| unsafe {
        assert_eq!(CStr::from_ptr(lanline_connectivity_name(3)), c"UNKNOWN");
    }),
    ("lanline_mapping_name", |_, _| unsafe {
        for number in [0, 4, 257, u32::MAX] {
            assert_eq!(CStr::from_ptr(lanline_mapping_name(number)), c"UNKNOWN");
        }
    }),
    ("lanline_nat_detect", |node, gone| unsafe {
        stale(gone, |node| lanline_nat_detect(node, null(), null_mut()));
        let mut request = UNTOUCHED;
        let out = &raw mut request;
        bad_detect_options(|options| lanline_nat_detect(node, options, out));
        assert_eq!(request, UNTOUCHED);
        let crooked = out.byte_add(1);
        bad(lanline_nat_detect(node, null(), crooked), "`request`");
    }),
    ("lanline_nat_facts_get", |node, gone| unsafe {
        let size = size_of::<NatFactsRecord>() as u32;
        let mut facts = NatFactsRecord {
            struct_size: size,
            ..Default::default()
        };
        let before = facts;
        let out = &raw mut facts;
        stale(gone, |node| lanline_nat_facts_get(node, out));
        bad(lanline_nat_facts_get(node, null_mut()), "`out`");
        bad(lanline_nat_facts_get(node, out.byte_add(UNALIGNED)), "`out`");
        assert_eq!(facts, before);
        for size in [0, size - 8, size + 1, u32::MAX] {
            facts.struct_size = size;
            let out = &raw mut facts;
            fails(lanline_nat_facts_get(node, out), Code::WrongSize, "`out->struct_size`");
        }
    }),
    ("lanline_nat_text", |node, gone| unsafe {
        stale(gone, |node| lanline_nat_text(node, 1, null_mut(), 0));
        for which in [4, u32::MAX] {
            bad(lanline_nat_text(node, which, null_mut(), 0), "`which`");
        }
        bad(lanline_nat_text(node, 1, null_mut(), 1), "`buffer`");
        let mut buffer = [0x7f as c_char; 4];
        assert!(lanline_nat_text(node, 1, buffer.as_mut_ptr(), 3) > 3);
        assert_eq!((buffer[2], buffer[3]), (0, 0x7f), "cut to fit");
    }),
    ("lanline_nat_can_connect", |_, _| unsafe {
        let (mut lanline, mut raknet) = (0x5a, 0x5a);
        for kind in [6, 256, u32::MAX] {
            bad(lanline_nat_can_connect(kind, 1, &mut lanline, &mut raknet), "`type_a`");
            bad(lanline_nat_can_connect(1, kind, &mut lanline, &mut raknet), "`type_b`");
        }
        assert_eq!((lanline, raknet), (0x5a, 0x5a));
        assert_eq!(lanline_nat_can_connect(1, 1, null_mut(), null_mut()), 0);
    }),
    ("lanline_port_map", |node, gone| unsafe {
        stale(gone, |node| lanline_port_map(node, 2000, null_mut()));
        let mut request = UNTOUCHED;
        for timeout in [60_001, u32::MAX] {
            bad(lanline_port_map(node, timeout, &mut request), "`timeout_ms`");
        }
        assert_eq!(request, UNTOUCHED);
        bad(lanline_port_map(node, 0, (&raw mut request).byte_add(1)), "`request`");
    }),
    ("lanline_port_manual", |node, gone| unsafe {
        let size = size_of::<ManualPortRecord>() as u32;
        let mut port = ManualPortRecord {
            struct_size: size,
            ..Default::default()
        };
        let before = port;
        let out = &raw mut port;
        stale(gone, |node| lanline_port_manual(node, out, null_mut(), 0));
        bad(lanline_port_manual(node, null_mut(), null_mut(), 0), "`out`");
        bad(
            lanline_port_manual(node, out.byte_add(UNALIGNED), null_mut(), 0),
            "`out`",
        );
        bad(lanline_port_manual(node, out, null_mut(), 9), "`buffer`");
        assert_eq!(port, before);
        for size in [0, size - 8, size + 1, u32::MAX] {
            port.struct_size = size;
            let out = &raw mut port;
            fails(
                lanline_port_manual(node, out, null_mut(), 0),
                Code::WrongSize,
                "`out->struct_size`",
            );
        }
    }),
    ("lanline_report", |node, gone| unsafe {
        stale(gone, |node| lanline_report(node, 1, null(), null_mut()));
        let mut request = UNTOUCHED;
        let out = &raw mut request;
        for flags in [2, 3, u32::MAX] {
            bad(lanline_report(node, flags, null(), out), "`flags`");
        }
        bad_detect_options(|options| lanline_report(node, 0, options, out));
        assert_eq!(request, UNTOUCHED);
        bad(lanline_report(node, 0, null(), out.byte_add(1)), "`request`");
    }),
    ("lanline_address_parse", |_, _| unsafe {
        let mut address = AddressRecord::default();
        for (text, length) in bad_texts() {
            bad(lanline_address_parse(text, length, &mut address), "`text`");
        }
        bad(
            lanline_address_parse(c"1.2.3.4:70000".as_ptr(), 13, &mut address),
            "`text`",
        );
        bad(lanline_address_parse(null(), 0, &mut address), "`text`");
        bad(lanline_address_parse(c"1.2.3.4".as_ptr(), 7, null_mut()), "`out`");
        assert_eq!(address, AddressRecord::default());
    }),
    ("lanline_address_format", |_, _| unsafe {
        let mut address = AddressRecord::default();
        bad(lanline_address_format(null(), null_mut(), 0), "`address`");
        bad(lanline_address_format(&address, null_mut(), 9), "`buffer`");
        address.family = 7;
        bad(lanline_address_format(&address, null_mut(), 0), "`address`");
    }),
    ("lanline_node_options_init_sized", |_, _| unsafe {
        lanline_node_options_init_sized(null_mut(), 104)
    }),
    ("lanline_node_create", |_, _| unsafe {
        let mut node = UNTOUCHED;
        bad(lanline_node_create(null(), &mut node), "`options`");
        assert_eq!(node, UNTOUCHED);
        bad(lanline_node_create(&options(), null_mut()), "`out`");
        for size in [0, 1, 100, 105, u32::MAX] {
            let options = NodeOptionsRecord {
                struct_size: size,
                ..options()
            };
            fails(
                lanline_node_create(&options, &mut node),
                Code::WrongSize,
                "`options->struct_size`",
            );
        }
        for (text, length) in bad_texts() {
            let refused = |name: &str, options: NodeOptionsRecord| {
                let mut node = UNTOUCHED;
                bad(lanline_node_create(&options, &mut node), name);
                assert_eq!(node, 0);
            };
            refused(
                "`app`",
                NodeOptionsRecord {
                    app: text,
                    app_len: length,
                    ..options()
                },
            );
            refused(
                "`bind`",
                NodeOptionsRecord {
                    bind: text,
                    bind_len: length,
                    ..options()
                },
            );
            let identity = NodeOptionsRecord {
                identity_file: text,
                identity_file_len: length,
                ..options()
            };
            refused("`identity_file`", identity);
            refused(
                "`access_key`",
                NodeOptionsRecord {
                    access_key: text,
                    access_key_len: length,
                    ..options()
                },
            );
            let public = NodeOptionsRecord {
                public_address: text,
                public_address_len: length,
                ..options()
            };
            refused("`public_address`", public);
            let password = NodeOptionsRecord {
                session_password: text,
                session_password_len: length,
                ..options()
            };
            refused("`session_password`", password);
        }
        for (name, options) in [
            (
                "`max_peers`",
                NodeOptionsRecord {
                    max_peers: 0,
                    ..options()
                },
            ),
            (
                "`max_peers`",
                NodeOptionsRecord {
                    max_peers: 1025,
                    ..options()
                },
            ),
            (
                "`lost_peer_timeout_ms`",
                NodeOptionsRecord {
                    lost_peer_timeout_ms: 60_001,
                    ..options()
                },
            ),
            (
                "`join_timeout_ms`",
                NodeOptionsRecord {
                    join_timeout_ms: 999,
                    ..options()
                },
            ),
            (
                "`router_max`",
                NodeOptionsRecord {
                    router_max: 1025,
                    ..options()
                },
            ),
            (
                "`relay_policy`",
                NodeOptionsRecord {
                    relay_policy: 3,
                    ..options()
                },
            ),
            (
                "`accept_from`",
                NodeOptionsRecord {
                    accept_from: 3,
                    ..options()
                },
            ),
            (
                "`join_manual`",
                NodeOptionsRecord {
                    join_manual: 2,
                    ..options()
                },
            ),
            (
                "`partial_mesh`",
                NodeOptionsRecord {
                    partial_mesh: 2,
                    ..options()
                },
            ),
        ] {
            bad(lanline_node_create(&options, &mut node), name);
        }
    }),
    ("lanline_node_destroy", |_, gone| {
        stale(gone, |node| unsafe { lanline_node_destroy(node, 0) })
    }),
    // Destroying everything is never wrong; the last test here calls it.
    ("lanline_shutdown_all", |_, _| {}),
    ("lanline_node_guid", |node, gone| unsafe {
        let mut guid = 0;
        stale(gone, |node| lanline_node_guid(node, &raw mut guid));
        bad(lanline_node_guid(node, null_mut()), "`out`");
        bad(lanline_node_guid(node, (&raw mut guid).byte_add(UNALIGNED)), "`out`");
        assert_eq!(guid, 0);
    }),
    ("lanline_node_key", |node, gone| unsafe {
        let mut key = [0; 32];
        let key = key.as_mut_ptr();
        stale(gone, |node| lanline_node_key(node, key));
        bad(lanline_node_key(node, null_mut()), "`key32`");
        assert_eq!(*key, 0);
    }),
    ("lanline_node_address", |node, gone| unsafe {
        let mut address = AddressRecord::default();
        stale(gone, |node| lanline_node_address(node, &raw mut address));
        bad(lanline_node_address(node, null_mut()), "`out`");
        assert_eq!(address, AddressRecord::default());
    }),
    ("lanline_poll", |node, gone| unsafe {
        let mut event = EventRecord::default();
        let out = &raw mut event;
        stale(gone, |node| lanline_poll(node, out, EVENT, 1));
        bad(lanline_poll(node, null_mut(), EVENT, 1), "`out`");
        bad(lanline_poll(node, out.byte_add(UNALIGNED), EVENT, 1), "`out`");
        for stride in [0, EVENT - 8, EVENT + 1] {
            bad(lanline_poll(node, out, stride, 1), "`stride`");
        }
    }),
    ("lanline_wait", |_, gone| {
        stale(gone, |node| unsafe { lanline_wait(node, 60_000) })
    }),
    ("lanline_server_connect", |node, gone| unsafe {
        let mut request = UNTOUCHED;
        let name = c"example.org".as_ptr();
        stale(gone, |node| lanline_server_connect(node, name, 11, null(), null_mut()));
        for (text, length) in bad_texts() {
            bad(
                lanline_server_connect(node, text, length, null(), &mut request),
                "`address`",
            );
        }
        for text in [c"", c"a:0", c"a:b", c"a b:1", c":1", c"1.2.3.4:99999"] {
            let length = text.to_bytes().len() as u32;
            bad(
                lanline_server_connect(node, text.as_ptr(), length, null(), &mut request),
                "`address`",
            );
        }
        assert_eq!(request, UNTOUCHED);
        let crooked = (&raw mut request).byte_add(1);
        bad(lanline_server_connect(node, name, 11, null(), crooked), "`request`");
    }),
    ("lanline_server_disconnect", |node, gone| unsafe {
        stale(gone, |node| lanline_server_disconnect(node, null_mut()));
        let mut request = [0u32; 2];
        let crooked = request.as_mut_ptr().byte_add(1);
        bad(lanline_server_disconnect(node, crooked), "`request`");
    }),
    ("lanline_open_nat", |node, gone| unsafe {
        stale(gone, |node| lanline_open_nat(node, NOBODY, null_mut()));
        let (mut request, mut own) = (UNTOUCHED, 0);
        for guid in [0, 1 << 63, u64::MAX] {
            bad(lanline_open_nat(node, guid, &mut request), "`peer`");
        }
        assert_eq!(request, UNTOUCHED);
        lanline_node_guid(node, &mut own);
        fails(lanline_open_nat(node, own, &mut request), Code::Self_, "`peer`");
        assert_eq!(request, 0);
    }),
    ("lanline_route", |node, gone| unsafe {
        stale(gone, |node| lanline_route(node, NOBODY, null_mut()));
        let (mut request, mut own) = (UNTOUCHED, 0);
        for guid in [0, 1 << 63, u64::MAX] {
            bad(lanline_route(node, guid, &mut request), "`peer`");
        }
        assert_eq!(request, UNTOUCHED);
        bad(lanline_route(node, NOBODY, (&raw mut request).byte_add(1)), "`request`");
        lanline_node_guid(node, &mut own);
        fails(lanline_route(node, own, &mut request), Code::Self_, "`peer`");
        assert_eq!(request, 0);
    }),
    ("lanline_proxy", |node, gone| unsafe {
        stale(gone, |node| lanline_proxy(node, NOBODY, 0, null_mut()));
        let (mut request, mut own) = (UNTOUCHED, 0);
        for guid in [0, 1 << 63, u64::MAX] {
            bad(lanline_proxy(node, guid, 0, &mut request), "`peer`");
        }
        for idle in [600_001, u32::MAX] {
            bad(lanline_proxy(node, NOBODY, idle, &mut request), "`idle_ms`");
        }
        assert_eq!(request, UNTOUCHED);
        let crooked = (&raw mut request).byte_add(1);
        bad(lanline_proxy(node, NOBODY, 600_000, crooked), "`request`");
        lanline_node_guid(node, &mut own);
        fails(lanline_proxy(node, own, 0, &mut request), Code::Self_, "`peer`");
        assert_eq!(request, 0);
    }),
    ("lanline_set_relay_policy", |node, gone| unsafe {
        stale(gone, |node| lanline_set_relay_policy(node, 0));
        for policy in [3, 256, u32::MAX] {
            bad(lanline_set_relay_policy(node, policy), "`policy`");
        }
    }),
    ("lanline_set_session_relay_policy", |node, gone| unsafe {
        stale(gone, |node| lanline_set_session_relay_policy(node, 0));
        for policy in [3, 256, u32::MAX] {
            bad(lanline_set_session_relay_policy(node, policy), "`policy`");
        }
    }),
    ("lanline_relay_policy_get", |node, gone| unsafe {
        let (mut session, mut effective) = (UNTOUCHED, UNTOUCHED);
        stale(gone, |node| {
            lanline_relay_policy_get(node, &raw mut session, &raw mut effective)
        });
        let crooked = (&raw mut session).byte_add(1);
        bad(lanline_relay_policy_get(node, crooked, &mut effective), "`session`");
        let crooked = (&raw mut effective).byte_add(1);
        bad(lanline_relay_policy_get(node, &mut session, crooked), "`effective`");
        assert_eq!((session, effective), (UNTOUCHED, UNTOUCHED));
        assert_eq!(lanline_relay_policy_get(node, &mut session, &mut effective), 0);
        assert_eq!((session, effective), (0, 0), "no call above changed one");
        assert_eq!(lanline_relay_policy_get(node, null_mut(), null_mut()), 0);
    }),
    ("lanline_peer_connect", |node, gone| unsafe {
        stale(gone, |node| lanline_peer_connect(node, NOBODY, null(), null_mut()));
        let (mut request, mut own) = (UNTOUCHED, 0);
        bad(lanline_peer_connect(node, 0, null(), &mut request), "`peer`");
        bad(lanline_peer_connect(node, u64::MAX, null(), &mut request), "`peer`");
        let there = AddressRecord {
            family: 4,
            port: 9,
            ip: [127; 16],
            ..AddressRecord::default()
        };
        for address in [
            AddressRecord { family: 5, ..there },
            AddressRecord { family: 0, ..there },
            AddressRecord { port: 0, ..there },
            AddressRecord { ip: [0; 16], ..there },
            AddressRecord { ip: [224; 16], ..there },
        ] {
            bad(lanline_peer_connect(node, 0, &address, &mut request), "`address`");
        }
        assert_eq!(request, UNTOUCHED);
        lanline_node_guid(node, &mut own);
        fails(
            lanline_peer_connect(node, own, null(), &mut request),
            Code::Self_,
            "`peer`",
        );
    }),
    ("lanline_peer_disconnect", |node, gone| unsafe {
        // A node that is no more is noticed before a player who is not connected.
        stale(gone, |node| lanline_peer_disconnect(node, NOBODY, 0, null(), 0));
        bad(lanline_peer_disconnect(node, 0, 0, null(), 0), "`peer`");
        for (text, length) in bad_texts() {
            bad(lanline_peer_disconnect(node, NOBODY, 0, text, length), "`text`");
        }
        bad(
            lanline_peer_disconnect(node, NOBODY, 0, [65; 257].as_ptr(), 257),
            "`text`",
        );
        fails(
            lanline_peer_disconnect(node, NOBODY, 0, null(), 0),
            Code::NotConnected,
            "`peer`",
        );
    }),
    ("lanline_send", |node, gone| unsafe {
        stale(gone, |node| lanline_send(node, NOBODY, 0, 0, null(), 0));
        let data = c"x".as_ptr().cast::<c_void>();
        bad(lanline_send(node, 0, 0, 0, data, 1), "`peer`");
        bad(lanline_send(node, 1 << 63, 0, 0, data, 1), "`peer`");
        bad(lanline_send(node, NOBODY, 64, 0, data, 1), "`channel`");
        bad(lanline_send(node, NOBODY, 255, 0, data, 1), "`channel`");
        bad(lanline_send(node, NOBODY, 0, 4, data, 1), "`mode`");
        bad(lanline_send(node, NOBODY, 0, 0, null(), 1), "`data`");
        for (mode, length) in [(0, 65_537), (1, 65_537), (2, 1_048_577), (3, u32::MAX)] {
            fails(
                lanline_send(node, NOBODY, 0, mode, data, length),
                Code::TooLarge,
                "`len`",
            );
        }
        fails(lanline_send(node, NOBODY, 0, 0, data, 1), Code::NotConnected, "`peer`");
    }),
    ("lanline_cancel", |node, gone| unsafe {
        stale(gone, |node| lanline_cancel(node, 1));
        bad(lanline_cancel(node, 0), "`request`");
        fails(lanline_cancel(node, u32::MAX), Code::NotFound, "`request`");
    }),
    ("lanline_peer_stats_get", |node, gone| unsafe {
        let fresh = PeerStatsRecord {
            struct_size: size_of::<PeerStatsRecord>() as u32,
            ..Default::default()
        };
        let mut stats = fresh;
        let out = &raw mut stats;
        stale(gone, |node| lanline_peer_stats_get(node, NOBODY, out));
        bad(lanline_peer_stats_get(node, 0, out), "`peer`");
        bad(lanline_peer_stats_get(node, NOBODY, null_mut()), "`out`");
        fails(lanline_peer_stats_get(node, NOBODY, out), Code::NotConnected, "`peer`");
        assert_eq!((stats.path, stats.rtt_us), (0, 0));
        for size in [0, fresh.struct_size - 1, u32::MAX] {
            (*out).struct_size = size;
            fails(
                lanline_peer_stats_get(node, NOBODY, out),
                Code::WrongSize,
                "`out->struct_size`",
            );
        }
    }),
    ("lanline_node_stats_get", |node, gone| unsafe {
        let fresh = NodeStatsRecord {
            struct_size: size_of::<NodeStatsRecord>() as u32,
            ..Default::default()
        };
        let mut stats = fresh;
        let out = &raw mut stats;
        stale(gone, |node| lanline_node_stats_get(node, out));
        bad(lanline_node_stats_get(node, null_mut()), "`out`");
        for size in [0, fresh.struct_size + 8, u32::MAX] {
            (*out).struct_size = size;
            fails(lanline_node_stats_get(node, out), Code::WrongSize, "`out->struct_size`");
        }
        assert_eq!(stats.events_pending, 0);
    }),
    ("lanline_join_start", |node, gone| unsafe {
        stale(gone, |node| lanline_join_start(node, NOBODY, null(), 0, null_mut()));
        let mut own = 0;
        lanline_node_guid(node, &mut own);
        bad(lanline_join_start(node, 0, null(), 0, null_mut()), "`peer`");
        bad(lanline_join_start(node, NOBODY, null(), 1, null_mut()), "`data`");
        let data = c"x".as_ptr().cast();
        for length in [65_537, u32::MAX] {
            bad(lanline_join_start(node, NOBODY, data, length, null_mut()), "`data`");
        }
        fails(
            lanline_join_start(node, own, null(), 0, null_mut()),
            Code::Self_,
            "`peer`",
        );
        fails(
            lanline_join_start(node, NOBODY, null(), 0, null_mut()),
            Code::NotConnected,
            "`peer`",
        );
    }),
    ("lanline_join_members", |node, gone| unsafe {
        let size = size_of::<JoinMemberRecord>() as u32;
        let mut member: JoinMemberRecord = zeroed();
        let out = &raw mut member;
        stale(gone, |node| lanline_join_members(node, NOBODY, out, size, 1));
        bad(lanline_join_members(node, 0, out, size, 1), "`host`");
        bad(lanline_join_members(node, NOBODY, null_mut(), size, 1), "`out`");
        bad(lanline_join_members(node, NOBODY, out, size - 8, 1), "`stride`");
        fails(
            lanline_join_members(node, NOBODY, out, size, 1),
            Code::NotFound,
            "`host`",
        );
        assert_eq!(member.peer, 0);
    }),
    ("lanline_join_data", |node, gone| unsafe {
        stale(gone, |node| lanline_join_data(node, NOBODY, null(), 0));
        bad(lanline_join_data(node, 0, null(), 0), "`host`");
        bad(lanline_join_data(node, NOBODY, null(), 1), "`data`");
        bad(lanline_join_data(node, NOBODY, c"x".as_ptr().cast(), 65_537), "`data`");
        fails(lanline_join_data(node, NOBODY, null(), 0), Code::NotFound, "`host`");
    }),
    ("lanline_join_respond", |node, gone| unsafe {
        stale(gone, |node| lanline_join_respond(node, NOBODY, 1, null(), 0));
        bad(lanline_join_respond(node, 0, 1, null(), 0), "`peer`");
        bad(lanline_join_respond(node, NOBODY, 2, null(), 0), "`accept`");
        bad(lanline_join_respond(node, NOBODY, 1, null(), 1), "`data`");
        bad(
            lanline_join_respond(node, NOBODY, 1, c"x".as_ptr().cast(), 65_537),
            "`data`",
        );
        fails(
            lanline_join_respond(node, NOBODY, 0, null(), 0),
            Code::NotFound,
            "`peer`",
        );
    }),
    ("lanline_mesh_reset_host_calculation", |_, gone| {
        stale(gone, |node| unsafe { lanline_mesh_reset_host_calculation(node) });
    }),
    ("lanline_mesh_host", |node, gone| unsafe {
        let mut host = 0;
        stale(gone, |node| lanline_mesh_host(node, &raw mut host));
        bad(lanline_mesh_host(node, null_mut()), "`out`");
        assert_eq!(host, 0);
    }),
    ("lanline_mesh_order", |node, gone| unsafe {
        let mut guid = 0;
        stale(gone, |node| lanline_mesh_order(node, &raw mut guid, 1));
        bad(lanline_mesh_order(node, null_mut(), 1), "`out`");
        assert_eq!(guid, 0);
    }),
    ("lanline_mesh_participants", |node, gone| unsafe {
        let size = size_of::<ParticipantRecord>() as u32;
        let mut participant = ParticipantRecord::default();
        let out = &raw mut participant;
        stale(gone, |node| lanline_mesh_participants(node, out, size, 1));
        bad(lanline_mesh_participants(node, null_mut(), size, 1), "`out`");
        bad(lanline_mesh_participants(node, out, size - 1, 1), "`stride`");
        assert_eq!(participant.peer, 0);
    }),
    ("lanline_mesh_leave", |_, gone| {
        stale(gone, |node| unsafe { lanline_mesh_leave(node) })
    }),
    ("lanline_mesh_kick", |node, gone| unsafe {
        stale(gone, |node| lanline_mesh_kick(node, NOBODY, null(), 0));
        let mut own = 0;
        lanline_node_guid(node, &mut own);
        bad(lanline_mesh_kick(node, 0, null(), 0), "`peer`");
        for (text, length) in bad_texts() {
            bad(lanline_mesh_kick(node, NOBODY, text, length), "`text`");
        }
        bad(lanline_mesh_kick(node, NOBODY, [65; 257].as_ptr(), 257), "`text`");
        fails(lanline_mesh_kick(node, own, null(), 0), Code::Self_, "`peer`");
        fails(lanline_mesh_kick(node, NOBODY, null(), 0), Code::NotFound, "`peer`");
    }),
];

/// All that a program can see of a node.
fn state(node: u32) -> (u64, Vec<u64>, u32, u8, u64) {
    let (mut host, mut order) = (0, [0; 4]);
    let mut stats = NodeStatsRecord {
        struct_size: size_of::<NodeStatsRecord>() as u32,
        ..Default::default()
    };
    // SAFETY: valid for the calls.
    let members = unsafe {
        assert_eq!(lanline_mesh_host(node, &mut host), 0);
        assert_eq!(lanline_node_stats_get(node, &mut stats), 0);
        lanline_mesh_order(node, order.as_mut_ptr(), 4)
    };
    let order = order[..members as usize].to_vec();
    (host, order, stats.peers, stats.server_connected, stats.events_pending)
}

#[test]
fn every_function_turns_bad_input_down_and_changes_nothing() {
    let (node, gone) = (node(), node());
    // SAFETY: no pointers.
    assert_eq!(unsafe { lanline_node_destroy(gone, 100) }, 0);
    let before = state(node);
    for (name, case) in CASES {
        // SAFETY: each case passes pointers that are valid, or are what is tested and never followed.
        unsafe { case(node, gone) };
        assert_eq!(state(node), before, "{name} changed something");
    }
    // SAFETY: no pointers.
    unsafe {
        assert_eq!(lanline_wait(node, 50), 0, "an event came of it");
        assert_eq!(lanline_node_destroy(node, 100), 0);
    }
}

#[test]
fn no_function_is_missing_here() {
    let header = include_str!("../include/lanline.h");
    let names: BTreeSet<&str> = CASES.iter().map(|(name, _)| *name).collect();
    let declared: BTreeSet<&str> = header
        .split("LANLINE_API")
        .skip(1)
        .filter_map(|rest| {
            let declaration = &rest[..rest.find('(')?];
            declaration
                .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .find(|word| word.starts_with("lanline_"))
        })
        .collect();
    assert_eq!(names, declared);
}
