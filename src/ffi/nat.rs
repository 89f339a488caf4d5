//! What a node sits behind, ports at routers, the report.

use std::ffi::c_char;
use std::mem::{offset_of, size_of};
use std::time::Duration;

use super::node::struct_size;
use super::panic::guard;
use super::peers::ask;
use super::{NodeId, RequestId, check};
use crate::codes::NatType;
use crate::peer::api::Command;
use crate::peer::api::nat::{DetectOptions, NatReport};
use crate::peer::nat::{can_connect, is_friendly, name};
use crate::peer::port_mapping::manual_instructions;
use crate::peer::report::words;
use crate::shell;
use crate::shell::failure::Failure;
use crate::shell::interfaces;
use crate::shell::options::{self, DEFAULT_STUN_PORT, LONGEST_NAME};
use crate::shell::record::AddressRecord;

/// Longest time for which a mapping's life may be watched: ten minutes, more than routers keep a silent one (RFC 4787 asks for two).
const LONGEST_LIFETIME_MS: u32 = 600_000;
/// Time for a router when nothing is said: RakNet's.
const DEFAULT_MAPPING_MS: u32 = 2_000;
/// Longest time for a router: a minute, which nobody waits.
const LONGEST_MAPPING_MS: u32 = 60_000;
/// LANLINE_REPORT_MAP_PORT of the header.
const REPORT_MAP_PORT: u32 = 1;
/// UDP's number among the IP protocols.
const PROTOCOL_UDP: u8 = 17;

/// How lanline_nat_detect finds out. Prepare it with lanline_nat_detect_options_init.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct NatDetectOptionsRecord {
    /// Bytes of this struct; set by lanline_nat_detect_options_init.
    pub struct_size: u32,
    /// Also find out how long a silent mapping lives, waiting at most for this many milliseconds (up to 600000); 0 (default): do not.
    pub lifetime_up_to_ms: u32,
    /// Another STUN server (RFC 5780) than the node's own one: name or address, UTF-8; NULL (default): the node's own.
    pub stun_host: *const c_char,
    /// Widens `stun_host` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub stun_host_high: u32,
    /// Bytes at `stun_host`.
    pub stun_host_len: u32,
    /// Its UDP port; 0 (default): 3478.
    pub stun_port: u16,
    /// Zero.
    pub reserved: u16,
}

/// What is known of a node's NAT. Prepare it with lanline_nat_facts_init. Facts are 1 (yes), 0 (no) or -1 (not known); nothing is guessed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatFactsRecord {
    /// Bytes of this struct; set by lanline_nat_facts_init.
    pub struct_size: u32,
    /// LANLINE_NAT_TYPE_…: the most restrictive name that the facts allow.
    pub r#type: u8,
    /// 1: something was found out; 0: nothing yet, and all below is not known.
    pub known: u8,
    /// 1: the facts leave no other name.
    pub certain: u8,
    /// 1: players behind most routers reach this node.
    pub friendly: u8,
    /// The outside address differs by the destination's address.
    pub mapping_varies_by_address: i8,
    /// The outside address differs by the destination's port.
    pub mapping_varies_by_port: i8,
    /// Packets from an address that was never sent to are dropped.
    pub filters_by_address: i8,
    /// Packets from a port that was never sent to are dropped.
    pub filters_by_port: i8,
    /// A new mapping gets the local port's number where it can.
    pub preserves_port: i8,
    /// The node's own public address can be reached from inside.
    pub hairpin: i8,
    /// The public address is one of the machine's own: no translation.
    pub untranslated: i8,
    /// New mappings get different public IP addresses.
    pub several_addresses: i8,
    /// No UDP packet was answered, not even by the server.
    pub udp_blocked: i8,
    /// Another router stands before the one that forwards a port.
    pub double_nat: i8,
    /// 1: `port_step` is known.
    pub port_step_known: u8,
    /// 1: `port_block_first` and `port_block_last` are known.
    pub port_block_known: u8,
    /// New mappings get numbers this far apart.
    pub port_step: i16,
    /// First port of the block that new mappings are given from.
    pub port_block_first: u16,
    /// Last port of it.
    pub port_block_last: u16,
    /// LANLINE_MAPPING_…: how `mapped` was asked for; 0: no port is forwarded.
    pub mapped_protocol: u8,
    /// Ports that routers forward to this node.
    pub mapped_count: u8,
    /// A silent mapping lives at least this many milliseconds; 0: not known.
    pub lifetime_at_least_ms: u32,
    /// And less than this many; 0: not known.
    pub lifetime_below_ms: u32,
    /// The port that was forwarded by hand (`public_address` of the node's options) lets strangers in.
    pub manual_open: i8,
    /// Strangers get in at `mapped`.
    pub mapped_reachable: i8,
    /// Strangers get in over IPv6.
    pub v6_open: i8,
    /// Zero.
    pub reserved: u8,
    /// Round trip to the server in microseconds; 0: not known.
    pub round_trip_us: u64,
    /// The node's public IPv4 address; family 0: not known.
    pub public_v4: AddressRecord,
    /// The IPv6 address at which a server saw the node; family 0: not known.
    pub public_v6: AddressRecord,
    /// A port that a router forwards to this node, as strangers see it; family 0: none.
    pub mapped: AddressRecord,
}

