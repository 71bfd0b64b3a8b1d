//! Judges frames that generators made: whole, in order, once, and how late.

use super::frame::{is_whole, stamp};

const WINDOW: u64 = 1024; // sequences of which it is known whether they came
const BUCKETS: usize = 64 * 8;

#[derive(Clone, Debug)]
struct Flow {
    next: u64,
    seen: [u64; (WINDOW / 64) as usize],
}

impl Flow {
    fn new() -> Self {
        Self { next: 0, seen: [0; (WINDOW / 64) as usize] }
    }

    fn bit(sequence: u64) -> (usize, u64) {
        ((sequence % WINDOW / 64) as usize, 1 << (sequence % 64))
    }
}

/// One origin's flows.
#[derive(Clone, Debug)]
struct Origin {
    number: u8,
    flows: Vec<Flow>,
}

/// What has come.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    flows: u16,
    origins: Vec<Origin>,
    received: u64,
    received_bytes: u64,
    missing: u64,
    reordered: u64,
    duplicates: u64,
    corrupt: u64,
    alien: u64,
    latencies: Vec<u64>,
    latency_sum_ns: u128,
    latency_max_ns: u64,
}

impl Checker {
    pub(super) fn new(flows: u16) -> Self {
        Self {
            flows,
            origins: Vec::new(),
            received: 0,
            received_bytes: 0,
            missing: 0,
            reordered: 0,
            duplicates: 0,
            corrupt: 0,
            alien: 0,
            latencies: vec![0; BUCKETS],
            latency_sum_ns: 0,
            latency_max_ns: 0,
        }
    }

    /// Counts from nothing; where each flow stands is kept.
    pub(super) fn reset(&mut self) {
        let origins = std::mem::take(&mut self.origins);
        *self = Self { origins, ..Self::new(self.flows) };
    }

    pub(super) fn check(&mut self, frame: &[u8], now_ns: u64) {
        let Some(stamp) = stamp(frame) else {
            self.alien += 1;
            return;
        };
        if !is_whole(frame, &stamp) {
            self.corrupt += 1;
            return;
        }
        let at = self.origins.iter().position(|origin| origin.number == stamp.origin);
        let at = at.unwrap_or_else(|| {
            self.origins.push(Origin { number: stamp.origin, flows: Vec::new() });
            self.origins.len() - 1
        });
        let flows = &mut self.origins[at].flows;
        let n = usize::from(stamp.flow);
        if n >= flows.len() {
            flows.resize_with(n + 1, Flow::new);
        }
        let flow = &mut flows[n];
        let (word, bit) = Flow::bit(stamp.sequence);
        if stamp.sequence >= flow.next {
            // All between are missing, until they come late.
            self.missing += stamp.sequence - flow.next;
            if stamp.sequence - flow.next >= WINDOW {
                flow.seen.fill(0);
            } else {
                for sequence in flow.next..stamp.sequence {
                    let (word, bit) = Flow::bit(sequence);
                    flow.seen[word] &= !bit;
                }
            }
            flow.next = stamp.sequence + 1;
        } else if flow.next - stamp.sequence > WINDOW || flow.seen[word] & bit == 0 {
            self.reordered += 1;
            self.missing = self.missing.saturating_sub(1);
        } else {
            self.duplicates += 1;
            return;
        }
        flow.seen[word] |= bit;
        self.received += 1;
        self.received_bytes += frame.len() as u64;
        self.late(now_ns.saturating_sub(stamp.time_ns));
    }

    fn late(&mut self, latency_ns: u64) {
        self.latency_sum_ns += u128::from(latency_ns);
        self.latency_max_ns = self.latency_max_ns.max(latency_ns);
        self.latencies[bucket(latency_ns)] += 1;
    }

    fn percentile(&self, share: f64) -> u64 {
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        let wanted = (self.received as f64 * share).ceil() as u64;
        let mut count = 0;
        for (n, frames) in self.latencies.iter().enumerate() {
            count += frames;
            if count >= wanted && *frames > 0 {
                return floor_of(n).min(self.latency_max_ns);
            }
        }
        0
    }

    pub(super) fn report(&self) -> String {
        let mean = self.latency_sum_ns.checked_div(u128::from(self.received)).unwrap_or(0);
        format!(
            "gen_received {}\ngen_received_bytes {}\ngen_lost {}\ngen_reordered {}\n\
             gen_duplicates {}\ngen_corrupt {}\ngen_alien {}\ngen_latency_mean_ns {mean}\n\
             gen_latency_p50_ns {}\ngen_latency_p99_ns {}\ngen_latency_max_ns {}\n",
            self.received,
            self.received_bytes,
            self.missing,
            self.reordered,
            self.duplicates,
            self.corrupt,
            self.alien,
            self.percentile(0.5),
            self.percentile(0.99),
            self.latency_max_ns
        )
    }
}

/// Eight buckets for each power of two: 12 % wide.
fn bucket(ns: u64) -> usize {
    let exponent = 63 - (ns | 8).leading_zeros() as usize;
    (exponent * 8 + (ns >> (exponent - 3) & 7) as usize).min(BUCKETS - 1)
}

fn floor_of(bucket: usize) -> u64 {
    let (exponent, eighths) = (bucket / 8, bucket % 8);
    if exponent < 3 { 0 } else { (8 + eighths as u64) << (exponent - 3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_an_eighth_wide() {
        for ns in [8, 9, 15, 16, 1000, 123_456_789, u64::MAX] {
            let floor = floor_of(bucket(ns));
            assert!(floor <= ns && ns - floor <= ns / 8, "{ns} {floor}");
        }
    }

    #[test]
    fn random_bytes_are_alien_or_corrupt() {
        let mut checker = Checker::new(1);
        for len in 0..200 {
            checker.check(&vec![0xb7; len], 0);
        }
        assert_eq!(checker.alien, 200);
        let mut frame = vec![0; 80];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[42] = 0xb7;
        checker.check(&frame, 0);
        assert_eq!(checker.corrupt, 1);
    }
}
