//! What ports are set up with, and their way from configuring to stopping.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use super::*;
use crate::dma::Area;
use crate::mbuf::{MbufPoolConfig, Quiesced};
use crate::memory::{Memory, MemoryConfig};
use crate::net::MacAddress;

/// A device that takes powers of two of receive descriptors, and any number of others.
fn info() -> PortInfo {
    let rx = DescriptorLimits { min: 64, max: 1024, default: 512, power_of_two: true };
    PortInfo {
        device: "nic".to_owned(),
        driver: "test",
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        node: None,
        max_rx_queues: 4,
        max_tx_queues: 2,
        rx_descriptors: rx,
        tx_descriptors: DescriptorLimits { min: 2, max: 100, default: 50, power_of_two: false },
        max_frame_bytes: 1514,
    }
}

fn can() -> Capabilities {
    Capabilities { mtu: Some((68, 9000)), rx_interrupts: true, ..Capabilities::default() }
}

fn config() -> PortConfig {
    PortConfig { rx_queues: 2, tx_queues: 1, ..PortConfig::default() }
}

fn memory() -> Arc<Memory> {
    Memory::reserve(&MemoryConfig::no_huge(2)).unwrap()
}

fn pools(memory: &Arc<Memory>, count: usize) -> Vec<MbufPool> {
    let pool = MbufPool::new(memory, &MbufPoolConfig::new("mbufs", 8)).unwrap();
    vec![pool; count]
}

/// Areas have names of their own.
fn area(memory: &Arc<Memory>) -> Area {
    let name = format!("ring {}", memory.zones().len());
    Area::new(memory, &name, 4096, 64, None).unwrap()
}

fn no_reset() -> Result<Quiesced, PortError> {
    Err(PortError::Device { device: "nic".to_owned(), what: "stuck".to_owned() })
}

fn state(error: &PortError) -> (&'static str, &'static str) {
    match error {
        PortError::State { device, action, state } if device == "nic" => (action, state),
        other => panic!("{other}"),
    }
}

#[test]
fn each_step_is_allowed_in_its_turn_only() {
    let memory = memory();
    let pools = pools(&memory, 2);
    let mut life = Lifecycle::new("nic");
    assert_eq!(state(&life.check_start(&pools).unwrap_err()), ("start", "not configured"));
    assert_eq!(state(&life.stop().unwrap_err()), ("stop", "stopped"));
    assert_eq!(state(&life.must_run("count").unwrap_err()), ("count", "stopped"));
    for round in 0..2 {
        life.check_configure(&config(), &info(), &can()).unwrap();
        life.configured(&config());
        assert_eq!(life.config().unwrap().rx_queues, 2);
        assert_eq!(life.check_start(&pools).unwrap().rx_queues, 2);
        assert!(!life.is_running() && life.running().is_none());
        life.started(round, Shown::default());
        assert_eq!((life.is_running(), life.running()), (true, Some(&round)));
        *life.running_mut().unwrap() += 4;
        *life.must_run("count").unwrap() += 6;
        let again = life.check_configure(&config(), &info(), &can()).unwrap_err();
        assert_eq!(state(&again), ("be configured", "running"));
        assert_eq!(state(&life.check_start(&pools).unwrap_err()), ("start", "running"));
        assert_eq!(life.running(), Some(&(round + 10)));
        life.stop().unwrap();
        assert_eq!(state(&life.stop().unwrap_err()), ("stop", "stopped"));
    }
}

#[test]
fn what_a_port_cannot_do_leaves_its_configuration_as_it_was() {
    let mut life = Lifecycle::<()>::new("nic");
    life.configured(&config());
    let wanted = PortConfig { rx_queues: 5, ..config() };
    let error = life.check_configure(&wanted, &info(), &can()).unwrap_err();
    assert!(matches!(error, PortError::Queues { wanted: 5, most: 4, .. }), "{error}");
    assert_eq!(life.config().unwrap().rx_queues, 2);
}

#[test]
fn there_is_a_pool_for_each_receive_queue() {
    let memory = memory();
    let mut life = Lifecycle::<()>::new("nic");
    life.configured(&config());
    let pools = pools(&memory, 3);
    let error = life.check_start(&pools[..1]).unwrap_err();
    assert_eq!(state(&error), ("start", "short of pools: one a receive queue"));
    life.check_start(&pools).unwrap();
}

#[test]
fn counters_go_on_when_a_port_is_configured_anew() {
    let mut life = Lifecycle::<()>::new("nic");
    life.configured(&config());
    let counts = |life: &Lifecycle<()>| -> Vec<u64> {
        life.counters().read().rx.iter().map(|queue| queue.packets).collect()
    };
    let add = |queue: &Arc<QueueCounters>| queue.packets.add(7);
    life.counters().rx.iter().for_each(add);
    life.configured(&PortConfig { rx_queues: 3, ..config() });
    assert_eq!(counts(&life), [7, 7, 0]);
    life.configured(&PortConfig { rx_queues: 1, ..config() });
    assert_eq!(counts(&life), [7]);
}

