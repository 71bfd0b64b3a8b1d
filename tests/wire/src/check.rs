//! Judges each frame that comes out of the guest against what must have come out there.

use serde::Serialize;

use crate::frame::{Label, Mac, Recipe, source_mac};

/// What is expected of the forwarder between the ports.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    /// How the frames were made.
    pub(crate) recipe: Recipe,
    /// `port_map[i]` is the port at which frames that entered at port `i` must leave.
    pub(crate) port_map: Vec<u8>,
    /// Whether the forwarder rewrites both MACs as l2fwd does.
    pub(crate) mac_updating: bool,
}

/// What came of the frames that entered at one port.
#[derive(Debug, Default, Clone, Serialize, PartialEq, Eq)]
pub(crate) struct Direction {
    /// Port at which the frames entered.
    pub(crate) from: u8,
    /// Port at which they had to leave.
    pub(crate) to: u8,
    /// Frames handed to the guest.
    pub(crate) sent: u64,
    /// Different frames of those that came out, at whatever port.
    pub(crate) received: u64,
    /// Sent and never seen again.
    pub(crate) lost: u64,
    /// Came after a later frame of the same flow.
    pub(crate) reordered: u64,
    /// Came a second time.
    pub(crate) duplicated: u64,
    /// Came out at another port than `to`.
    pub(crate) wrong_port: u64,
    /// Has another length than when it was sent.
    pub(crate) wrong_length: u64,
    /// Differs from what was sent after the MACs.
    pub(crate) corrupted: u64,
    /// Destination or source MAC isn't what the forwarder must have written.
    pub(crate) wrong_mac: u64,
}

impl Direction {
    /// Sum of everything that must not happen.
    pub(crate) fn deviations(&self) -> u64 {
        self.lost
            + self.reordered
            + self.duplicated
            + self.wrong_port
            + self.wrong_length
            + self.corrupted
            + self.wrong_mac
    }
}

/// Follows the frames that entered at one port.
#[derive(Debug)]
pub(crate) struct Checker {
    expectation: Expectation,
    direction: Direction,
    /// By sequence number, whether the frame has come.
    seen: Vec<bool>,
    /// By flow, the lowest sequence number that wouldn't be out of order.
    next: Vec<u64>,
    /// The first few deviations in words.
    examples: Vec<String>,
}

const EXAMPLES: usize = 5;

impl Checker {
    /// A checker for the frames that enter at `from`; `frames` is how many at most.
    pub(crate) fn new(expectation: Expectation, from: u8, frames: u64) -> Self {
        let to = expectation.port_map[usize::from(from)];
        let flows = usize::from(expectation.recipe.flows.max(1));
        Self {
            expectation,
            direction: Direction { from, to, ..Direction::default() },
            seen: vec![false; frames as usize],
            next: vec![0; flows],
            examples: Vec::new(),
        }
    }

