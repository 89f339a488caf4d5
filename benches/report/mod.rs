//! How benchmarks tell their figures: a table for people, and with `--json FILE` a JSON line a figure, appended, for programs.
//!
//! A figure that misses its bound is told as such; it is no fault of the benchmark.

use std::fs::{File, OpenOptions};
use std::io::Write;

/// What a figure shall keep. Not every benchmark has figures of each kind.
#[allow(dead_code)]
#[derive(Clone, Copy)]
pub enum Bound {
    /// It tells without judging.
    None,
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtMost(bound) => Some(value <= bound),
            Self::AtLeast(bound) => Some(value >= bound),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::None => None,
            Self::AtMost(bound) | Self::AtLeast(bound) => Some(bound),
        }
    }

    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::AtLeast(bound) => format!(">= {bound}"),
        }
    }
}

/// Where figures go.
pub struct Report {
    bench: &'static str,
    json: Option<File>,
}

impl Report {
    /// Reads the arguments. An error is a line for a person.
    pub fn new(bench: &'static str) -> Result<Self, String> {
        let mut arguments = std::env::args().skip(1);
        let mut json = None;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // What `cargo bench` itself adds.
                "--bench" => {}
                "--json" => {
                    let path = arguments.next().ok_or("--json wants a file")?;
                    let file = OpenOptions::new().create(true).append(true).open(&path);
                    json = Some(file.map_err(|error| format!("cannot write {path}: {error}"))?);
                }
                other => return Err(format!("there is no argument {other}; there is --json FILE")),
            }
        }
        Ok(Self { bench, json })
    }

    /// Tells a figure.
    pub fn figure(&mut self, name: &str, value: f64, unit: &str, bound: Bound) {
        let met = bound.met(value);
        let verdict = match met {
            None => "",
            Some(true) => "met",
            Some(false) => "NOT met",
        };
        println!("{name:<66} {value:>10.2} {unit:<8} {:<10} {verdict}", bound.text());
        if let Some(file) = &mut self.json {
            let line = serde_json::json!({
                "bench": self.bench, "figure": name, "value": value, "unit": unit, "bound": bound.number(), "met": met,
            });
            if let Err(error) = writeln!(file, "{line}") {
                eprintln!("cannot write the figures: {error}");
            }
        }
    }
}