/// What a player has to set in a router to forward a port by hand. Prepare it with lanline_manual_port_init.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManualPortRecord {
    /// Bytes of this struct; set by lanline_manual_port_init.
    pub struct_size: u32,
    /// The port at the router: that of `public_address` if the node has one, else the same as inside.
    pub port: u16,
    /// The IP protocol's number: 17, UDP.
    pub protocol: u8,
    /// 1: the port is the same the next time, because `bind` of the node's options names it. 0: it was given by the system, and forwarding
    /// it helps only as long as this node lives.
    pub lasting: u8,
    /// Where to: this computer's address inside its network, with the port; family 0: it has none.
    pub internal: AddressRecord,
}

const _: () = {
    assert!(size_of::<NatDetectOptionsRecord>() == 24);
    assert!(offset_of!(NatDetectOptionsRecord, stun_host) == 8);
    assert!(offset_of!(NatDetectOptionsRecord, stun_host_len) == 16);
    assert!(offset_of!(NatDetectOptionsRecord, stun_port) == 20);
    assert!(size_of::<NatFactsRecord>() == 120);
    assert!(offset_of!(NatFactsRecord, port_step) == 20);
    assert!(offset_of!(NatFactsRecord, round_trip_us) == 40);
    assert!(offset_of!(NatFactsRecord, public_v4) == 48);
    assert!(offset_of!(NatFactsRecord, mapped) == 96);
    assert!(size_of::<ManualPortRecord>() == 32);
    assert!(offset_of!(ManualPortRecord, internal) == 8);
};

