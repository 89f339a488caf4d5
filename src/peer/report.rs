//! Everything about the way to others, in one report: for the player's support, and for programs.
//!
//! In: the game's wish. The engine asks its own parts, one after the other (a port mapping must not change what the detection sees): first
//! the detection, then, if wanted, a port from the routers, which is taken back unless the game asked for one as well. Out: one event
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
use super::api::nat::{DetectOptions, MappedPort};
use super::api::{Event, Reason, RequestId};
use super::attempts::cancelled;
use super::requests::{FIRST_OWN, Pending};
use findings::{Findings, Mapping, Server};

/// The report's own request for a detection.
const DETECTION: RequestId = FIRST_OWN;
/// The report's own request for a port.
const MAPPING: RequestId = FIRST_OWN + 1;
/// For a router to forward a port. RakNet's time for its discovery, too.
const MAPPING_TIME: Duration = Duration::from_secs(2);
/// Steps on the way to a port that are kept: a few for each protocol.
const MOST_STEPS: usize = 32;

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
    /// `None`: still running.
    Mapping(Option<Mapping>),
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
    steps: Vec<String>,
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
            Event::PortMapped {
                request: MAPPING,
                external,
                protocol,
                double_nat,
                text,
            } => {
                let port = MappedPort {
                    external,
                    protocol,
                    double_nat,
                };
                self.note_step(text);
                self.note_mapping(Mapping::Mapped {
                    port,
                    taken_back: false,
                });
                None
            }
            Event::PortMappingFailed {
                request: MAPPING,
                reason,
            } => {
                self.note_mapping(Mapping::Failed(reason));
                None
            }
            Event::PortMappingProgress { request: MAPPING, text } => {
                self.note_step(text);
                None
            }
            event => Some(event),
        }
    }

    fn note_mapping(&mut self, outcome: Mapping) {
        if let Some(Job {
            stage: Stage::Mapping(end @ None),
            ..
        }) = &mut self.job
        {
            *end = Some(outcome);
        }
    }

    fn note_step(&mut self, text: String) {
        if let Some(job) = &mut self.job
            && job.steps.len() < MOST_STEPS
            && !text.is_empty()
        {
            job.steps.push(text);
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
                Stage::Mapping(_) => self.cancel(now, MAPPING),
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
            let Some(job) = &mut self.reports.job else {
                if !self.begin_report(now) {
                    return;
                }
                continue;
            };
            match &mut job.stage {
                Stage::Detecting(None) | Stage::Mapping(None) => return,
                Stage::Detecting(Some(reason)) => {
                    job.detection = reason.take();
                    if job.map_port {
                        job.stage = Stage::Mapping(None);
                        self.map_port(now, MAPPING, MAPPING_TIME);
                    } else {
                        self.finish_report(Mapping::NotAsked);
                    }
                }
                Stage::Mapping(Some(outcome)) => {
                    let outcome = std::mem::take(outcome);
                    self.finish_report(outcome);
                }
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
            steps: Vec::new(),
        });
        self.detect_nat(now, DETECTION, detect);
        true
    }

    fn finish_report(&mut self, mapping: Mapping) {
        let Some(job) = self.reports.job.take() else { return };
        let findings = Findings {
            nat: self.nat.report.clone(),
            detection: job.detection,
            mapping,
            steps: job.steps,
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
        })
    }
}