    /// Judges `frame`, which left the guest at port `at` and whose label says it entered here.
    /// Returns whether it's one that was still outstanding.
    pub(crate) fn arrived(&mut self, label: Label, at: u8, frame: &[u8]) -> bool {
        let seq = label.seq;
        let Some(seen) = self.seen.get_mut(seq as usize) else {
            // A label that was never given out: the bytes that hold it were damaged.
            self.direction.corrupted += 1;
            self.note(
                seq,
                format!("its number is beyond the {} frames of the run", self.seen.len()),
            );
            return false;
        };
        if std::mem::replace(seen, true) {
            self.direction.duplicated += 1;
            self.note(seq, "came twice".into());
            return false;
        }
        self.direction.received += 1;
        let flow = self.expectation.recipe.flow(seq);
        let next = &mut self.next[usize::from(flow)];
        if seq < *next {
            let behind = *next - 1;
            self.direction.reordered += 1;
            self.note(seq, format!("came after number {behind} of the same flow"));
        } else {
            *next = seq + 1;
        }
        if at != self.direction.to {
            self.direction.wrong_port += 1;
            self.note(seq, format!("left at port {at} instead of {}", self.direction.to));
        }
        let sent = self.expectation.recipe.build(label.port, seq);
        if frame.len() != sent.len() {
            self.direction.wrong_length += 1;
            self.note(seq, format!("has {} bytes instead of {}", frame.len(), sent.len()));
        } else if let Some(at) = (12..sent.len()).find(|&at| frame[at] != sent[at]) {
            self.direction.corrupted += 1;
            let (found, wanted) = (frame[at], sent[at]);
            self.note(seq, format!("has {found:#04x} instead of {wanted:#04x} at byte {at}"));
        }
        let (destination, source) = self.macs(flow);
        if frame[..6] != destination.0 || frame[6..12] != source.0 {
            self.direction.wrong_mac += 1;
            let mut found = [Mac([0; 6]); 2];
            found[0].0.copy_from_slice(&frame[..6]);
            found[1].0.copy_from_slice(&frame[6..12]);
            let [to, from] = found;
            self.note(
                seq,
                format!("has MACs to {to} from {from} instead of to {destination} from {source}"),
            );
        }
        true
    }

    /// Ends the run: `sent` frames had entered. Returns the tally and the first deviations in words.
    pub(crate) fn finish(mut self, sent: u64) -> (Direction, Vec<String>) {
        self.direction.sent = sent;
        self.direction.lost = sent.saturating_sub(self.direction.received);
        if self.direction.lost > 0 {
            let first = self.seen.iter().position(|seen| !seen).unwrap_or(0);
            let lost = self.direction.lost;
            self.note(first as u64, format!("is the first of {lost} that never came"));
        }
        (self.direction, self.examples)
    }

    /// Different frames that have come so far.
    pub(crate) fn received(&self) -> u64 {
        self.direction.received
    }

    /// Destination and source that a frame of `flow` must carry when it leaves: l2fwd writes
    /// 02:00:00:00:00:PORT and the address of the port at which it leaves, or neither.
    fn macs(&self, flow: u8) -> (Mac, Mac) {
        let Direction { from, to, .. } = self.direction;
        let macs = &self.expectation.recipe.port_macs;
        if self.expectation.mac_updating {
            (Mac([0x02, 0, 0, 0, 0, to]), macs[usize::from(to)])
        } else {
            (macs[usize::from(from)], source_mac(from, flow))
        }
    }

