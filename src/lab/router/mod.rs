//! Routers: what stands between a LAN and the network outside of it.
//!
//! The words are RFC 4787's. A *mapping* ties an inside endpoint to an outside one; how it depends on the destination
//! is its *mapping behaviour*; whose datagrams may come in through it is the *filtering behaviour*; how the outside
//! port is found is the *allocation*.

mod forwards;
mod nat;

use std::time::Duration;

pub(crate) use forwards::{Grant, Refusal};
pub use forwards::{MappingService, PortMappingConfig};
pub(crate) use nat::{RouterState, Way};

/// How a mapping, or the filter of one, depends on the remote endpoint (RFC 4787, sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Not at all: EIM, EIF.
    EndpointIndependent,
    /// On its address: ADM, ADF.
    Address,
    /// On its address and port: APDM, APDF.
    AddressAndPort,
}

/// How the outside port of a new mapping is found. Ports are 1024 to 65535.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allocation {
    /// The inside port's number; if it is taken, the next free one above.
    Preserving,
    /// Each new mapping gets a number this far from the one before; taken ones are passed over. The first one is random.
    Sequential {
        /// The distance.
        step: i16,
        /// Mappings that other hosts of the LAN, not simulated, open per second (at random times).
        foreign_per_second: f64,
    },
    /// Random in a block that belongs to the inside address (carrier-grade NAT).
    RandomInBlock {
        /// Ports in a block; a power of two.
        size: u16,
    },
    /// Random in the whole range.
    Random,
}

/// Which of several outside addresses a new mapping gets (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Always the same one for the same inside address.
    Paired,
    /// Any.
    Arbitrary,
}

/// What a router that takes a burst for an attack does: once one inside host has sent and received `packets` within `window`, further
/// ones are dropped until the window has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BurstLimit {
    /// Datagrams in both directions together.
    pub packets: u32,
    /// The window; it begins with the first datagram after the one before has passed.
    pub window: Duration,
}

/// What a router does with addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Translation {
    /// Nothing, and it filters nothing either: inside addresses are reachable from outside.
    None,
    /// Addresses stay as they are; what comes in must fit the filter.
    Firewall,
    /// IPv4 is translated; IPv6 goes through as with [`Translation::Firewall`].
    Nat,
}

/// How a router behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// What it does with addresses.
    pub translation: Translation,
    /// Mapping behaviour of [`Translation::Nat`].
    pub mapping: Dependence,
    /// Filtering behaviour.
    pub filtering: Dependence,
    /// Port allocation.
    pub allocation: Allocation,
    /// One outside port may serve several mappings whose remote endpoints differ, as the kernel's NAT does it: a
    /// symmetric NAT can then preserve the port towards every destination. Has no effect on endpoint-independent mapping.
    pub port_overloading: bool,
    /// Outside IPv4 addresses, at least 1.
    pub public_addresses: u8,
    /// Which of them is used.
    pub pooling: Pooling,
    /// Silence after which a mapping, and the filter's memory of a remote endpoint, end.
    pub mapping_timeout: Duration,
    /// Datagrams from outside count against the silence too. (Those from inside always do.)
    pub inbound_refreshes: bool,
    /// Datagrams from inside to one of its own outside addresses come back in, with the sender's outside address as source.
    pub hairpin: bool,
    /// Most mappings of one inside address.
    pub port_quota: Option<usize>,
    /// Passes no UDP at all.
    pub blocks_udp: bool,
    /// Passes no TCP (the lab has it for streams alone).
    pub blocks_tcp: bool,
    /// IPv6 comes in unfiltered. Otherwise only what fits the filter does, as with [`Translation::Firewall`].
    pub ipv6_open: bool,
    /// Drops bursts.
    pub burst_limit: Option<BurstLimit>,
    /// Who may have ports forwarded, and how.
    pub port_mapping: PortMappingConfig,
}

/// Short for the internet, common among cheap routers. RFC 4787 wants two minutes.
const DEFAULT_MAPPING_TIMEOUT: Duration = Duration::from_secs(30);

impl RouterConfig {
    fn nat(mapping: Dependence, filtering: Dependence, allocation: Allocation) -> Self {
        Self {
            translation: Translation::Nat,
            mapping,
            filtering,
            allocation,
            port_overloading: false,
            public_addresses: 1,
            pooling: Pooling::Paired,
            mapping_timeout: DEFAULT_MAPPING_TIMEOUT,
            inbound_refreshes: false,
            // About a quarter of real ones do.
            hairpin: false,
            port_quota: None,
            blocks_udp: false,
            blocks_tcp: false,
            ipv6_open: false,
            burst_limit: None,
            port_mapping: PortMappingConfig::default(),
        }
    }

    /// No translation, no filter: hosts behind it have public addresses.
    pub fn open() -> Self {
        Self {
            translation: Translation::None,
            ..Self::full_cone()
        }
    }

    /// No translation, but only answers come in, as IPv6 home routers do it.
    pub fn firewall() -> Self {
        Self {
            translation: Translation::Firewall,
            ..Self::port_restricted()
        }
    }

    /// EIM, EIF, port preserving.
    pub fn full_cone() -> Self {
        Self::nat(
            Dependence::EndpointIndependent,
            Dependence::EndpointIndependent,
            Allocation::Preserving,
        )
    }

    /// EIM, ADF, port preserving.
    pub fn address_restricted() -> Self {
        Self {
            filtering: Dependence::Address,
            ..Self::full_cone()
        }
    }

    /// EIM, APDF, port preserving.
    pub fn port_restricted() -> Self {
        Self {
            filtering: Dependence::AddressAndPort,
            ..Self::full_cone()
        }
    }

    /// APDM, APDF with that allocation. With [`Allocation::Preserving`] each destination sees the inside port unless another
    /// host of the LAN holds it towards that destination.
    pub fn symmetric(allocation: Allocation) -> Self {
        Self {
            port_overloading: allocation == Allocation::Preserving,
            ..Self::nat(Dependence::AddressAndPort, Dependence::AddressAndPort, allocation)
        }
    }

    /// The same router with another time-out.
    pub fn with_timeout(self, mapping_timeout: Duration) -> Self {
        Self {
            mapping_timeout,
            ..self
        }
    }

    /// The same router that hairpins.
    pub fn with_hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }

    /// The same router that does so much for programs which want ports forwarded.
    pub fn with_port_mapping(self, port_mapping: PortMappingConfig) -> Self {
        Self { port_mapping, ..self }
    }

    /// The same router that passes no UDP.
    pub fn without_udp(self) -> Self {
        Self {
            blocks_udp: true,
            ..self
        }
    }

    /// The same router with that allocation.
    pub fn with_allocation(self, allocation: Allocation) -> Self {
        Self { allocation, ..self }
    }
}
