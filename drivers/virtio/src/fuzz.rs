//! A device that writes whatever it likes, and a back end that answers whatever it likes: for the
//! fuzz targets (`fuzz/fuzz_targets/virtio_*.rs`) and, with random bytes, for the tests.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use packetboat::bus::EventFd;
use packetboat::dma::Area;
use packetboat::mbuf::{Burst, MbufPool, MbufPoolConfig, Quiesced};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::port::QueueCounters;

use crate::features::Features;
use crate::gate::{Gate, Passage};
use crate::queues::{self, Extras, Parts, Path};
use crate::ring::{Doorbell, QueueMemory};
use crate::vhost_user::{Connection, Session};

/// Descriptors of each ring: few, so that bytes of an input meet them.
const SIZE: u16 = 8;
const MBUFS: usize = 64;

/// Memory and a pool, made once and used for many inputs.
pub struct Playground {
    memory: Arc<Memory>,
    pool: MbufPool,
}

/// A queue's memory as a device sees it.
struct DeviceSide {
    area: Area,
    /// Where its own part starts, in bytes.
    device: usize,
    len_bytes: usize,
}

impl DeviceSide {
    fn of(memory: &QueueMemory) -> Self {
        let layout = memory.layout();
        Self { area: memory.area.clone(), device: layout.device, len_bytes: layout.len_bytes }
    }

    /// Writes two bytes, anywhere.
    fn write(&self, at: usize, value: u16) {
        let at = (at % self.len_bytes) & !1;
        if let Ok(mut cell) = self.area.cell::<u16>(at) {
            cell.store_release(value);
        }
    }
}

impl Playground {
    /// # Errors
    /// Without memory there is nothing to be tried.
    pub fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let memory = Memory::reserve(&MemoryConfig::no_huge(4))?;
        let config = MbufPoolConfig { cache_size: 0, ..MbufPoolConfig::new("mbufs", MBUFS) };
        let pool = MbufPool::new(&memory, &config)?;
        Ok(Self { memory, pool })
    }

    /// Plays one input on a receive and a transmit queue: its first byte chooses the path, the
    /// others are what the device writes and what the program does, in turn.
    ///
    /// # Errors
    /// If there is no memory for the queues.
    ///
    /// # Panics
    /// If a frame is lost, or given out twice.
    pub fn rings(&self, input: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let Some((&kind, input)) = input.split_first() else { return Ok(()) };
        let path = Path::of(features(kind));
        let gate: Arc<Gate> = Arc::default();
        let queue = |name| QueueMemory::new(&self.memory, name, None, SIZE, path.packed);
        let (rx_memory, tx_memory) = (queue("rx")?, queue("tx")?);
        let parts = |memory| -> std::io::Result<Parts<'_>> {
            Ok(Parts {
                memory,
                doorbell: Doorbell::Event(EventFd::new(0)?),
                counters: Arc::<QueueCounters>::default(),
                passage: Passage::new(&gate),
                interrupt: Some(EventFd::new(0)?),
            })
        };
        let header = Area::new(&self.memory, "header", 64, 64, None)?;
        let extras = Extras::new(path, &self.memory, "tx", None, SIZE, header)?;
        let mut rx = queues::receive_queue(path, parts(&rx_memory)?, self.pool.clone(), 0)?;
        let mut tx = queues::transmit_queue(path, parts(&tx_memory)?, extras)?;
        rx.fill("fuzz", 0)?;
        let sides = [DeviceSide::of(&rx_memory), DeviceSide::of(&tx_memory)];
        let mut burst = Burst::with_limit(16);
        for step in input.chunks_exact(4) {
            let &[what, a, b, c] = step else { break };
            let side = &sides[usize::from(what & 1)];
            let value = u16::from_le_bytes([b, c]);
            match what >> 1 & 7 {
                // Its own part, with any value; all of the ring; its index, by a few.
                0 => side.write(side.device + 2 * usize::from(a), value),
                1 => side.write(2 * usize::from(a), value),
                2 => {
                    let index = side.area.cell::<u16>(side.device + 2).ok();
                    if let Some(mut index) = index {
                        let now = index.load_acquire();
                        index.store_release(now.wrapping_add(u16::from(a % 5)));
                    }
                }
                3 | 4 => {
                    rx.receive(&mut burst);
                    assert!(burst.len() <= 16);
                }
                5 if a & 0xc0 == 0x80 => rx.arm_interrupt(),
                5 if a & 0xc0 == 0xc0 => rx.disarm_interrupt(),
                5 => tx.send(&mut burst),
                6 if a & 0xc0 == 0xc0 => {
                    if let Some(mut frame) = self.pool.alloc() {
                        frame.append(usize::from(b))?;
                        gate.hand_in(frame);
                    }
                }
                6 => tx.reclaim(),
                _ => {
                    gate.close();
                    for _ in 0..4 {
                        rx.receive(&mut burst);
                        burst.clear();
                        tx.reclaim();
                    }
                    assert_eq!(gate.parked(), 2, "both have parked");
                    gate.open();
                }
            }
        }
        let reset = Quiesced::after_reset();
        rx.reclaim(&reset);
        tx.reclaim_all(&reset);
        drop((rx, tx, burst, gate));
        assert_eq!((self.pool.objects().in_use(), self.pool.leaked()), (0, 0));
        Ok(())
    }
}

/// Any of the paths.
fn features(kind: u8) -> Features {
    let wanted = [
        Features::RING_PACKED,
        Features::IN_ORDER,
        Features::MRG_RXBUF,
        Features::INDIRECT_DESC,
        Features::EVENT_IDX,
        Features::GUEST_CSUM.with(Features::GUEST_TSO4).with(Features::GUEST_TSO6),
        Features::CSUM.with(Features::HOST_TSO4).with(Features::HOST_TSO6),
    ];
    let chosen = wanted.iter().enumerate().filter(|(bit, _)| kind >> bit & 1 != 0);
    chosen.fold(Features::VERSION_1, |all, (_, &one)| all.with(one))
}

/// Talks to a back end that has said `input` and closed its end.
pub fn messages(input: &[u8]) {
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    // More than a socket takes at once would wait for us.
    let some = input.get(..input.len().min(4096)).unwrap_or_default();
    if theirs.write_all(some).is_err() || theirs.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let Ok(connection) = Connection::new(ours) else { return };
    let Ok(mut session) = Session::greet(connection) else { return };
    let _ = session.net_config(session.offered);
    let _ = session.stop();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_a_device_writes_no_frame_is_lost() {
        let playground = Playground::new().unwrap();
        let config = ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 });
        proptest!(config, |(input in prop::collection::vec(any::<u8>(), 1..400))| {
            playground.rings(&input).unwrap();
        });
    }

    #[test]
    fn whatever_a_back_end_answers_the_front_end_comes_to_an_end() {
        proptest!(|(input in prop::collection::vec(any::<u8>(), 0..200))| {
            messages(&input);
        });
        // Answers that are right for a while: features, protocol features, an acknowledgement.
        let reply = |request: u32, body: &[u8]| {
            let mut bytes: Vec<u8> = [request, 5, body.len() as u32]
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            bytes.extend(body);
            bytes
        };
        let mut all = reply(1, &(1_u64 << 30 | 1 << 32).to_le_bytes());
        all.extend(reply(15, &0x1_2209_u64.to_le_bytes()));
        all.extend(reply(17, &[0xff; 8]));
        all.extend(reply(24, &[0; 24]));
        for len in 0..=all.len() {
            messages(&all[..len]);
        }
    }
}
