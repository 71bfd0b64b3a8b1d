//! Clients that break every rule: each gets an error, or loses its connection; softnic lives on and
//! serves the next one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod client;

use std::io::Write;
use std::os::fd::AsFd;

use client::{Client, Forwarder, IOVA, Memory, Softnic, message, receive, send, words};
use packetboat::sys::memfd;
use packetboat_softnic::device::WhenFull;
use packetboat_softnic::nic::Manner;
use packetboat_softnic::registers::{TABLE, at};

const MANNER: Manner = Manner { share_pages: false, busy: false };

fn softnic() -> Softnic {
    Softnic::start("reflect", WhenFull::Drop, MANNER)
}

fn works(softnic: &Softnic) {
    let mut client = softnic.client();
    assert_eq!(client.read(at::FWSM), 0x8000);
}

/// xorshift, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn bytes_that_are_no_message_end_the_connection() {
    let softnic = softnic();
    let short = |len: u32| {
        let mut bytes = message(1, 1, 0, &[]);
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    for bytes in [
        short(0),
        short(15),
        short(u32::MAX),
        message(1, 1, 1, &[0; 4]),                // a reply
        message(1, 1, 0, &[]),                    // no version
        message(1, 1, 0, &[9, 0, 0, 0]),          // another major version
        message(1, 1, 0, &[0, 0, 1, 0, 0xff, 0]), // not text
        message(1, 4, 0, &words(&[16, 0, 0, 0])), // before the version
    ] {
        let stream = softnic.stream();
        assert!(send(&stream, &bytes, &[]));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answers = 0;
        loop {
            match receive(&stream) {
                Err(None) => break,
                Err(Some(errno)) => assert_eq!(errno, 22),
                Ok(_) => panic!("{bytes:?} was accepted"),
            }
            answers += 1;
            assert!(answers < 2);
        }
        works(&softnic);
    }
}

#[test]
fn random_bytes_random_messages_and_half_messages() {
    let softnic = softnic();
    let mut random = Random(0x5eed);
    for round in 0..300 {
        let mut stream = softnic.stream();
        if round % 3 == 0 {
            let bytes: Vec<u8> = (0..random.next() % 200).map(|_| random.next() as u8).collect();
            let _ = stream.write_all(&bytes);
            continue;
        }
        let client = Client::new(stream);
        for _ in 0..20 {
            let command = (random.next() % 18) as u16;
            let body: Vec<u8> =
                (0..random.next() % 60).map(|_| (random.next() % 5) as u8).collect();
            let mut bytes = message(1, command, if round % 2 == 0 { 0x10 } else { 0 }, &body);
            if random.next().is_multiple_of(30) {
                bytes.truncate(random.next() as usize % bytes.len());
            }
            if !send(&client.stream, &bytes, &[]) {
                break;
            }
        }
    }
    works(&softnic);
}

#[test]
fn descriptors_that_are_not_what_they_should_be() {
    let softnic = softnic();
    let mut client = softnic.client();
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(client.map(IOVA, 4096, reader.as_fd()), Err(Some(22)));
    let open = memfd::create("open", None).unwrap();
    memfd::allocate(open.as_fd(), 4096).unwrap();
    assert_eq!(client.map(IOVA, 4096, open.as_fd()), Err(Some(1)), "its size isn't sealed");
    let memory = Memory::new(8192);
    assert_eq!(client.map(IOVA, 1 << 40, memory.file.as_fd()), Err(Some(22)));
    assert_eq!(client.map(IOVA + 1, 4096, memory.file.as_fd()), Err(Some(22)));
    assert_eq!(client.map(u64::MAX - 4095, 8192, memory.file.as_fd()), Err(Some(22)));
    client.map(IOVA, 8192, memory.file.as_fd()).unwrap();
    assert_eq!(client.map(IOVA + 4096, 4096, memory.file.as_fd()), Err(Some(17)));
    // An interrupt's descriptor that isn't an eventfd.
    let set = words(&[20, 0x24, 2, 0, 1]);
    assert_eq!(client.ask(8, &set, &[reader.as_fd()]).map(|_| ()), Err(Some(22)));
    assert_eq!(client.ask(8, &words(&[20, 0x24, 2, 60, 9]), &[]).map(|_| ()), Err(Some(22)));
    assert_eq!(client.region(0, (512 << 10) - 2, 4).map(|_| ()), Err(Some(22)));
    assert_eq!(client.region(7, 0, u32::MAX).map(|_| ()), Err(Some(22)));
    assert_eq!(client.region(0, u64::MAX, 4).map(|_| ()), Err(Some(22)));
    // More descriptors than any message has.
    let many = vec![reader.as_fd(); 30];
    assert_eq!(client.ask(4, &words(&[16, 0, 0, 0]), &many).map(|_| ()), Err(None));
    works(&softnic);
}

#[test]
fn registers_and_descriptors_full_of_nonsense() {
    let softnic = softnic();
    let mut random = Random(0xbad);
    for _ in 0..30 {
        let mut client = softnic.client();
        let memory = Memory::new(1 << 16);
        for n in 0..memory.region.size() / 8 {
            let word = match random.next() % 4 {
                0 => IOVA + random.next() % (1 << 16),
                1 => random.next(),
                // Something like a transmit descriptor.
                _ => random.next() & 0xff00_0fff | 0x2130_0000 | random.next() & 0xfff << 40,
            };
            memory.word(8 * n).store(word, std::sync::atomic::Ordering::Relaxed);
        }
        client.map(IOVA, 1 << 16, memory.file.as_fd()).unwrap();
        client.switch_on();
        client.write(at::RXCTRL, 1);
        for queue in 0..4 {
            for base in [at::RDBAL, at::TDBAL] {
                let base = base + 0x40 * queue;
                client.write(base, IOVA as u32 + (random.next() as u32 % (1 << 16)));
                client.write(base + 4, 1);
                client.write(base + 8, 128 << (random.next() % 5));
                client.write(base + 0x14, random.next() as u32);
                client.write(base + 0x28, 1 << 25 | random.next() as u32 & 1 << 30);
                client.write(base + 0x18, random.next() as u32 % 64);
            }
        }
        for _ in 0..200 {
            let register = &TABLE[random.next() as usize % TABLE.len()];
            let n = random.next() as u32 % register.count;
            let offset = register.offset + n * register.stride;
            if random.next().is_multiple_of(2) {
                client.write(offset, random.next() as u32);
            } else {
                client.read(offset);
            }
        }
        for queue in 0..4 {
            client.write(at::TDT + 0x40 * queue, random.next() as u32 % 300);
        }
    }
    works(&softnic);
    // And it still moves frames.
    let softnic = Softnic::start("gen:frames=100", WhenFull::Wait, MANNER);
    let mut client = softnic.client();
    let mut forwarder = Forwarder::new(&mut client, 64, false);
    let begin = std::time::Instant::now();
    while forwarder.forwarded < 100 && begin.elapsed().as_secs() < 10 {
        forwarder.poll(&mut client);
    }
    assert_eq!(forwarder.forwarded, 100);
}

#[test]
fn a_client_may_go_at_any_time_and_another_come() {
    let softnic = Softnic::start("gen:size=60", WhenFull::Wait, MANNER);
    for _ in 0..20 {
        let mut client = softnic.client();
        let mut forwarder = Forwarder::new(&mut client, 64, false);
        for _ in 0..20 {
            forwarder.poll(&mut client);
        }
        // Dropped in mid-traffic, memory and all.
    }
    works(&softnic);
    assert!(softnic.nic.device().memory.is_empty() || softnic.nic.device().memory.len() == 1);
}
