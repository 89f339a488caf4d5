//! Which technique two routers call for: pure, from both sides' facts. Both sides decide by the same two sets of facts.
//!
//! Every attempt begins with probes to all candidates at once, answers what comes, and follows the other side to wherever it shows itself.
//! That suffices where neither side's port must be guessed:
//!
//! | | open, by address (A) | by port (P) | symmetric, keeps numbers (Sp) | in sequence (Ss) | in a block (Sb), anywhere (Sr) |
//! |---|---|---|---|---|---|
//! | open, A | volley | volley | volley | volley | volley |
//! | P | | volley | volley | window | birthday |
//! | Sp | | | volley | window | birthday |
//! | Ss | | | | bursts | – |
//! | Sb, Sr | | | | | – |
//!
//! - *volley*: A × S needs nothing more: one packet of A opens its filter for all ports of S's address; S's packet shows its port. Sp is met
//!   at the number that its socket has.
//! - *window*: Ss makes its mapping between two samples ([`super::rounds`]); the other side probes what lies between.
//! - *bursts*: each makes a series of mappings towards those that the other is about to make ([`super::predict`]).
//! - *birthday*: one opens many mappings, the other searches them ([`super::birthday`]); by the server's permit.
//!
//! What is not known counts as what asks for more: an unknown filter as one by port, an unknown mapping of the *other* side as a stable one.
//! With nothing known of the own side there is nothing to foresee.

use crate::wire::introduction::{BirthdayPermit, NatFacts, is_suspected_carriers};

/// The outside port of a mapping that is still to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Nothing is known of the mapping.
    Unknown,
    /// The mapping does not depend on the destination: it is the one that the server sees.
    Stable,
    /// Another mapping for each destination, with the socket's own number.
    Preserving,
    /// With numbers this far apart.
    Sequential(i16),
    /// With random numbers between these.
    Block(u16, u16),
    /// With numbers that nothing is known of.
    Random,
}

/// What facts say of that.
pub fn ports(facts: &NatFacts) -> Ports {
    let by = [facts.mapping_varies_by_address, facts.mapping_varies_by_port];
    if !by.contains(&Some(true)) {
        return if by == [None, None] {
            Ports::Unknown
        } else {
            Ports::Stable
        };
    }
    match (facts.preserves_port, facts.port_step, facts.port_block) {
        (Some(true), _, _) => Ports::Preserving,
        (_, Some(step), _) if step != 0 => Ports::Sequential(step),
        (_, _, Some((first, last))) => Ports::Block(first, last),
        _ => Ports::Random,
    }
}

/// How the samples of a round are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundKind {
    /// One before and one after the mapping that is sought.
    Window,
    /// One, from which both sides count on.
    Burst,
}

/// What this side does beside the volley.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// Samples of the own router, which gives ports this far apart.
    pub rounds: Option<(RoundKind, i16)>,
    /// So many sockets, and whether their first packets stay short of the other side.
    pub open: Option<(u16, bool)>,
    /// So many ports, first of all those of the block.
    pub probe: Option<(u16, Option<(u16, u16)>)>,
}

/// Chooses.
pub fn techniques(own: &NatFacts, other: &NatFacts, permit: BirthdayPermit) -> Plan {
    let mut plan = Plan::default();
    let follows = |facts: &NatFacts| facts.filters_by_port == Some(false);
    if follows(own) || follows(other) {
        return plan;
    }
    let (own_ports, other_ports) = (ports(own), ports(other));
    plan.rounds = match (own_ports, other_ports) {
        (Ports::Sequential(step), Ports::Sequential(_)) => Some((RoundKind::Burst, step)),
        (Ports::Sequential(step), Ports::Unknown | Ports::Stable | Ports::Preserving) => {
            Some((RoundKind::Window, step))
        }
        _ => None,
    };
    if permit.sockets > 0 {
        plan.open = Some((permit.sockets, !is_carriers(own_ports)));
    }
    if permit.probe_ports > 0 {
        let block = match other_ports {
            Ports::Block(first, last) => Some((first, last)),
            _ => None,
        };
        plan.probe = Some((permit.probe_ports, block));
    }
    plan
}

/// Looks like a carrier's NAT: a packet that is to open it must pass the home's router first, and then that one.
fn is_carriers(ports: Ports) -> bool {
    matches!(ports, Ports::Block(first, last) if is_suspected_carriers((first, last)))
}

/// A router's behaviour in words that a player, or whoever helps one, can look up.
pub fn describe(facts: &NatFacts) -> String {
    let mapping = match ports(facts) {
        Ports::Unknown => "of unknown mapping".to_owned(),
        Ports::Stable => stable_name(facts).to_owned() + "with one port for all destinations",
        Ports::Preserving => "symmetric, keeping port numbers".to_owned(),
        Ports::Sequential(step) => format!("symmetric, with ports {step} apart"),
        Ports::Block(first, last) => format!("symmetric, with random ports from {first} to {last}"),
        Ports::Random => "symmetric, with random ports".to_owned(),
    };
    let filtering = match (facts.filters_by_port, facts.filters_by_address) {
        (Some(true), _) => "filtering by port",
        (Some(false), Some(true)) => "filtering by address",
        (Some(false), Some(false)) => "not filtering",
        (None, Some(true)) => "filtering by address at least",
        _ => "of unknown filtering",
    };
    format!("{mapping}, {filtering}")
}