impl NatFactsRecord {
    fn of(report: &NatReport, size: usize) -> Self {
        let facts = &report.facts;
        let (name, certain) = name(report);
        let (first, last) = facts.port_block.unwrap_or_default();
        let (at_least, below) = match report.lifetime {
            Some((at_least, below)) => (Some(at_least), below),
            None => (None, None),
        };
        let mapped = report.mappings.first();
        let double = report.mappings.iter().any(|port| port.double_nat);
        Self {
            struct_size: size as u32,
            r#type: name.number(),
            known: report.known.into(),
            certain: certain.into(),
            friendly: is_friendly(report).into(),
            mapping_varies_by_address: fact(facts.mapping_varies_by_address),
            mapping_varies_by_port: fact(facts.mapping_varies_by_port),
            filters_by_address: fact(facts.filters_by_address),
            filters_by_port: fact(facts.filters_by_port),
            preserves_port: fact(facts.preserves_port),
            hairpin: fact(facts.hairpin),
            untranslated: fact(report.untranslated),
            several_addresses: fact(report.several_addresses),
            udp_blocked: fact(report.udp_blocked),
            double_nat: fact(mapped.map(|_| double)),
            port_step_known: facts.port_step.is_some().into(),
            port_block_known: facts.port_block.is_some().into(),
            port_step: facts.port_step.unwrap_or_default(),
            port_block_first: first,
            port_block_last: last,
            mapped_protocol: mapped.map_or(0, |port| port.protocol.number()),
            mapped_count: u8::try_from(report.mappings.len()).unwrap_or(u8::MAX),
            lifetime_at_least_ms: milliseconds(at_least),
            lifetime_below_ms: milliseconds(below),
            manual_open: fact(report.manual_open),
            mapped_reachable: fact(mapped.and_then(|port| port.reachable)),
            v6_open: fact(report.v6_open),
            reserved: 0,
            round_trip_us: report.round_trip.map_or(0, |time| time.as_micros() as u64),
            public_v4: report.public_v4.into(),
            public_v6: report.public_v6.into(),
            mapped: mapped.map(|port| port.external).into(),
        }
    }
}

fn fact(fact: Option<bool>) -> i8 {
    fact.map_or(-1, i8::from)
}

fn milliseconds(time: Option<Duration>) -> u32 {
    time.map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
}

/// Copies and checks detection options; NULL: the defaults.
///
/// # Safety
/// `options` is NULL or as the header says.
unsafe fn detect_options(options: *const NatDetectOptionsRecord) -> Result<DetectOptions, Failure> {
    if options.is_null() {
        return Ok(DetectOptions::default());
    }
    // SAFETY: the caller vouches for the pointer; only the size is read before it is known.
    let size = *unsafe { check::input(options.cast::<u32>(), "options") }?;
    struct_size(size, &[size_of::<NatDetectOptionsRecord>()], "options")?;
    // SAFETY: the size says that the whole struct is there.
    let options = unsafe { check::input(options, "options") }?;
    if options.lifetime_up_to_ms > LONGEST_LIFETIME_MS {
        return Err(Failure::argument(format!(
            "`lifetime_up_to_ms` is {}; at most {LONGEST_LIFETIME_MS} are allowed",
            options.lifetime_up_to_ms
        )));
    }
    // SAFETY: the caller vouches for the pointer.
    let host = unsafe { check::text(options.stun_host, options.stun_host_len, LONGEST_NAME, "stun_host") }?;
    let port = match options.stun_port {
        0 => DEFAULT_STUN_PORT,
        port => port,
    };
    let server = match host {
        "" if options.stun_port != 0 => {
            return Err(Failure::argument("`stun_port` is set, but `stun_host` is empty"));
        }
        "" => None,
        host if options::is_host(host) => Some((host.to_owned(), port)),
        _ => {
            return Err(Failure::argument(format!(
                "`stun_host` is neither a name nor an address: \"{host}\""
            )));
        }
    };
    let lifetime = Duration::from_millis(options.lifetime_up_to_ms.into());
    Ok(DetectOptions {
        server,
        lifetime_up_to: (!lifetime.is_zero()).then_some(lifetime),
    })
}

/// Finds out what kind of router the node sits behind, by asking its server (or another STUN server) from fresh sockets. Takes
/// about a second and a half; with `lifetime_up_to_ms`, that long in addition. A quick detection runs by itself after every
/// LANLINE_EVENT_SERVER_CONNECTED, so that connecting does not need this call.
///
/// @param node the node
/// @param options what lanline_nat_detect_options_init prepared; may be NULL for the defaults
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_NAT_TYPE, also when nothing could be found out (its code says why).
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_nat_detect(
    node: NodeId,
    options: *const NatDetectOptionsRecord,
    request: *mut RequestId,
) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointers.
        unsafe {
            let options = detect_options(options)?;
            ask(
                node,
                request,
                |_| Ok(()),
                |request| Command::DetectNat { request, options },
            )
        }
    })
}

