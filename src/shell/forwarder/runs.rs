//! What one batch sends: frames of one destination one behind the other, as long as they are equally long, so that the system takes them as one
//! message and cuts it itself (GSO). Nothing is copied: a run is a list of places in the buffer that the frames arrived in.

use std::net::{IpAddr, SocketAddr};

use super::messages::{MAX_RUN, MAX_SEGMENTS};
use crate::relay::Way;

/// Most messages in one system call (UIO_MAXIOV).
const MAX_RUNS: usize = 1_024;
/// Pieces that are remembered before they are sent: a few batches.
const MAX_PIECES: usize = 4_096;

/// No next piece.
const END: u32 = u32::MAX;

/// Equally long frames, the last may be shorter, that stand one behind the other in the buffer.
#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    length: u32,
    next: u32,
}

/// Frames to one destination.
#[derive(Clone, Copy)]
pub struct Run {
    /// Which of the shard's sockets sends it.
    pub socket: usize,
    /// Where to.
    pub destination: SocketAddr,
    /// From which of the machine's addresses.
    pub local_ip: Option<IpAddr>,
    /// Length of every frame but the last.
    pub segment: u32,
    /// Bytes of all.
    pub length: u32,
    /// How many frames there are.
    pub frames: u32,
    first: u32,
    last: u32,
    /// A shorter one has come: it is the last.
    closed: bool,
}

/// The run that a lane's frames go to at present.
#[derive(Clone, Copy, Default)]
struct Lane {
    batch: u64,
    run: u32,
}

/// All runs of a batch.
pub struct Runs {
    runs: Vec<Run>,
    pieces: Vec<Piece>,
    lanes: Vec<Lane>,
    batch: u64,
}

impl Runs {
    /// None.
    pub fn new() -> Self {
        Self {
            runs: Vec::with_capacity(MAX_RUNS),
            pieces: Vec::with_capacity(MAX_PIECES),
            lanes: Vec::new(),
            batch: 1,
        }
    }

    /// True if they must be sent before more are added.
    pub fn is_full(&self) -> bool {
        self.runs.len() >= MAX_RUNS || self.pieces.len() >= MAX_PIECES
    }

    /// All of them, in the order in which they began.
    pub fn all(&self) -> &[Run] {
        &self.runs
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.pieces.clear();
        self.batch += 1;
    }

