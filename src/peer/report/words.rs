//! Facts in words, one short text for each question. What is not known is called unknown.

use super::super::api::nat::NatReport;
use super::super::nat;
use crate::codes::NatType;

/// How outside addresses are given: by the destination or not.
pub fn mapping(report: &NatReport) -> String {
    match report.untranslated {
        Some(true) => "none (the address is not translated)".to_owned(),
        _ => nat::mapping(&report.facts).to_owned(),
    }
}

/// Whose packets get in.
pub fn filtering(report: &NatReport) -> String {
    nat::filtering(&report.facts).to_owned()
}

/// How the ports of new mappings are chosen.
pub fn ports(report: &NatReport) -> String {
    if report.untranslated == Some(true) {
        return "the local ones".to_owned();
    }
    let ports = nat::ports(report);
    match report.several_addresses {
        Some(true) => format!("{ports}; on several public addresses"),
        _ => ports,
    }
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

    #[test]
    fn without_translation_there_is_no_mapping_to_speak_of() {
        let mut report = NatReport {
            known: true,
            untranslated: Some(true),
            ..NatReport::default()
        };
        assert_eq!(
            [mapping(&report), ports(&report)],
            ["none (the address is not translated)", "the local ones"]
        );
        report.untranslated = Some(false);
        assert_eq!([mapping(&report), filtering(&report), ports(&report)], ["unknown"; 3]);
    }

    #[test]
    fn the_summary_tells_all_that_is_known() {
        assert!(summary(&NatReport::default()).contains("Nothing is known"));
        let report = NatReport {
            known: true,
            facts: NatFacts {
                mapping_varies_by_address: Some(false),
                mapping_varies_by_port: Some(false),
                filters_by_port: Some(true),
                preserves_port: Some(true),
                ..NatFacts::default()
            },
            public_v4: Some("203.0.113.5:7".parse().unwrap()),
            several_addresses: Some(true),
            ..NatReport::default()
        };
        assert_eq!(
            summary(&report),
            "NAT: moderate (port restricted). Mapping: endpoint-independent; filtering: address- and port-dependent; ports: \
             preserved; on several public addresses; public address: 203.0.113.5:7."
        );
    }
}
