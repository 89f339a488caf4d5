//! Everything about the way to others, in one report: for the player's support, and for programs.
//!
//! In: the game's wish. The engine asks its own parts, one after the other (a port mapping must not change what the detection sees): first
//! the detection, then, if wanted, the routers for a port, which is given back unless the game asked for one as well. Out: one event
//! REPORT for each wish. Wishes that come while a report is being made wait for the next one; those that wait together share one.
//!
//! | file | what it does |
//! |---|---|
//! | [`findings`] | what was found out, and what follows from it |
//! | [`players`] | the matrix: who reaches whom, and how |
//! | [`words`] | facts in words |
//! | `advice` | what to change |
//! | `json`, `text` | writing it down |

pub mod findings;
pub mod players;
pub mod words;

mod advice;
mod json;
mod text;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Node;
use super::api::nat::DetectOptions;
use super::api::{Event, Reason, RequestId};
use super::attempts::cancelled;
use super::requests::{FIRST_OWN, Pending};
use findings::{Findings, Mapping, Server};

/// The report's own request for a detection.
const DETECTION: RequestId = FIRST_OWN;
/// For a router to forward a port. RakNet's time for its discovery, too.
const MAPPING_TIME: Duration = Duration::from_secs(2);
/// A wish for a report.
#[derive(Debug)]
struct Wish {
    request: RequestId,
    map_port: bool,
    detect: DetectOptions,
}

#[derive(Debug)]
enum Stage {
    /// `None`: still running.
    Detecting(Option<Detected>),
    /// Routers are being asked.
    Mapping,
}

/// The end of a detection: why less is known than usual.
type Detected = Option<Reason>;

/// A report being made.
#[derive(Debug)]
struct Job {
    requests: Vec<RequestId>,
    map_port: bool,
    stage: Stage,
    detection: Option<Reason>,
}

/// Reports that are wanted, and the one that is being made.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: VecDeque<Wish>,
    job: Option<Job>,
}

impl Reports {
    /// Keeps what answers the report's own questions; gives back what is for the game.
    pub fn keep_own(&mut self, event: Event<'static>) -> Option<Event<'static>> {
        match event {
            Event::NatDetected {
                request: DETECTION,
                reason,
                ..
            } => {
                if let Some(Job {
                    stage: Stage::Detecting(end @ None),
                    ..
                }) = &mut self.job
                {
                    *end = Some(reason);
                }
                None
            }
            event => Some(event),
        }
    }
}

impl Node {
    /// The game's call.
    pub(super) fn report(&mut self, now: Instant, request: RequestId, map_port: bool, detect: DetectOptions) {
        self.requests.begin(request, Pending::Report);
        self.reports.waiting.push_back(Wish {
            request,
            map_port,
            detect,
        });
        self.continue_reports(now);
    }

    /// The game does not want it any more.
    pub(super) fn cancel_report(&mut self, now: Instant, request: RequestId) {
        self.reports.waiting.retain(|wish| wish.request != request);
        let mut abandoned = false;
        if let Some(job) = &mut self.reports.job {
            job.requests.retain(|waiting| *waiting != request);
            abandoned = job.requests.is_empty();
        }
        if abandoned && let Some(job) = self.reports.job.take() {
            // What they still say is for nobody.
            match job.stage {
                Stage::Detecting(_) => self.cancel(now, DETECTION),
                Stage::Mapping => self.give_back_port(),
            }
        }
        if self.requests.end(request) {
            self.raise(Event::Report {
                request,
                reason: Some(cancelled()),
                json: String::new(),
                text: String::new(),
            });
        }
        self.continue_reports(now);
    }

    /// Goes on as far as the answers allow.
    pub(super) fn continue_reports(&mut self, now: Instant) {
        loop {
            // Whether a port that a router gives is open shows before it is given back.
            let asking = self.port_mapping_is_asking() || self.nat_tries_ports();
            let Some(job) = &mut self.reports.job else {
                if !self.begin_report(now) {
                    return;
                }
                continue;
            };
            match &mut job.stage {
                Stage::Detecting(None) => return,
                Stage::Detecting(Some(reason)) => {
                    job.detection = reason.take();
                    if job.map_port {
                        job.stage = Stage::Mapping;
                        self.borrow_port(now, MAPPING_TIME);
                    } else {
                        self.finish_report();
                    }
                }
                Stage::Mapping if asking => return,
                Stage::Mapping => self.finish_report(),
            }
        }
    }

    /// Begins with what the first wish wants, for all that want the same detection.
    fn begin_report(&mut self, now: Instant) -> bool {
        let Some(first) = self.reports.waiting.front() else {
            return false;
        };
        let detect = first.detect.clone();
        let waiting = std::mem::take(&mut self.reports.waiting);
        let (shared, others): (VecDeque<Wish>, VecDeque<Wish>) =
            waiting.into_iter().partition(|wish| wish.detect == detect);
        self.reports.waiting = others;
        self.reports.job = Some(Job {
            map_port: shared.iter().any(|wish| wish.map_port),
            requests: shared.into_iter().map(|wish| wish.request).collect(),
            stage: Stage::Detecting(None),
            detection: None,
        });
        self.detect_nat(now, DETECTION, detect);
        true
    }

    fn finish_report(&mut self) {
        let Some(job) = self.reports.job.take() else { return };
        let nat = self.nat.report.clone();
        let mapping = match job.stage {
            Stage::Detecting(_) => Mapping::NotAsked,
            Stage::Mapping => self.end_asking(),
        };
        let findings = Findings {
            nat,
            detection: job.detection,
            mapping,
            sockets: self.sockets.iter().map(|(_, address)| *address).collect(),
            local_addresses: self.local_addresses.clone(),
            manual: self.manual_address,
            server: self.server_found(),
        };
        let (json, text) = (json::write(&findings), text::write(&findings));
        for request in job.requests {
            if self.requests.end(request) {
                self.raise(Event::Report {
                    request,
                    reason: None,
                    json: json.clone(),
                    text: text.clone(),
                });
            }
        }
    }

    /// What the routers said; what they gave is given back unless the game wants it.
    fn end_asking(&mut self) -> Mapping {
        let ports = self.nat.report.mappings.clone();
        let mut failures = self.port_mapping_failures();
        failures.dedup();
        self.give_back_port();
        let taken_back = !ports.is_empty() && self.nat.report.mappings.is_empty();
        Mapping::Asked {
            ports,
            failures,
            taken_back,
        }
    }

    fn server_found(&self) -> Option<Server> {
        let (host, port) = self.rendezvous.server()?;
        let link = self.rendezvous.link();
        let route = link.and_then(|link| self.server_links.get(&link));
        let path = route.and_then(|route| self.paths.best(*route));
        Some(Server {
            host: host.to_owned(),
            port,
            address: path.map(|path| path.address),
            connected: self.server_is_up(),
            tls: self.is_on_stream(),
        })
    }
}
