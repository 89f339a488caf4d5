//! RakNet's names for what a node sits behind, from the facts; the facts in words; and what two names can do.
//!
//! In: facts. Out: names and words. The name is the most restrictive one that the facts allow, with one exception: SYMMETRIC is said
//! only of a mapping that is *known* to vary, because "cannot tell" is no reason to call a router the worst there is.
//!
//! | mapping | filtering | name |
//! |---|---|---|
//! | varies | any | SYMMETRIC |
//! | not known at all | any | UNKNOWN |
//! | does not vary, as far as known | by port, or not known | PORT_RESTRICTED |
//! | | not by port; by address, or that is not known | ADDRESS_RESTRICTED |
//! | | not by address | FULL_CONE; NONE without translation |
//!
//! A node without translation is named by its filtering alone: its mapping cannot vary.

use super::super::api::nat::{MappedPort, NatReport};
use crate::codes::{Connectivity, NatType};
use crate::wire::introduction::NatFacts;

/// Samples without a step or a block from which on ports are called random: with fewer a block could not have shown.
const RANDOM_SAMPLES: usize = 12;

/// The most restrictive name that the facts allow, and whether they leave no other.
pub fn name(report: &NatReport) -> (NatType, bool) {
    let facts = &report.facts;
    let untranslated = report.untranslated == Some(true);
    let mapping = [facts.mapping_varies_by_address, facts.mapping_varies_by_port];
    if !untranslated && mapping.contains(&Some(true)) {
        return (NatType::Symmetric, true);
    }
    if !untranslated && mapping == [None, None] {
        return (NatType::Unknown, false);
    }
    let same = untranslated || mapping == [Some(false); 2];
    let open = if untranslated { NatType::None } else { NatType::FullCone };
    match (facts.filters_by_address, facts.filters_by_port) {
        (_, Some(true)) => (NatType::PortRestricted, same),
        // Answers from another address come from another port of it, too.
        (Some(false), _) => (open, same),
        (Some(true), Some(false)) => (NatType::AddressRestricted, same),
        (None, Some(false)) => (NatType::AddressRestricted, false),
        (Some(true) | None, None) => (NatType::PortRestricted, false),
    }
}

/// Whether players behind most routers reach this node: by its name, or because a router with a public address forwards its port and
/// nothing shows that it is closed, or because a port forwarded by hand was seen to be open.
pub fn is_friendly(report: &NatReport) -> bool {
    let by_name = matches!(
        name(report).0,
        NatType::None | NatType::FullCone | NatType::AddressRestricted
    );
    by_name || report.manual_open == Some(true) || report.mappings.iter().any(MappedPort::is_good)
}

/// What Lanline reaches, by names alone, and what RakNet's table says.
///
/// Between PORT_RESTRICTED and SYMMETRIC, and between two SYMMETRIC, it depends on how the routers give ports, which names do not tell; of
/// UNKNOWN nothing is known. Everything else is connected directly. RakNet never connects those pairs.
pub fn can_connect(one: NatType, other: NatType) -> (Connectivity, bool) {
    let hard = |name: NatType| matches!(name, NatType::PortRestricted | NatType::Symmetric);
    let symmetric = one == NatType::Symmetric || other == NatType::Symmetric;
    let unknown = one == NatType::Unknown || other == NatType::Unknown;
    if unknown || symmetric && hard(one) && hard(other) {
        (Connectivity::Maybe, false)
    } else {
        (Connectivity::Yes, true)
    }
}

/// How the mapping depends on the destination, in RFC 4787's words.
pub fn mapping(facts: &NatFacts) -> &'static str {
    by_dependence(facts.mapping_varies_by_address, facts.mapping_varies_by_port)
}

/// Whose packets are let in, in RFC 4787's words.
pub fn filtering(facts: &NatFacts) -> &'static str {
    by_dependence(facts.filters_by_address, facts.filters_by_port)
}

fn by_dependence(by_address: Option<bool>, by_port: Option<bool>) -> &'static str {
    match (by_address, by_port) {
        (_, Some(true)) => "address- and port-dependent",
        (Some(true), Some(false)) => "address-dependent",
        (Some(true), None) => "address-dependent or address- and port-dependent",
        (Some(false), Some(false)) => "endpoint-independent",
        (None, Some(false)) => "endpoint-independent or address-dependent",
        (Some(false), None) => "not address-dependent",
        (None, None) => "unknown",
    }
}

