//! Sending: from descriptors to frames on the wire (82599 datasheet 7.2).

use crate::faults::{Faults, Lie, WRONG_ADDRESS};
use crate::memory::{DmaSpace, Fault};
use crate::offload::{self, Request};
use crate::registers::{RegisterFile, at};
use crate::statistics::Tally;
use crate::wire::{FrameBuffer, MAX_FRAME_LEN, Wire};

/// How many transmit queues there are.
pub const QUEUES: u32 = 128;

const ENABLE: u32 = 1 << 25;
const PAD: u32 = 1 << 10;
const MIN_FRAME_LEN: usize = 60;
// A frame that is to be cut into segments: payload is at most 256 KB (82599 datasheet 7.2.4).
const MAX_SEGMENTED_LEN: usize = 262_144 + 512;
const MAX_PIECES: usize = 64;
const BURST: usize = 32;

// Command bits, in the upper word of a descriptor (82599 datasheet 7.2.3.2).
const EOP: u64 = 1 << 24;
const IC: u64 = 1 << 26; // legacy: insert checksum
const RS: u64 = 1 << 27;
const DEXT: u64 = 1 << 29;
const VLE: u64 = 1 << 30;
const TSE: u64 = 1 << 31;
const CONTEXT: u64 = 2;
const DATA: u64 = 3;
const DD: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    enabled: bool,
    setup: [u32; 3], // TDBAL, TDBAH, TDLEN as they were when the queue was set up
    base: u64,
    len: u32,
    head: u32,
    contexts: [[u64; 2]; 2],
}

/// The transmit half of a NIC.
pub struct Transmitter {
    queues: Vec<Queue>,
    active: Vec<u32>,
    touched: Vec<u32>,
    whole: FrameBuffer, // a frame that is to be cut
    pieces: Vec<(u64, usize)>,
    reports: Vec<u64>, // descriptors that software wants to hear of
}

/// Registers, memory, wire and counters, as the transmit unit sees them.
pub struct Context<'a> {
    /// The registers.
    pub registers: &'a RegisterFile,
    /// The client's memory.
    pub memory: &'a DmaSpace,
    /// Where frames go.
    pub wire: &'a mut dyn Wire,
    /// What is counted.
    pub tally: &'a mut Tally,
    /// What is to go wrong.
    pub faults: &'a mut Faults,
    /// Sees each frame that goes out.
    pub tap: &'a mut dyn FnMut(&[u8]),
}

/// Offset of the registers of a transmit queue.
pub fn registers_of(queue: u32) -> u32 {
    at::TDBAL + 0x40 * queue
}

// Distances within a queue's registers.
const TDBAH: u32 = 0x04;
const TDLEN: u32 = 0x08;
const TDH: u32 = 0x10;
const TDT: u32 = 0x18;
const TXDCTL: u32 = 0x28;
const TDWBAL: u32 = 0x38;
const TDWBAH: u32 = 0x3c;

enum Step {
    Sent,
    Nothing,
}

impl Transmitter {
    /// All queues off.
    pub fn new() -> Self {
        Self {
            queues: vec![Queue::default(); QUEUES as usize],
            active: Vec::with_capacity(QUEUES as usize),
            touched: Vec::with_capacity(QUEUES as usize),
            whole: FrameBuffer::new(),
            pieces: Vec::with_capacity(MAX_PIECES),
            reports: Vec::with_capacity(MAX_PIECES),
        }
    }

    /// Forgets everything about the rings.
    pub fn reset(&mut self) {
        self.queues.fill(Queue::default());
        self.active.clear();
        self.touched.clear();
    }

    /// Whether the transmitter is switched on.
    pub fn is_on(registers: &RegisterFile) -> bool {
        registers.get(at::DMATXCTL) & 1 != 0
    }

    /// Looks through all queues for those that are enabled.
    pub fn scan(&mut self, registers: &RegisterFile) {
        self.active.clear();
        let enabled =
            (0..QUEUES).filter(|n| registers.get(registers_of(*n) + TXDCTL) & ENABLE != 0);
        self.active.extend(enabled);
    }

    /// Sends up to a burst of frames of each enabled queue, or all there are. Gives how many.
    pub fn poll(&mut self, context: &mut Context<'_>, everything: bool) -> usize {
        let mut sent = 0;
        for i in 0..self.active.len() {
            let n = self.active[i];
            if context.faults.is_stuck(true, n) {
                continue;
            }
            sent += self.poll_queue(context, n, if everything { usize::MAX } else { BURST });
        }
        sent
    }

