//! The whole memory stack at once, on more threads than cores: two lcores, pinned, and six threads
//! that are none share a heap (whose pages come from and go to the kernel), rings of the modes for
//! such use (`Rts`, `Hts`: at a `Multi` end each thread that is preempted holds up all others for a time
//! slice), a mempool and mbufs, while one more looks at and trims everything.
//!
//! What passes from hand to hand carries a stamp from which all its content follows, and whoever takes
//! it checks every word; at the end each count must be exact, and nothing may be left.
//! `scripts/test.sh stress` runs it for `PACKETBOAT_STRESS_SECONDS` (10).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use packetboat::mbuf::{Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::heap::{Heap, HeapConfig, HeapSlice, Request, Tag};
use packetboat::memory::{Memory, MemoryConfig};
use packetboat::mempool::{Backend, MempoolConfig, ObjectPool, Pooled};
use packetboat::ring::{Consumer, Hts, Producer, Rts, ring};
use packetboat::sys::cpu;
use packetboat::sys::lcore_id::LcoreClaim;
use packetboat::sys::sysroot::SysRoot;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LCORES: [u32; 2] = [100, 101];
const OTHERS: usize = 6;

/// Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word(self.0, 0)
    }
}

/// The word at `index` of what has this stamp.
fn word(stamp: u64, index: usize) -> u64 {
    let mut z = stamp ^ (index as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a thread did.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    steps: u64,
    allocated: u64,
    refused: u64,
    /// Put into and taken out of rings.
    sent: u64,
    received: u64,
    words_checked: u64,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.allocated += other.allocated;
        self.refused += other.refused;
        self.sent += other.sent;
        self.received += other.received;
        self.words_checked += other.words_checked;
    }
}

type Slice = HeapSlice<u64>;
/// An object with its number, its stamp, and words that follow from it.
type Object = [u64; 12];
type Owned = Pooled<Object, Arc<ObjectPool<Object>>>;

/// What all threads share; each has its own ends.
#[derive(Clone)]
struct Shared {
    heap: Arc<Heap>,
    tag: Tag,
    objects: Arc<ObjectPool<Object>>,
    mbufs: MbufPool,
    slices: (Producer<Slice, Rts, Rts>, Consumer<Slice, Rts, Rts>),
    owned: (Producer<Owned, Hts, Hts>, Consumer<Owned, Hts, Hts>),
    frames: (Producer<Mbuf, Rts, Rts>, Consumer<Mbuf, Rts, Rts>),
}

impl Shared {
    fn step(&self, random: &mut SplitMix, done: &mut Done) {
        done.steps += 1;
        let number = random.next();
        match number % 8 {
            0..2 => self.send_slice(number >> 8, done),
            2..4 => self.slices.1.pop().into_iter().for_each(|slice| receive_slice(slice, done)),
            4 => self.send_object(number >> 8, done),
            5 => self.owned.1.pop().into_iter().for_each(|object| receive_object(object, done)),
            6 => self.send_frame(number >> 8, done),
            _ => self.frames.1.pop().into_iter().for_each(|frame| receive_frame(&frame, done)),
        }
    }

    /// Mostly short, some beyond what is cached.
    fn send_slice(&self, number: u64, done: &mut Done) {
        let most = [8, 32, 128, 512, 2048, 20_000][(number % 6) as usize];
        let len = 1 + (number >> 16) as usize % most;
        let request = Request::new(0).tag(self.tag).align(64 << (number >> 8 & 3));
        let made = HeapSlice::from_fn(&self.heap, request, len, |index| match index {
            0 => number,
            _ => word(number, index),
        });
        let Ok(slice) = made else {
            done.refused += 1;
            return;
        };
        done.allocated += 1;
        match self.slices.0.push(slice) {
            Ok(()) => done.sent += 1,
            Err(slice) => check(&slice, done),
        }
    }

    fn send_object(&self, number: u64, done: &mut Done) {
        let Some(mut object) = self.objects.get_owned() else {
            done.refused += 1;
            return;
        };
        // What the one before left in it is whole.
        check(&object[1..], done);
        object[1] = number;
        (1..11).for_each(|index| object[1 + index] = word(number, index));
        match self.owned.0.push(object) {
            Ok(()) => done.sent += 1,
            Err(object) => check(&object[1..], done),
        }
    }

