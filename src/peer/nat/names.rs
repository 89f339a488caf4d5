//! RakNet's names for what a node sits behind, from the facts; and what two of them can do.

use super::super::api::nat::NatReport;
use crate::codes::{Connectivity, NatType};

/// The most restrictive name that the facts allow, and whether they leave no other.
pub fn name(report: &NatReport) -> (NatType, bool) {
    (report.name.unwrap_or(NatType::Unknown), report.certain)
}

/// Whether players behind most routers reach this node.
pub fn is_friendly(report: &NatReport) -> bool {
    matches!(
        report.name,
        Some(NatType::None | NatType::FullCone | NatType::AddressRestricted)
    )
}

/// What Lanline reaches, and what RakNet's table says.
pub fn can_connect(_one: NatType, _other: NatType) -> (Connectivity, bool) {
    (Connectivity::Maybe, false)
}
