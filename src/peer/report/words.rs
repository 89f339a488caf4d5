//! Facts in words: RFC 4787's terms, one short text for each question. What is not known is called unknown.

use super::super::api::nat::NatReport;
use super::super::nat;
use crate::codes::NatType;

/// How outside addresses are given: by the destination or not.
pub fn mapping(report: &NatReport) -> String {
    if report.untranslated == Some(true) {
        return "none (the address is not translated)".to_owned();
    }
    let facts = &report.facts;
    let words = match (facts.mapping_varies_by_address, facts.mapping_varies_by_port) {
        (Some(false), Some(false)) => "endpoint-independent",
        (Some(true), Some(false)) => "address-dependent",
        (_, Some(true)) => "address-and-port-dependent",
        (Some(true), None) => "address-dependent (by port: unknown)",
        (Some(false), None) => "not address-dependent (by port: unknown)",
        (None, Some(false)) => "not port-dependent (by address: unknown)",
        (None, None) => "unknown",
    };
    words.to_owned()
}

/// Whose packets get in.
pub fn filtering(report: &NatReport) -> String {
    let facts = &report.facts;
    let words = match (facts.filters_by_address, facts.filters_by_port) {
        (_, Some(true)) => "address-and-port-dependent",
        (Some(true), Some(false)) => "address-dependent",
        (Some(true), None) => "address-dependent (by port: unknown)",
        (Some(false), _) => "endpoint-independent",
        (None, Some(false)) => "not port-dependent (by address: unknown)",
        (None, None) => "unknown",
    };
    words.to_owned()
}

/// How the ports of new mappings are chosen.
pub fn ports(report: &NatReport) -> String {
    let facts = &report.facts;
    if report.untranslated == Some(true) {
        return "the local ones".to_owned();
    }
    let mut words = Vec::new();
    match facts.preserves_port {
        Some(true) => words.push("preserving".to_owned()),
        Some(false) if facts.port_step.is_none() && facts.port_block.is_none() => {
            words.push("not preserving".to_owned());
        }
        _ => {}
    }
    if let Some(step) = facts.port_step {
        words.push(format!("sequential (step {step})"));
    }
    if let Some((first, last)) = facts.port_block {
        words.push(format!("random in {first} to {last}"));
    }
    if report.several_addresses == Some(true) {
        words.push("on several public addresses".to_owned());
    }
    if words.is_empty() {
        return "unknown".to_owned();
    }
    words.join(", ")
}

/// The name, with what consoles call it.
pub fn name(report: &NatReport) -> &'static str {
    match nat::name(report).0 {
        NatType::None => "open: no router and no firewall in the way",
        NatType::FullCone => "open (full cone)",
        NatType::AddressRestricted => "relaxed (address restricted)",
        NatType::PortRestricted => "moderate (port restricted)",
        NatType::Symmetric => "strict (symmetric)",
        NatType::Unknown => "not known",
    }
}

/// The facts in a sentence, for the text of NAT_TYPE.
pub fn summary(report: &NatReport) -> String {
    if !report.known {
        return "Nothing is known of this node's NAT yet.".to_owned();
    }
    let public = report.public_v4.or(report.public_v6);
    let public = public.map_or_else(|| "not known".to_owned(), |address| address.to_string());
    format!(
        "NAT: {}. Mapping: {}; filtering: {}; ports: {}; public address: {public}.",
        name(report),
        mapping(report),
        filtering(report),
        ports(report),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::introduction::NatFacts;

    fn report(facts: NatFacts) -> NatReport {
        NatReport {
            known: true,
            facts,
            ..NatReport::default()
        }
    }

    #[test]
    fn what_is_not_known_is_called_unknown() {
        let nothing = report(NatFacts::default());
        assert_eq!(
            [mapping(&nothing), filtering(&nothing), ports(&nothing)],
            ["unknown", "unknown", "unknown"]
        );
        let half = report(NatFacts {
            mapping_varies_by_port: Some(false),
            filters_by_port: Some(false),
            ..NatFacts::default()
        });
        assert_eq!(mapping(&half), "not port-dependent (by address: unknown)");
        assert_eq!(filtering(&half), "not port-dependent (by address: unknown)");
    }

    #[test]
    fn behaviours_have_the_names_of_rfc_4787() {
        for (by_address, by_port, words) in [
            (Some(false), Some(false), "endpoint-independent"),
            (Some(true), Some(false), "address-dependent"),
            (Some(true), Some(true), "address-and-port-dependent"),
            (None, Some(true), "address-and-port-dependent"),
        ] {
            let facts = report(NatFacts {
                mapping_varies_by_address: by_address,
                mapping_varies_by_port: by_port,
                filters_by_address: by_address,
                filters_by_port: by_port,
                ..NatFacts::default()
            });
            assert_eq!((mapping(&facts).as_str(), filtering(&facts).as_str()), (words, words));
        }
    }

    #[test]
    fn ports_are_described_by_all_that_is_known() {
        let mut facts = report(NatFacts {
            preserves_port: Some(false),
            ..NatFacts::default()
        });
        assert_eq!(ports(&facts), "not preserving");
        facts.facts.port_step = Some(-2);
        assert_eq!(ports(&facts), "sequential (step -2)");
        facts.facts.port_step = None;
        facts.facts.port_block = Some((40_000, 42_047));
        facts.several_addresses = Some(true);
        assert_eq!(ports(&facts), "random in 40000 to 42047, on several public addresses");
    }
}