#[test]
fn memory_is_free_after_a_reset_and_never_without() {
    let memory = memory();
    let free = memory.free_len_bytes();
    let reset = || Ok(Quiesced::after_reset());
    let run = || {
        let mut life = Lifecycle::new("nic");
        let mut shown = Shown::default();
        shown.push(area(&memory));
        shown.extend([area(&memory), area(&memory)]);
        life.started((), shown);
        life
    };
    run().stop().unwrap().release(reset()).unwrap();
    run().stop().unwrap().release_last(reset());
    assert_eq!(memory.free_len_bytes(), free);
    let error = run().stop().unwrap().release(no_reset()).unwrap_err();
    assert!(error.to_string().contains("stuck"));
    assert_eq!(memory.free_len_bytes(), free - 3 * 4096);
    run().stop().unwrap().release_last(no_reset());
    assert_eq!(memory.free_len_bytes(), free - 6 * 4096);
    drop(run()); // a driver that forgets
    assert_eq!(memory.free_len_bytes(), free - 9 * 4096);
}

#[test]
fn a_device_that_does_not_come_up_gives_back_what_it_had_after_a_reset() {
    let memory = memory();
    let free = memory.free_len_bytes();
    let give_up = |reset| {
        let mut up = BringUp::<_, ()>::default();
        up.shown.push(area(&memory));
        up.rx.extend([0, 1]);
        let mut reclaimed = Vec::new();
        up.give_up(reset, |queue, _| reclaimed.push(queue));
        reclaimed
    };
    assert_eq!(give_up(Ok(Quiesced::after_reset())), [0, 1]);
    assert_eq!(memory.free_len_bytes(), free);
    assert!(give_up(no_reset()).is_empty());
    assert_eq!(memory.free_len_bytes(), free - 4096);
}

fn error(config: &PortConfig) -> String {
    config.check(&info(), &can()).unwrap_err().to_string()
}

#[test]
fn what_fits_is_taken_to_both_ends_of_each_range() {
    for (queues, descriptors, mtu) in [(1, 64, 68), (4, 1024, 9000), (2, 256, 1500)] {
        let config = PortConfig {
            rx_queues: queues,
            tx_queues: queues.min(2),
            rx_descriptors: Some(descriptors),
            tx_descriptors: Some(descriptors.min(100)), // of any number
            mtu: Some(mtu),
            rx_interrupts: true,
            ..config()
        };
        config.check(&info(), &can()).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_says_what_would() {
    for (bad, parts) in [
        (PortConfig { rx_queues: 0, ..config() }, ["0 receive queues", "has 4"]),
        (PortConfig { rx_queues: 5, ..config() }, ["5 receive queues", "has 4"]),
        (PortConfig { tx_queues: 0, ..config() }, ["0 transmit queues", "has 2"]),
        (PortConfig { tx_queues: 3, ..config() }, ["3 transmit queues", "has 2"]),
        (
            PortConfig { rx_descriptors: Some(100), ..config() },
            ["receive queue of 100 descriptors was asked for with --rxd", "two from 64 to 1024"],
        ),
        (
            PortConfig { tx_descriptors: Some(101), ..config() },
            ["transmit queue of 101 descriptors was asked for with --txd", "takes 2 to 100"],
        ),
        (PortConfig { mtu: Some(67), ..config() }, ["MTU of 67", "68 to 9000"]),
        (PortConfig { mtu: Some(9001), ..config() }, ["MTU of 9001", "68 to 9000"]),
    ] {
        let error = error(&bad);
        assert!(error.starts_with("nic: "), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let segment = Offloads { tx_segment: true, ..Offloads::default() };
    let error = error(&PortConfig { offloads: segment, ..config() });
    assert!(error.contains("TCP segmentation offload"), "{error}");
}

#[test]
fn what_a_port_has_none_of_is_not_supported() {
    for (config, can, part) in [
        (
            PortConfig { mtu: Some(1500), ..config() },
            Capabilities { mtu: None, ..can() },
            "another MTU",
        ),
        (
            PortConfig { rx_interrupts: true, ..config() },
            Capabilities { rx_interrupts: false, ..can() },
            "--interrupt-mode",
        ),
    ] {
        let error = config.check(&info(), &can).unwrap_err();
        assert!(matches!(error, PortError::NotSupported { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn each_queue_that_wakes_an_lcore_needs_a_vector_and_the_device_one() {
    let wanted = PortConfig { rx_queues: 3, rx_interrupts: true, ..config() };
    wanted.check_vectors("nic", 4).unwrap();
    let error = wanted.check_vectors("nic", 3).unwrap_err().to_string();
    assert!(error.contains("3 receive queues") && error.contains("3 MSI-X"), "{error}");
    let polled = PortConfig { rx_interrupts: false, ..wanted };
    polled.check_vectors("nic", 0).unwrap();
}