/// What is known of the node's NAT now: from the detections that ran until now, and from routers.
///
/// @param node the node
/// @param out receives it; its struct_size must be set
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_nat_facts_get(node: NodeId, out: *mut NatFactsRecord) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointer.
        let size = *unsafe { check::input(out.cast::<u32>(), "out") }?;
        let size = struct_size(size, &[size_of::<NatFactsRecord>()], "out")?;
        let facts = shell::with_node(node, |node| Ok(NatFactsRecord::of(&node.view().nat, size)))?;
        // SAFETY: as above; the size was checked.
        *unsafe { check::output(out, "out") }? = facts;
        Ok(0)
    })
}

/// One of the facts in words, in RFC 4787's terms ("endpoint-independent", "address-and-port-dependent", "unknown", …), UTF-8
/// with a NUL behind it, cut to fit.
///
/// @param node the node
/// @param which LANLINE_NAT_TEXT_…
/// @param buffer where to; may be NULL if capacity is 0
/// @param capacity bytes at buffer, the NUL included; 256 are always enough
/// @return the bytes that the whole text needs, without the NUL; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_nat_text(node: NodeId, which: u32, buffer: *mut c_char, capacity: u32) -> i32 {
    guard(|| {
        let describe: fn(&NatReport) -> String = match which {
            0 => words::summary,
            1 => words::mapping,
            2 => words::filtering,
            3 => words::ports,
            _ => {
                return Err(Failure::argument(format!(
                    "`which` is {which}; 0 to 3 (LANLINE_NAT_TEXT_…) are known"
                )));
            }
        };
        let text = shell::with_node(node, |node| Ok(describe(&node.view().nat)))?;
        // SAFETY: the caller vouches for buffer and capacity.
        unsafe { check::write_text(text.as_bytes(), buffer, capacity) }
    })
}

/// What two players can do, by the names of their NATs alone: with this library, and by RakNet's table. Players who are connected to a
/// server need not ask: the library knows their facts and does what is possible.
///
/// @param type_a LANLINE_NAT_TYPE_… of one
/// @param type_b LANLINE_NAT_TYPE_… of the other
/// @param lanline receives LANLINE_CONNECTIVITY_…; may be NULL
/// @param raknet receives 1 if RakNet's CanConnect says yes, else 0; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_ARGUMENT
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_nat_can_connect(type_a: u32, type_b: u32, lanline: *mut u8, raknet: *mut u8) -> i32 {
    guard(|| {
        let (one, other) = (nat_type(type_a, "type_a")?, nat_type(type_b, "type_b")?);
        let (connectivity, table) = can_connect(one, other);
        if !lanline.is_null() {
            // SAFETY: the caller vouches for the pointer.
            *unsafe { check::output(lanline, "lanline") }? = connectivity.number();
        }
        if !raknet.is_null() {
            // SAFETY: the caller vouches for the pointer.
            *unsafe { check::output(raknet, "raknet") }? = table.into();
        }
        Ok(0)
    })
}

fn nat_type(value: u32, name: &str) -> Result<NatType, Failure> {
    let known = u8::try_from(value).ok().and_then(NatType::from_number);
    known.ok_or_else(|| Failure::argument(format!("`{name}` is {value}; 0 to 5 (LANLINE_NAT_TYPE_…) are known")))
}