    /// Where the frames of a run stand.
    pub fn pieces(&self, run: &Run) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let mut next = run.first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next as usize)?;
            next = piece.next;
            Some(piece.start as usize..(piece.start + piece.length) as usize)
        })
    }

    /// Adds the frame at `start`. Frames of one lane keep their order; `None`: one that goes by itself.
    #[inline]
    pub fn push(&mut self, socket: usize, to: &Way, lane: Option<u32>, start: usize, length: usize) {
        let (start, length) = (start as u32, length as u32);
        let Some(lane) = lane else {
            self.begin(socket, to, start, length);
            return;
        };
        let lane = lane as usize;
        if lane >= self.lanes.len() {
            self.lanes.resize(lane + 1, Lane::default());
        }
        let Lane { batch, run } = self.lanes[lane];
        if batch == self.batch && self.extend(run as usize, socket, to, start, length) {
            return;
        }
        let run = self.begin(socket, to, start, length);
        self.lanes[lane] = Lane { batch: self.batch, run };
    }

    fn begin(&mut self, socket: usize, to: &Way, start: u32, length: u32) -> u32 {
        let piece = self.pieces.len() as u32;
        self.pieces.push(Piece {
            start,
            length,
            next: END,
        });
        self.runs.push(Run {
            socket,
            destination: to.address,
            local_ip: to.local_ip,
            segment: length,
            length,
            frames: 1,
            first: piece,
            last: piece,
            closed: false,
        });
        (self.runs.len() - 1) as u32
    }

    /// Appends to a run, if it fits in there.
    #[inline]
    fn extend(&mut self, run: usize, socket: usize, to: &Way, start: u32, length: u32) -> bool {
        let run = &mut self.runs[run];
        let fits = !run.closed
            && length <= run.segment
            && (run.frames as usize) < MAX_SEGMENTS
            && (run.length + length) as usize <= MAX_RUN
            && run.socket == socket
            && run.destination == to.address
            && run.local_ip == to.local_ip;
        if !fits {
            return false;
        }
        let place = self.pieces.len() as u32;
        let last = &mut self.pieces[run.last as usize];
        if last.start + last.length == start {
            last.length += length;
        } else {
            last.next = place;
            run.last = place;
            self.pieces.push(Piece {
                start,
                length,
                next: END,
            });
        }
        run.length += length;
        run.frames += 1;
        run.closed = length < run.segment;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SocketName::Udp4;

    fn to(port: u16) -> Way {
        Way {
            socket: Udp4,
            address: ([127, 0, 0, 1], port).into(),
            local_ip: None,
        }
    }

    fn places(runs: &Runs, run: &Run) -> Vec<(usize, usize)> {
        runs.pieces(run).map(|piece| (piece.start, piece.end)).collect()
    }

    /// A run: destination, segment, where its pieces stand.
    type Told = (u16, u32, Vec<(usize, usize)>);

    fn told(runs: &Runs) -> Vec<Told> {
        let all = runs.all().iter();
        all.map(|run| (run.destination.port(), run.segment, places(runs, run)))
            .collect()
    }

    #[test]
    fn interleaved_frames_are_joined_by_lane_and_keep_their_order() {
        let mut runs = Runs::new();
        for place in 0..3 {
            runs.push(0, &to(1), Some(1), place * 300, 100);
            runs.push(0, &to(2), Some(2), place * 300 + 100, 100);
        }
        assert_eq!(
            told(&runs),
            [
                (1, 100, vec![(0, 100), (300, 400), (600, 700)]),
                (2, 100, vec![(100, 200), (400, 500), (700, 800)])
            ]
        );
        runs.clear();
        runs.push(0, &to(1), Some(1), 0, 100);
        assert_eq!(runs.all()[0].frames, 1, "another batch, another run");
    }

    #[test]
    fn neighbours_are_one_piece_and_a_shorter_one_is_the_last() {
        let mut runs = Runs::new();
        for (start, length) in [(0, 100), (100, 100), (200, 40), (240, 40), (280, 100)] {
            runs.push(0, &to(1), Some(7), start, length);
        }
        // The longer one at the end does not fit behind a shorter one either.
        assert_eq!(
            told(&runs),
            [
                (1, 100, vec![(0, 240)]),
                (1, 40, vec![(240, 280)]),
                (1, 100, vec![(280, 380)])
            ]
        );
    }

    #[test]
    fn runs_end_where_the_system_would_refuse_them_or_the_way_changes() {
        let mut runs = Runs::new();
        for place in 0..MAX_SEGMENTS + 1 {
            runs.push(0, &to(1), Some(0), place * 10, 10);
        }
        assert_eq!(runs.all().iter().map(|run| run.frames).collect::<Vec<_>>(), [64, 1]);
        runs.clear();
        for place in 0..50 {
            runs.push(0, &to(1), Some(0), place * 1_400, 1_400);
        }
        assert!(runs.all().iter().all(|run| run.length as usize <= MAX_RUN));
        assert_eq!(runs.all().iter().map(|run| run.frames).sum::<u32>(), 50);
        runs.clear();
        let elsewhere = Way {
            local_ip: Some([127, 0, 0, 2].into()),
            ..to(1)
        };
        runs.push(0, &to(1), Some(0), 0, 10);
        runs.push(0, &elsewhere, Some(0), 10, 10);
        runs.push(1, &elsewhere, Some(0), 20, 10);
        runs.push(1, &elsewhere, None, 30, 10);
        assert_eq!(runs.all().len(), 4);
    }
}