    fn note(&mut self, seq: u64, what: String) {
        if self.examples.len() < EXAMPLES {
            let Direction { from, to, .. } = self.direction;
            self.examples.push(format!("port {from} to {to}, frame {seq}: {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 3;

    fn expectation(mac_updating: bool) -> Expectation {
        Expectation {
            recipe: Recipe {
                run: RUN,
                flows: 2,
                min_len_bytes: 60,
                max_len_bytes: 1514,
                port_macs: vec![Mac([0x52, 0x54, 0, 0, 0, 1]), Mac([0x52, 0x54, 0, 0, 0, 2])],
            },
            port_map: vec![1, 0],
            mac_updating,
        }
    }

    /// What a faultless l2fwd makes of frame `seq` from port 0.
    fn forwarded(expectation: &Expectation, seq: u64) -> Vec<u8> {
        let mut frame = expectation.recipe.build(0, seq);
        if expectation.mac_updating {
            frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2]);
        }
        frame
    }

    /// Sends eight frames through `tamper`, which gives what comes out instead, and judges that.
    fn judge(mac_updating: bool, tamper: impl Fn(Vec<Vec<u8>>) -> Vec<(u8, Vec<u8>)>) -> Direction {
        let expectation = expectation(mac_updating);
        let frames = (0..8).map(|seq| forwarded(&expectation, seq)).collect();
        let mut checker = Checker::new(expectation, 0, 8);
        for (at, frame) in tamper(frames) {
            checker.arrived(Label::read(&frame).expect("labelled"), at, &frame);
        }
        let (direction, examples) = checker.finish(8);
        assert_eq!(direction.deviations() > 0, !examples.is_empty());
        direction
    }

    fn all_at_1(frames: Vec<Vec<u8>>) -> Vec<(u8, Vec<u8>)> {
        frames.into_iter().map(|frame| (1, frame)).collect()
    }

    fn only(change: impl Fn(&mut Direction)) -> Direction {
        let mut wanted = Direction { from: 0, to: 1, sent: 8, received: 8, ..Direction::default() };
        change(&mut wanted);
        wanted
    }

    #[test]
    fn faultless_forwarding_has_no_deviation() {
        assert_eq!(judge(true, all_at_1), only(|_| ()));
        assert_eq!(judge(false, all_at_1), only(|_| ()));
    }

    #[test]
    fn a_missing_frame_is_lost() {
        let found = judge(true, |mut frames| {
            frames.remove(3);
            all_at_1(frames)
        });
        assert_eq!(found, only(|d| (d.received, d.lost) = (7, 1)));
    }

    #[test]
    fn swapped_frames_of_one_flow_are_reordered() {
        let found = judge(true, |mut frames| {
            frames.swap(2, 4);
            all_at_1(frames)
        });
        assert_eq!(found, only(|d| d.reordered = 1));
    }

    #[test]
    fn flows_may_overtake_each_other() {
        let found = judge(true, |mut frames| {
            frames.swap(2, 3);
            all_at_1(frames)
        });
        assert_eq!(found, only(|_| ()));
    }

    #[test]
    fn a_second_copy_is_a_duplicate() {
        let found = judge(true, |mut frames| {
            frames.push(frames[5].clone());
            all_at_1(frames)
        });
        assert_eq!(found, only(|d| d.duplicated = 1));
    }

    #[test]
    fn another_port_is_the_wrong_one() {
        let found = judge(true, |frames| {
            frames.into_iter().enumerate().map(|(i, frame)| (u8::from(i != 6), frame)).collect()
        });
        assert_eq!(found, only(|d| d.wrong_port = 1));
    }

    #[test]
    fn every_single_changed_byte_is_found() {
        let len_bytes = forwarded(&expectation(true), 0).len();
        for at in 12..len_bytes {
            let expectation = expectation(true);
            let mut frame = forwarded(&expectation, 0);
            frame[at] ^= 0x10;
            let Some(label) =
                Label::read(&frame).filter(|label| label.run == RUN && label.port == 0)
            else {
                continue; // the run counts it as a stranger and as lost: see the closed loop's test
            };
            let mut checker = Checker::new(expectation, 0, 8);
            checker.arrived(label, 1, &frame);
            assert_eq!(checker.finish(1).0.corrupted, 1, "byte {at}");
        }
    }

    #[test]
    fn a_changed_length_is_found() {
        let found = judge(true, |mut frames| {
            frames[1].pop();
            frames[2].push(0);
            all_at_1(frames)
        });
        assert_eq!(found, only(|d| d.wrong_length = 2));
    }

    #[test]
    fn every_changed_mac_byte_is_found() {
        for mac_updating in [true, false] {
            for at in 0..12 {
                let found = judge(mac_updating, |mut frames| {
                    frames[4][at] ^= 1;
                    all_at_1(frames)
                });
                assert_eq!(found, only(|d| d.wrong_mac = 1), "byte {at}");
            }
        }
    }

    #[test]
    fn rewriting_must_be_as_asked() {
        let untouched = judge(true, |_| {
            all_at_1((0..8).map(|seq| forwarded(&expectation(false), seq)).collect())
        });
        assert_eq!(untouched.wrong_mac, 8);
        let rewritten = judge(false, |_| {
            all_at_1((0..8).map(|seq| forwarded(&expectation(true), seq)).collect())
        });
        assert_eq!(rewritten.wrong_mac, 8);
    }
}