/// Asks the routers to forward the node's UDP port to it, by UPnP, PCP and NAT-PMP at once; the first that does wins. The mapping is renewed
/// as long as the node lives, and taken back when it is destroyed.
///
/// @param node the node
/// @param timeout_ms for the first router that answers, at most 60000; 0: 2000
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_PORT_MAPPED or LANLINE_EVENT_PORT_MAPPING_FAILED; on the way LANLINE_EVENT_PORT_MAPPING_PROGRESS. Later, with
/// request 0, PORT_MAPPED when the router gave another port, PORT_MAPPING_FAILED when the mapping was lost.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_port_map(node: NodeId, timeout_ms: u32, request: *mut RequestId) -> i32 {
    guard(|| {
        let timeout_ms = match timeout_ms {
            0 => DEFAULT_MAPPING_MS,
            1..=LONGEST_MAPPING_MS => timeout_ms,
            _ => {
                return Err(Failure::argument(format!(
                    "`timeout_ms` is {timeout_ms}; at most {LONGEST_MAPPING_MS} are allowed"
                )));
            }
        };
        let timeout = Duration::from_millis(timeout_ms.into());
        // SAFETY: the caller vouches for the pointer.
        unsafe {
            ask(
                node,
                request,
                |_| Ok(()),
                |request| Command::MapPort { request, timeout },
            )
        }
    })
}

/// What a player has to set in a router to forward a port by hand, and a text that says it. A port that was forwarded goes into
/// `public_address` of the node's options, with `bind` naming the same port.
///
/// @param node the node
/// @param out receives it; its struct_size must be set
/// @param buffer receives the text, UTF-8 with a NUL behind it, cut to fit; may be NULL if capacity is 0
/// @param capacity bytes at buffer, the NUL included; 512 are always enough
/// @return the bytes that the whole text needs, without the NUL; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT,
///         LANLINE_WRONG_SIZE
///
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_port_manual(
    node: NodeId,
    out: *mut ManualPortRecord,
    buffer: *mut c_char,
    capacity: u32,
) -> i32 {
    guard(|| {
        // SAFETY: the caller vouches for the pointer.
        let size = *unsafe { check::input(out.cast::<u32>(), "out") }?;
        let size = struct_size(size, &[size_of::<ManualPortRecord>()], "out")?;
        let (bound, lasting, view) = shell::with_node(node, |node| {
            Ok((node.local_address(), node.port_is_chosen(), node.view()))
        })?;
        let found = manual_instructions(bound, &interfaces::addresses(&[bound]), &view.nat);
        // SAFETY: the caller vouches for buffer and capacity.
        let needed = unsafe { check::write_text(found.text.as_bytes(), buffer, capacity) }?;
        let named = Some(bound).filter(|bound| !bound.ip().is_unspecified());
        let record = ManualPortRecord {
            struct_size: size as u32,
            port: found.port,
            protocol: PROTOCOL_UDP,
            lasting: lasting.into(),
            internal: found.internal.or(named).into(),
        };
        // SAFETY: as above; the size was checked.
        *unsafe { check::output(out, "out") }? = record;
        Ok(needed)
    })
}

/// Finds out everything about the way to others, for a player's support: a full detection, and if wanted what the routers say about a port
/// (which is given back unless lanline_port_map was called as well).
///
/// @param node the node; without a session with a server, or a STUN server in detect, there is little to say
/// @param flags LANLINE_REPORT_…, or 0
/// @param detect how to detect, from lanline_nat_detect_options_init; may be NULL for the defaults
/// @param request receives the request's id; may be NULL
/// @return LANLINE_OK; LANLINE_INVALID_NODE, LANLINE_INVALID_ARGUMENT, LANLINE_WRONG_SIZE, LANLINE_QUEUE_FULL
///
/// Events: LANLINE_EVENT_REPORT.
/// Thread safety: any thread. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lanline_report(
    node: NodeId,
    flags: u32,
    detect: *const NatDetectOptionsRecord,
    request: *mut RequestId,
) -> i32 {
    guard(|| {
        if flags & !REPORT_MAP_PORT != 0 {
            return Err(Failure::argument(format!(
                "`flags` is {flags:#x}; only LANLINE_REPORT_MAP_PORT is known"
            )));
        }
        let map_port = flags & REPORT_MAP_PORT != 0;
        // SAFETY: the caller vouches for the pointers.
        unsafe {
            let detect = detect_options(detect)?;
            ask(
                node,
                request,
                |_| Ok(()),
                |request| Command::Report {
                    request,
                    map_port,
                    detect,
                },
            )
        }
    })
}