/// How outside ports are given.
pub fn ports(report: &NatReport) -> String {
    let facts = &report.facts;
    match (facts.preserves_port, facts.port_step, facts.port_block) {
        (Some(true), ..) => "preserved".to_owned(),
        (_, Some(step), _) => format!("sequential {step:+}"),
        (.., Some((first, last))) => format!("block {first}-{last}"),
        (Some(false), ..) if report.samples.len() >= RANDOM_SAMPLES => "random".to_owned(),
        (Some(false), ..) => "not preserved".to_owned(),
        (None, ..) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::codes::MappingProtocol;

    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);

    /// Facts in the order mapping by address, by port, filtering by address, by port.
    fn report(facts: [Option<bool>; 4], untranslated: Option<bool>) -> NatReport {
        let [by_address, by_port, filter_address, filter_port] = facts;
        NatReport {
            facts: NatFacts {
                mapping_varies_by_address: by_address,
                mapping_varies_by_port: by_port,
                filters_by_address: filter_address,
                filters_by_port: filter_port,
                ..NatFacts::default()
            },
            untranslated,
            ..NatReport::default()
        }
    }

    #[test]
    fn each_set_of_facts_has_its_name() {
        let cases = [
            ([None; 4], NO, NatType::Unknown, false),
            ([None, None, NO, NO], NO, NatType::Unknown, false),
            ([None, None, YES, YES], NO, NatType::Unknown, false),
            // Two addresses.
            ([NO, NO, NO, NO], NO, NatType::FullCone, true),
            ([NO, NO, YES, NO], NO, NatType::AddressRestricted, true),
            ([NO, NO, YES, YES], NO, NatType::PortRestricted, true),
            ([NO, NO, None, None], NO, NatType::PortRestricted, false),
            ([NO, NO, YES, None], NO, NatType::PortRestricted, false),
            ([YES, YES, YES, YES], NO, NatType::Symmetric, true),
            ([YES, NO, NO, NO], NO, NatType::Symmetric, true),
            // One address.
            ([None, NO, None, NO], NO, NatType::AddressRestricted, false),
            ([None, NO, None, YES], NO, NatType::PortRestricted, false),
            ([None, NO, None, None], NO, NatType::PortRestricted, false),
            ([None, YES, None, YES], NO, NatType::Symmetric, true),
            // Without translation.
            ([NO, NO, NO, NO], YES, NatType::None, true),
            ([None, NO, None, NO], YES, NatType::AddressRestricted, false),
            ([None, None, YES, YES], YES, NatType::PortRestricted, true),
            ([None, None, YES, NO], YES, NatType::AddressRestricted, true),
            ([None, None, None, None], YES, NatType::PortRestricted, false),
        ];
        for (facts, untranslated, expected, certain) in cases {
            let found = name(&report(facts, untranslated));
            assert_eq!(found, (expected, certain), "{facts:?}, untranslated {untranslated:?}");
        }
    }

    #[test]
    fn no_set_of_facts_is_called_symmetric_unless_the_mapping_varies() {
        let values = [None, NO, YES];
        for index in 0..81 {
            let facts = [1, 3, 9, 27].map(|place| values[index / place % 3]);
            let (name, certain) = name(&report(facts, NO));
            let varies = facts[..2].contains(&YES);
            assert_eq!(name == NatType::Symmetric, varies, "{facts:?}");
            assert!(!certain || varies || !facts[..2].contains(&None), "{facts:?}");
        }
    }

    #[test]
    fn the_pairs_that_depend_on_ports_are_maybe() {
        use NatType::{AddressRestricted, FullCone, None, PortRestricted, Symmetric, Unknown};
        for one in [None, FullCone, AddressRestricted, PortRestricted, Symmetric, Unknown] {
            for other in [None, FullCone, AddressRestricted, PortRestricted, Symmetric, Unknown] {
                let maybe = one == Unknown
                    || other == Unknown
                    || (one == Symmetric && other == Symmetric)
                    || (one == Symmetric && other == PortRestricted)
                    || (one == PortRestricted && other == Symmetric);
                let expected = if maybe {
                    (Connectivity::Maybe, false)
                } else {
                    (Connectivity::Yes, true)
                };
                assert_eq!(can_connect(one, other), expected, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn facts_in_words() {
        let words = |facts| {
            let report = report(facts, NO);
            (mapping(&report.facts), filtering(&report.facts))
        };
        assert_eq!(
            words([NO, NO, YES, YES]),
            ("endpoint-independent", "address- and port-dependent")
        );
        assert_eq!(words([YES, NO, YES, NO]), ("address-dependent", "address-dependent"));
        assert_eq!(words([None; 4]), ("unknown", "unknown"));
        assert_eq!(
            words([None, NO, None, NO]).0,
            "endpoint-independent or address-dependent"
        );
    }

    #[test]
    fn ports_in_words() {
        let mut report = report([NO; 4], NO);
        assert_eq!(ports(&report), "unknown");
        report.facts.preserves_port = NO;
        assert_eq!(ports(&report), "not preserved");
        report.samples = vec![(1, 2); RANDOM_SAMPLES];
        assert_eq!(ports(&report), "random");
        report.facts.port_block = Some((4_096, 6_143));
        assert_eq!(ports(&report), "block 4096-6143");
        report.facts.port_step = Some(2);
        assert_eq!(ports(&report), "sequential +2");
        report.facts.port_step = Some(-1);
        assert_eq!(ports(&report), "sequential -1");
        report.facts.preserves_port = YES;
        assert_eq!(ports(&report), "preserved");
    }

    #[test]
    fn a_forwarded_port_makes_friendly_unless_a_second_router_stands_before_it() {
        let mut report = report([NO, NO, YES, YES], NO);
        assert!(!is_friendly(&report));
        let external: SocketAddr = "20.0.0.1:4000".parse().unwrap();
        let mapped = |double_nat| MappedPort {
            external,
            protocol: MappingProtocol::Upnp,
            double_nat,
            reachable: None,
        };
        report.mappings = vec![mapped(true)];
        assert!(!is_friendly(&report));
        report.mappings.push(mapped(false));
        assert!(is_friendly(&report));
        report.mappings[1].reachable = Some(false);
        assert!(!is_friendly(&report));
        report.manual_open = Some(false);
        assert!(!is_friendly(&report));
        report.manual_open = Some(true);
        assert!(is_friendly(&report));
    }
}