/// What such a router is commonly called, as far as its filter is known.
fn stable_name(facts: &NatFacts) -> &'static str {
    match (facts.filters_by_port, facts.filters_by_address) {
        (Some(true), _) => "port-restricted, ",
        (Some(false), Some(true)) => "address-restricted, ",
        (Some(false), Some(false)) => "full cone, ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(varies: bool, filters: bool) -> NatFacts {
        NatFacts {
            mapping_varies_by_port: Some(varies),
            filters_by_port: Some(filters),
            ..NatFacts::default()
        }
    }

    fn classes() -> [(&'static str, NatFacts); 6] {
        let symmetric = facts(true, true);
        [
            ("A", facts(false, false)),
            ("P", facts(false, true)),
            (
                "Sp",
                NatFacts {
                    preserves_port: Some(true),
                    ..symmetric
                },
            ),
            (
                "Ss",
                NatFacts {
                    preserves_port: Some(false),
                    port_step: Some(2),
                    ..symmetric
                },
            ),
            (
                "Sb",
                NatFacts {
                    port_block: Some((4096, 6143)),
                    ..symmetric
                },
            ),
            ("Sr", symmetric),
        ]
    }

    /// What each side does, in the order of [`classes`]; permits as the server gives them.
    #[test]
    fn each_pair_has_the_technique_of_the_table() {
        let opener = BirthdayPermit {
            sockets: 256,
            probe_ports: 0,
        };
        let prober = BirthdayPermit {
            sockets: 0,
            probe_ports: 2_048,
        };
        for (own_name, own) in classes() {
            for (other_name, other) in classes() {
                let random = |name: &str| matches!(name, "Sb" | "Sr");
                let endpoint = |name: &str| matches!(name, "P" | "Sp");
                let permit = match () {
                    () if random(own_name) && endpoint(other_name) => opener,
                    () if endpoint(own_name) && random(other_name) => prober,
                    () => BirthdayPermit::default(),
                };
                let plan = techniques(&own, &other, permit);
                let pair = format!("{own_name} to {other_name}: {plan:?}");
                let rounds = match (own_name, other_name) {
                    ("Ss", "Ss") => Some((RoundKind::Burst, 2)),
                    ("Ss", "P" | "Sp") => Some((RoundKind::Window, 2)),
                    _ => None,
                };
                assert_eq!(plan.rounds, rounds, "{pair}");
                let open = (permit == opener).then_some((256, own_name == "Sr"));
                assert_eq!(plan.open, open, "{pair}");
                let block = (other_name == "Sb").then_some((4096, 6143));
                assert_eq!(plan.probe, (permit == prober).then_some((2_048, block)), "{pair}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_never_taken_for_easy() {
        let (_, sequential) = classes()[3];
        let nothing = NatFacts::default();
        let permit = BirthdayPermit::default();
        assert_eq!(ports(&nothing), Ports::Unknown);
        let window = Some((RoundKind::Window, 2));
        assert_eq!(techniques(&sequential, &nothing, permit).rounds, window);
        assert_eq!(techniques(&nothing, &sequential, permit), Plan::default());
        // A step of a router that keeps its mapping says nothing of the next destination.
        let stable = NatFacts {
            mapping_varies_by_port: Some(false),
            ..sequential
        };
        assert_eq!(techniques(&stable, &nothing, permit), Plan::default());
    }

    #[test]
    fn the_first_packets_stay_short_unless_the_own_block_is_as_narrow_as_a_carriers() {
        let permit = BirthdayPermit {
            sockets: 256,
            probe_ports: 0,
        };
        let short = |port_block| {
            let own = NatFacts {
                port_block,
                ..facts(true, true)
            };
            techniques(&own, &facts(false, true), permit)
                .open
                .map(|(_, short)| short)
        };
        assert_eq!(short(None), Some(true));
        assert_eq!(short(Some((49_152, 65_535))), Some(true));
        assert_eq!(short(Some((49_153, 65_535))), Some(false));
    }

    #[test]
    fn both_parts_of_a_behaviour_are_named() {
        let words = classes().map(|(_, facts)| describe(&facts));
        assert_eq!(
            words[1],
            "port-restricted, with one port for all destinations, filtering by port"
        );
        assert_eq!(
            words[4],
            "symmetric, with random ports from 4096 to 6143, filtering by port"
        );
        let distinct: std::collections::BTreeSet<_> = words.iter().collect();
        assert_eq!(distinct.len(), words.len());
        assert!(describe(&NatFacts::default()).contains("unknown"));
    }
}
