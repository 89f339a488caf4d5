//! Who may open hundreds of sockets and who may probe thousands of ports, so that a router that draws its ports at random can be
//! crossed by chance (the birthday paradox).
//!
//! In: what is known of both sides' NATs. Out: each side's permit. Exactly one side opens and the other probes, or nobody does
//! either:
//!
//! | side | is | and gets |
//! |---|---|---|
//! | opener | known to map each destination anew, at ports that are known not to be the local ones and follow no known step | sockets |
//! | prober | at an outside address that can be foretold: its mapping is known not to vary, or to keep the local port; and not known to let every port in, because then the opener's first packet arrives anyway | ports to probe |
//!
//! What is not known gives no permit: it would cost both sides' routers thousands of packets on a guess.

use crate::wire::introduction::{BIRTHDAY_PORTS, BirthdayPermit, NatFacts, birthday_sockets};

/// What `one` and `other` may do to reach each other.
pub fn permits(one: &NatFacts, other: &NatFacts) -> (BirthdayPermit, BirthdayPermit) {
    if opens(one) && probes(other) {
        (opener(one), prober())
    } else if opens(other) && probes(one) {
        (prober(), opener(other))
    } else {
        Default::default()
    }
}

fn mapping_varies(facts: &NatFacts) -> bool {
    facts.mapping_varies_by_address == Some(true) || facts.mapping_varies_by_port == Some(true)
}

fn mapping_is_stable(facts: &NatFacts) -> bool {
    let known = facts
        .mapping_varies_by_address
        .or(facts.mapping_varies_by_port)
        .is_some();
    known && !mapping_varies(facts)
}

fn opens(facts: &NatFacts) -> bool {
    mapping_varies(facts) && facts.preserves_port == Some(false) && facts.port_step.is_none()
}

fn probes(facts: &NatFacts) -> bool {
    let foretold = mapping_is_stable(facts) || facts.preserves_port == Some(true);
    foretold && facts.filters_by_port != Some(false)
}

fn opener(facts: &NatFacts) -> BirthdayPermit {
    BirthdayPermit {
        probe_ports: 0,
        sockets: birthday_sockets(facts.port_block),
    }
}

fn prober() -> BirthdayPermit {
    BirthdayPermit {
        probe_ports: BIRTHDAY_PORTS,
        sockets: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::introduction::{BIRTHDAY_SOCKETS, BIRTHDAY_SOCKETS_OF_CARRIER};

    fn facts(varies: bool, by_address: bool, by_port: bool, preserves: bool) -> NatFacts {
        NatFacts {
            mapping_varies_by_address: Some(varies),
            mapping_varies_by_port: Some(varies),
            filters_by_address: Some(by_address),
            filters_by_port: Some(by_port),
            preserves_port: Some(preserves),
            ..NatFacts::default()
        }
    }

    /// The classes of `nat-techniques`, and a node that knows nothing of its NAT.
    fn class(name: &str) -> NatFacts {
        let symmetric = facts(true, true, true, false);
        match name {
            "O" => facts(false, false, false, true),
            "A" => facts(false, true, false, true),
            "P" => facts(false, true, true, false),
            "Sp" => facts(true, true, true, true),
            "Ss" => NatFacts {
                port_step: Some(2),
                ..symmetric
            },
            "Sb" => NatFacts {
                port_block: Some((30_000, 32_047)),
                ..symmetric
            },
            "Sr" => symmetric,
            "?" => NatFacts::default(),
            other => panic!("no class {other}"),
        }
    }

    #[test]
    fn every_pair_of_classes() {
        const CLASSES: [&str; 8] = ["O", "A", "P", "Sp", "Ss", "Sb", "Sr", "?"];
        for one in CLASSES {
            for other in CLASSES {
                // (ports, sockets) of the first and of the second.
                let expected = match (one, other) {
                    ("P" | "Sp", "Sr") => ((BIRTHDAY_PORTS, 0), (0, BIRTHDAY_SOCKETS)),
                    ("P" | "Sp", "Sb") => ((BIRTHDAY_PORTS, 0), (0, BIRTHDAY_SOCKETS_OF_CARRIER)),
                    ("Sr", "P" | "Sp") => ((0, BIRTHDAY_SOCKETS), (BIRTHDAY_PORTS, 0)),
                    ("Sb", "P" | "Sp") => ((0, BIRTHDAY_SOCKETS_OF_CARRIER), (BIRTHDAY_PORTS, 0)),
                    _ => ((0, 0), (0, 0)),
                };
                let (left, right) = permits(&class(one), &class(other));
                let numbers = |permit: BirthdayPermit| (permit.probe_ports, permit.sockets);
                assert_eq!((numbers(left), numbers(right)), expected, "{one} with {other}");
            }
        }
    }

    #[test]
    fn what_a_server_with_one_address_finds_out_is_enough() {
        let half = |facts: NatFacts| NatFacts {
            mapping_varies_by_address: None,
            filters_by_address: None,
            ..facts
        };
        let (left, right) = permits(&half(class("P")), &half(class("Sr")));
        assert_eq!((left.probe_ports, right.sockets), (BIRTHDAY_PORTS, BIRTHDAY_SOCKETS));
    }

    #[test]
    fn what_is_not_known_gives_no_permit() {
        let unknown_ports = NatFacts {
            preserves_port: None,
            ..class("Sr")
        };
        assert_eq!(permits(&class("P"), &unknown_ports), Default::default());
        let unknown_mapping = NatFacts {
            mapping_varies_by_address: None,
            mapping_varies_by_port: None,
            ..class("P")
        };
        assert_eq!(permits(&unknown_mapping, &class("Sr")), Default::default());
    }

    #[test]
    fn a_narrow_block_is_a_carriers() {
        let with = |first, last| {
            let opener = NatFacts {
                port_block: Some((first, last)),
                ..class("Sr")
            };
            permits(&opener, &class("P")).0.sockets
        };
        assert_eq!(with(1_024, 65_535), BIRTHDAY_SOCKETS);
        assert_eq!(with(49_152, 65_535), BIRTHDAY_SOCKETS);
        assert_eq!(with(49_153, 65_535), BIRTHDAY_SOCKETS_OF_CARRIER);
        // The wire does not carry a block that ends before it begins; it must not be trusted for that.
        assert_eq!(with(9, 3), BIRTHDAY_SOCKETS_OF_CARRIER);
    }
}