    fn send_frame(&self, number: u64, done: &mut Done) {
        let Some(mut frame) = self.mbufs.alloc() else {
            done.refused += 1;
            return;
        };
        let words = 1 + (number >> 16) as usize % 180;
        let Ok(data) = frame.append(words * 8) else { panic!("{words} words didn't fit") };
        for (index, bytes) in data.chunks_exact_mut(8).enumerate() {
            let word = if index == 0 { number } else { word(number, index) };
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        match self.frames.0.push(frame) {
            Ok(()) => done.sent += 1,
            Err(frame) => check_frame(&frame, done),
        }
    }

    fn drain(&self, done: &mut Done) {
        std::iter::from_fn(|| self.slices.1.pop()).for_each(|slice| receive_slice(slice, done));
        std::iter::from_fn(|| self.owned.1.pop()).for_each(|object| receive_object(object, done));
        std::iter::from_fn(|| self.frames.1.pop()).for_each(|frame| receive_frame(&frame, done));
    }
}

fn receive_slice(slice: Slice, done: &mut Done) {
    done.received += 1;
    check(&slice, done);
}

fn receive_object(object: Owned, done: &mut Done) {
    done.received += 1;
    check(&object[1..], done);
}

fn receive_frame(frame: &Mbuf, done: &mut Done) {
    done.received += 1;
    check_frame(frame, done);
}

fn check(words: &[u64], done: &mut Done) {
    let whole = words.iter().enumerate().skip(1).all(|(at, found)| *found == word(words[0], at));
    assert!(whole, "{} words of stamp {:#x} were changed", words.len(), words[0]);
    done.words_checked += words.len() as u64;
}

fn check_frame(frame: &Mbuf, done: &mut Done) {
    let words = frame.data().as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    check(&words.collect::<Vec<_>>(), done);
}

fn stress(length: Duration) {
    let memory = Memory::reserve(&MemoryConfig::no_huge(16)).unwrap();
    // Small, so that it is full at times, and pages come and go all the time.
    let config = HeapConfig::new("stress", 3 << 20).step_bytes(128 << 10).guarded(false);
    let heap = Heap::of_kernel_pages(&memory, config.cache_bytes(256 << 10)).unwrap();
    let made = |number: usize| {
        std::array::from_fn(|index| match index {
            0 => number as u64,
            1 => 0,
            _ => word(0, index - 1),
        })
    };
    let config = MempoolConfig {
        backend: Backend::RtsRing,
        cookies: true,
        ..MempoolConfig::new("stress", 300, 0)
    };
    let objects = ObjectPool::new(&memory, &config, |number, _| made(number)).unwrap();
    let config = MbufPoolConfig {
        backend: Backend::RtsRing,
        cache_size: 32,
        ..MbufPoolConfig::new("stress mbufs", 400)
    };
    let shared = Shared {
        tag: Tag::new("stress").unwrap(),
        objects: Arc::new(objects),
        mbufs: MbufPool::new(&memory, &config).unwrap(),
        slices: ring(256).unwrap(),
        owned: ring(128).unwrap(),
        frames: ring(128).unwrap(),
        heap,
    };
    let (mut done, mut looks) = (Done::default(), 0_u64);
    let working = AtomicBool::new(true);
    let start = Instant::now();
    let cpus = cpu::allowed(&SysRoot::default()).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..LCORES.len() + OTHERS)
            .map(|index| {
                let (shared, lcore) = (shared.clone(), LCORES.get(index).copied());
                let cpu = cpus[index % cpus.len()];
                scope.spawn(move || {
                    let _lcore = lcore.map(|id| {
                        cpu::pin_current_thread(cpu).unwrap();
                        LcoreClaim::claim(id).unwrap()
                    });
                    let (mut random, mut done) = (SplitMix(index as u64), Done::default());
                    while start.elapsed() < length {
                        (0..256).for_each(|_| shared.step(&mut random, &mut done));
                    }
                    shared.drain(&mut done);
                    done
                })
            })
            .collect();
        let looking = scope.spawn(|| {
            let mut looks = 0_u64;
            while working.load(Ordering::Relaxed) {
                let report = shared.heap.check().unwrap();
                let stats = shared.heap.stats();
                assert!(stats.free_bytes + stats.live_bytes <= stats.total_bytes, "{stats:?}");
                assert!(report.extents > 0 || report.used_blocks == 0);
                if looks % 8 == 7 {
                    shared.heap.trim();
                }
                looks += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            looks
        });
        threads.into_iter().for_each(|thread| done += thread.join().unwrap());
        working.store(false, Ordering::Relaxed);
        looks = looking.join().unwrap();
    });
    shared.drain(&mut done);
    let stats = shared.heap.stats();
    println!(
        "stress: {} threads, 2 of them lcores, {:.1} s: {} steps, {} blocks allocated, {} sent from \
         thread to thread, {} words checked, {} refused for want of room, {} extents taken from and \
         {} given back to the kernel, {looks} checks of the whole heap meanwhile",
        LCORES.len() + OTHERS,
        start.elapsed().as_secs_f64(),
        done.steps,
        done.allocated,
        done.received,
        done.words_checked,
        done.refused,
        stats.grown,
        stats.given_back,
    );
    assert_eq!(done.sent, done.received);
    assert_eq!((stats.allocated, stats.freed), (done.allocated, done.allocated));
    assert_eq!((stats.live_blocks, stats.live_bytes), (0, 0));
    shared.heap.check().unwrap();
    shared.heap.trim();
    assert_eq!((shared.heap.total_bytes(), memory.added_segments().len()), (0, 0));
    assert_eq!(shared.objects.as_mempool().in_use(), 0);
    shared.objects.as_mempool().audit().unwrap();
    assert_eq!((shared.mbufs.objects().in_use(), shared.mbufs.leaked()), (0, 0));
    shared.mbufs.objects().audit().unwrap();
    // All that happened was worth looking at.
    assert!(done.refused > 0 && stats.given_back > 0 && done.received > 1000, "{done:?}");
    drop(shared);
    assert_eq!(memory.free_len_bytes(), memory.len_bytes());
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn eight_threads_share_heap_rings_mempool_and_mbufs() {
    stress(Duration::from_secs(2));
}

/// As long as `PACKETBOAT_STRESS_SECONDS` says.
#[test]
#[ignore = "takes as long as PACKETBOAT_STRESS_SECONDS says (600 unless it does)"]
fn stress_for_long() {
    let seconds = std::env::var("PACKETBOAT_STRESS_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(600);
    stress(Duration::from_secs(seconds));
}
