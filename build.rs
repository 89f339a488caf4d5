//! Writes `include/lanline.h` from `src/ffi` and `src/codes.rs`, only if it changed.
//!
//! Structs and functions come through cbindgen. Numbers come from the tables of `src/codes.rs` (macros, which cbindgen
//! does not expand), read as text together with their documentation, so that there is one place for both.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

/// What cbindgen parses, in the order of the header. Not `src/ffi/mod.rs`: cbindgen would follow it to these files once more.
const SOURCES: &[&str] = &[
    "src/ffi/ids.rs",
    "src/shell/record.rs",
    "src/ffi/error.rs",
    "src/ffi/address.rs",
    "src/ffi/node.rs",
    "src/ffi/events.rs",
    "src/ffi/peers.rs",
    "src/ffi/mesh.rs",
    "src/ffi/nat.rs",
    "src/ffi/relays.rs",
];

/// Rust type → C type.
const TYPES: &[(&str, &str)] = &[
    ("NodeId", "lanline_node"),
    ("RequestId", "lanline_request"),
    ("Guid", "lanline_guid"),
    ("AddressRecord", "lanline_address"),
    ("EventRecord", "lanline_event"),
    ("NodeOptionsRecord", "lanline_node_options"),
    ("PeerStatsRecord", "lanline_peer_stats"),
    ("NodeStatsRecord", "lanline_node_stats"),
    ("ParticipantRecord", "lanline_participant"),
    ("JoinMemberRecord", "lanline_join_member"),
    ("NatDetectOptionsRecord", "lanline_nat_detect_options"),
    ("NatFactsRecord", "lanline_nat_facts"),
    ("ManualPortRecord", "lanline_manual_port"),
];

/// Enum of `src/codes.rs` → enum and prefix of the header.
const TABLES: &[(&str, &str, &str)] = &[
    ("Code", "lanline_result", "LANLINE_"),
    ("EventType", "lanline_event_type", "LANLINE_EVENT_"),
    ("PathKind", "lanline_path", "LANLINE_PATH_"),
    ("SendMode", "lanline_send_mode", "LANLINE_SEND_"),
    ("NatType", "lanline_nat_type", "LANLINE_NAT_TYPE_"),
    ("Connectivity", "lanline_connectivity", "LANLINE_CONNECTIVITY_"),
    ("MappingProtocol", "lanline_mapping", "LANLINE_MAPPING_"),
];

fn main() {
    for source in SOURCES.iter().chain(&["src/codes.rs", "src/ffi/header", "build.rs"]) {
        println!("cargo::rerun-if-changed={source}");
    }
    // The background thread runs code of the library: unloading it (dlclose) must not unmap that code.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    if let Err(error) = write_header(Path::new("include/lanline.h")) {
        // A packaged crate may be read-only and comes with its header: only say so.
        println!("cargo::warning=include/lanline.h was not written: {error}");
    }
}

fn write_header(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = cbindgen::Builder::new().with_config(config()?);
    for source in SOURCES {
        builder = builder.with_src(source);
    }
    let mut header = Vec::new();
    builder.generate()?.write(&mut header);
    let header = finish(&String::from_utf8(header)?);
    if fs::read_to_string(path).ok().as_deref() != Some(&header) {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, header)?;
    }
    Ok(())
}

fn config() -> Result<cbindgen::Config, Box<dyn std::error::Error>> {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        cpp_compat: true,
        no_includes: true,
        sys_includes: vec!["stdint.h".into(), "stddef.h".into(), "string.h".into()],
        style: cbindgen::Style::Both,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        line_length: 110,
        // The guard is written here because cbindgen would leave the trailer outside of it.
        header: Some(format!(
            "{}\n\n#ifndef LANLINE_H\n#define LANLINE_H",
            fs::read_to_string("src/ffi/header/top.h")?.trim_end()
        )),
        after_includes: Some(format!(
            "\n{}\n{}",
            fs::read_to_string("src/ffi/header/macros.h")?.trim_end(),
            numbers()?
        )),
        trailer: Some(format!(
            "{}\n\n#endif /* LANLINE_H */",
            fs::read_to_string("src/ffi/header/layout.h")?.trim_end()
        )),
        ..cbindgen::Config::default()
    };
    config.function.prefix = Some("LANLINE_API".into());
    config.function.sort_by = Some(cbindgen::SortKey::None);
    config.defines = HashMap::from([(
        "target_pointer_width = 32".to_owned(),
        "LANLINE_POINTERS_OF_4_BYTES".to_owned(),
    )]);
    config.export.include = TYPES.iter().map(|(rust, _)| (*rust).to_owned()).collect();
    // Rust-side constants are not for C; the header's own stand in header/macros.h.
    config.export.exclude = vec!["ABI_VERSION".to_owned()];
    config.export.rename = TYPES
        .iter()
        .map(|(rust, c)| ((*rust).to_owned(), (*c).to_owned()))
        .collect();
    Ok(config)
}

/// The tables of `src/codes.rs` as C enums, with their documentation.
fn numbers() -> Result<String, Box<dyn std::error::Error>> {
    let source = fs::read_to_string("src/codes.rs")?;
    let mut out = String::new();
    for (rust, c, prefix) in TABLES {
        let start = source
            .find(&format!("\n    {rust}: "))
            .ok_or_else(|| format!("no table {rust} in src/codes.rs"))?;
        let outer = source[..start].rsplit_once("numbered! {").map_or("", |(_, docs)| docs);
        write_documentation(&mut out, "", outer);
        writeln!(out, "enum {c} {{")?;
        let body = source[start + 1..].split("\n    }").next().unwrap_or_default();
        let mut documentation = String::new();
        for line in body.lines().skip(1).map(str::trim) {
            if line.starts_with("///") {
                writeln!(documentation, "{line}")?;
            } else if let Some((number, label)) = entry(line) {
                write_documentation(&mut out, "  ", &documentation);
                writeln!(out, "  {prefix}{} = {number},", label.to_uppercase())?;
                documentation.clear();
            }
        }
        // C++98 knows no comma after the last value.
        out.truncate(out.trim_end_matches(",\n").len());
        writeln!(out, "\n}};\n")?;
    }
    Ok(out)
}

/// `Variant = number "LABEL",`
fn entry(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(" = ")?;
    let (number, rest) = rest.split_once(" \"")?;
    Some((number, rest.split('"').next()?))
}

fn write_documentation(out: &mut String, indent: &str, documentation: &str) {
    let lines: Vec<_> = documentation
        .lines()
        .filter_map(|line| line.trim().strip_prefix("///"))
        .map(|line| line.trim().replace("[`", "").replace("`]", ""))
        .collect();
    match lines.as_slice() {
        [] => {}
        [line] => out.push_str(&format!("{indent}/** {line} */\n")),
        lines => {
            out.push_str(&format!("{indent}/**\n"));
            lines
                .iter()
                .for_each(|line| out.push_str(&format!("{indent} * {line}\n")));
            out.push_str(&format!("{indent} */\n"));
        }
    }
}

/// No blanks at line ends, one line break at the end, and no semicolon left alone behind a conditional field (cbindgen
/// puts it outside of the condition, which pedantic compilers reject).
fn finish(header: &str) -> String {
    let mut out: String = header.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    out = out.replace("_high\n#endif\n  ;\n", "_high;\n#endif\n");
    while out.contains("\n\n\n") {
        out = out.replace("\n\n\n", "\n\n");
    }
    out
}