    fn poll_queue(&mut self, context: &mut Context<'_>, n: u32, budget: usize) -> usize {
        let base = registers_of(n);
        let registers = context.registers;
        self.sync(registers, n);
        let queue = self.queues[n as usize];
        let tail = registers.get_acquire(base + TDT);
        if !queue.enabled || tail >= queue.len || tail == queue.head {
            return 0;
        }
        let mut sent = 0;
        while sent < budget && self.queues[n as usize].head != tail {
            match self.frame(context, n, tail) {
                Ok(Step::Sent) => sent += 1,
                Ok(Step::Nothing) => break,
                Err(_) => {
                    // Real hardware would hang the queue; here the frame is counted and passed over.
                    context.tally.dma_faults += 1;
                    sent += 1;
                }
            }
        }
        let head = self.queues[n as usize].head;
        if head != queue.head {
            registers.set(base + TDH, head);
            let address = registers.get(base + TDWBAL);
            if address & 1 != 0 {
                let address =
                    u64::from(registers.get(base + TDWBAH)) << 32 | u64::from(address & !3);
                if context.memory.write(address, &head.to_le_bytes()).is_err() {
                    context.tally.dma_faults += 1;
                }
            }
        }
        sent
    }

    /// Queues that have something to tell software. The list is emptied.
    pub fn take_touched(&mut self, mut each: impl FnMut(u32)) {
        for n in self.touched.drain(..) {
            each(n);
        }
    }

    fn sync(&mut self, registers: &RegisterFile, n: u32) {
        let base = registers_of(n);
        let queue = &mut self.queues[n as usize];
        if registers.get(base + TXDCTL) & ENABLE == 0 {
            queue.enabled = false;
            return;
        }
        let setup = [registers.get(base), registers.get(base + TDBAH), registers.get(base + TDLEN)];
        // A client that shares pages may turn a queue off and on between two looks: then it has put
        // the head elsewhere.
        if queue.enabled && setup == queue.setup && registers.get(base + TDH) == queue.head {
            return;
        }
        let len = (setup[2] & 0xf_ff80) / 16;
        *queue = Queue {
            enabled: len > 0,
            setup,
            base: u64::from(setup[1]) << 32 | u64::from(setup[0] & !0x7f),
            len,
            head: registers.get(base + TDH) % len.max(1),
            contexts: [[0; 2]; 2],
        };
    }

    /// Takes the descriptors of one frame, up to `tail`.
    fn frame(&mut self, context: &mut Context<'_>, n: u32, tail: u32) -> Result<Step, Fault> {
        let queue = &mut self.queues[n as usize];
        self.pieces.clear();
        self.reports.clear();
        let mut at = queue.head;
        let mut first: Option<(u64, bool)> = None; // command and status of the first, advanced or not
        let mut total = 0usize;
        let mut bad = false;
        loop {
            if at == tail {
                if first.is_none() {
                    queue.head = at; // nothing but context descriptors
                    report(context, &self.reports, None, &mut self.touched, n);
                }
                return Ok(Step::Nothing); // the rest of the frame isn't there yet
            }
            let descriptor = queue.base + 16 * u64::from(at);
            let (address, upper) = match read(context.memory, descriptor) {
                Ok(words) => words,
                Err(fault) => {
                    queue.head = next(at, queue.len);
                    return Err(fault);
                }
            };
            at = next(at, queue.len);
            if upper & RS != 0 {
                self.reports.push(descriptor);
            }
            let advanced = upper & DEXT != 0;
            if advanced && upper >> 20 & 0xf == CONTEXT {
                let slot = usize::from(upper >> 36 & 7 != 0); // IDX: 0 or 1
                queue.contexts[slot] = [address, upper];
                continue;
            }
            bad |= advanced && upper >> 20 & 0xf != DATA;
            let len = (upper & 0xffff) as usize;
            first.get_or_insert((upper, advanced));
            total += len;
            bad |= len == 0 || self.pieces.len() == MAX_PIECES;
            if !bad {
                self.pieces.push((address, len));
            }
            if upper & EOP != 0 {
                break;
            }
        }
        let Some((upper, advanced)) = first else { return Ok(Step::Nothing) };
        let lie = context.faults.lie(n, true);
        let segmented = advanced && upper & TSE != 0;
        let longest = if segmented { MAX_SEGMENTED_LEN } else { MAX_FRAME_LEN };
        if bad || total > longest || total < 14 {
            context.tally.bad_descriptors += 1;
            queue.head = at;
            report(context, &self.reports, lie, &mut self.touched, n);
            return Ok(Step::Sent);
        }
        if lie == Some(Lie::Address) {
            self.pieces.iter_mut().for_each(|(address, _)| *address ^= WRONG_ADDRESS);
        }
        let request = if advanced {
            let slot = usize::from(upper >> 36 & 7 != 0);
            Request::advanced(upper, queue.contexts[slot])
        } else {
            Request::legacy(upper, upper & IC != 0, upper & VLE != 0)
        };
        let result = if segmented {
            let whole = &mut self.whole;
            match gather(context.memory, &self.pieces, whole.set_len(total)) {
                Ok(()) => segment(context, whole, &request, n),
                Err(fault) => Err(fault),
            }
        } else {
            let Some(room) = context.wire.room() else { return Ok(Step::Nothing) };
            match gather(context.memory, &self.pieces, room.set_len(total)) {
                Ok(()) => {
                    offload::apply(room, &request);
                    if context.registers.get(at::HLREG0) & PAD != 0 {
                        room.pad_to(MIN_FRAME_LEN);
                    }
                    context.tally.sent.count(room.bytes(), n);
                    (context.tap)(room.bytes());
                    context.wire.commit();
                    Ok(true)
                }
                Err(fault) => Err(fault),
            }
        };
        let queue = &mut self.queues[n as usize];
        if let Ok(false) = result {
            return Ok(Step::Nothing); // the wire is full: again later
        }
        queue.head = at;
        report(context, &self.reports, lie, &mut self.touched, n);
        result.map(|_| Step::Sent)
    }
}

impl Default for Transmitter {
    fn default() -> Self {
        Self::new()
    }
}

fn next(at: u32, len: u32) -> u32 {
    if at + 1 >= len { 0 } else { at + 1 }
}

fn read(memory: &DmaSpace, descriptor: u64) -> Result<(u64, u64), Fault> {
    let upper = memory.load(descriptor + 8)?;
    Ok((memory.load(descriptor)?, upper))
}

fn gather(memory: &DmaSpace, pieces: &[(u64, usize)], to: &mut [u8]) -> Result<(), Fault> {
    let mut rest = to;
    for (address, len) in pieces {
        let (piece, after) = rest.split_at_mut((*len).min(rest.len()));
        memory.read(*address, piece)?;
        rest = after;
    }
    Ok(())
}

/// Cuts a frame into segments and sends them. `false`: the wire had no room for the first one.
fn segment(
    context: &mut Context<'_>,
    whole: &FrameBuffer,
    request: &Request,
    n: u32,
) -> Result<bool, Fault> {
    let Some(cut) = offload::Segments::new(whole.bytes(), request) else {
        context.tally.bad_descriptors += 1;
        return Ok(true);
    };
    if !context.wire.has_room(cut.count()) {
        return Ok(false);
    }
    for piece in 0..cut.count() {
        let Some(room) = context.wire.room() else {
            context.tally.bad_descriptors += 1; // more segments than an empty wire takes
            return Ok(true);
        };
        cut.build(piece, room);
        if context.registers.get(at::HLREG0) & PAD != 0 {
            room.pad_to(MIN_FRAME_LEN);
        }
        context.tally.sent.count(room.bytes(), n);
        (context.tap)(room.bytes());
        context.wire.commit();
    }
    Ok(true)
}

/// Tells software that descriptors are done.
fn report(
    context: &mut Context<'_>,
    reports: &[u64],
    lie: Option<Lie>,
    touched: &mut Vec<u32>,
    n: u32,
) {
    if reports.is_empty() || lie == Some(Lie::Withhold) {
        return;
    }
    for descriptor in reports {
        let descriptor = if lie == Some(Lie::Place) { descriptor ^ 16 } else { *descriptor };
        if context.memory.store(descriptor + 8, DD).is_err() {
            context.tally.dma_faults += 1;
        }
    }
    if touched.last() != Some(&n) {
        touched.push(n);
    }
}
