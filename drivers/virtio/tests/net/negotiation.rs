//! Probing, features, configuring, starting: what the driver takes, and what it says when it
//! can't.

use packetboat::mbuf::MbufPoolConfig;
use packetboat::memory::Memory;
use packetboat::net::MacAddress;
use packetboat::port::{Port, PortConfig, PortError};
use packetboat_virtio::DRIVER;
use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_net as net;

use crate::device::{
    COMMANDS, Capabilities, Faults, KNOWN, NetDevice, Options, RING_RESET, RINGS, bits,
};
use crate::rig::{Rig, bytes_of, config as port_config, frame, memory};

fn probe(device: &NetDevice, memory: &std::sync::Arc<Memory>) -> Result<Box<dyn Port>, PortError> {
    DRIVER.probe(device.function(), memory)
}

/// What probing such a device says.
fn refusal(options: Options) -> String {
    let memory = memory();
    let free = memory.free_len_bytes();
    let device = NetDevice::new(&memory, options);
    let error = probe(&device, &memory).err().expect("it was taken").to_string();
    assert!(error.contains("0000:00:00.0"), "which device? {error}");
    assert_eq!(memory.free_len_bytes(), free, "memory kept");
    error
}

fn without(bit: u32) -> Options {
    Options { offered: KNOWN & !bits(&[bit]), ..Options::default() }
}

#[test]
fn of_all_features_it_takes_those_it_knows() {
    let mut rig = Rig::new(Options { offered: !0, ..Options::default() }, 1024);
    rig.port.configure(&port_config(1, 256, 256)).unwrap();
    rig.start().unwrap();
    assert_eq!(rig.device.driver_features(), KNOWN | RINGS | COMMANDS | RING_RESET);
    assert_eq!(rig.device.status(), 0x0f);
    rig.finish();
}

#[test]
fn it_says_what_the_device_is() {
    let options = Options { queue_size: 300, queue_pairs: 4, mtu: 9000, ..Options::default() };
    let rig = Rig::new(options, 64);
    let info = rig.port.info();
    assert_eq!((info.device.as_str(), info.driver), ("0000:00:00.0", "virtio-net"));
    assert_eq!(info.mac, MacAddress([2, 0, 0, 0, 0, 0x2a]));
    assert_eq!((info.max_rx_queues, info.max_tx_queues), (4, 4));
    assert_eq!((info.rx_descriptors.max, info.tx_descriptors.max), (256, 256));
    assert_eq!(info.max_frame_bytes, 9018);
    rig.finish();
}

#[test]
fn features_it_cant_do_without_are_named() {
    let error = refusal(without(config::VIRTIO_F_VERSION_1));
    assert!(error.contains("VIRTIO_F_VERSION_1"), "{error}");
    let error = refusal(without(config::VIRTIO_F_ACCESS_PLATFORM));
    assert!(error.contains("VIRTIO_F_ACCESS_PLATFORM"), "{error}");
}

#[test]
fn each_other_feature_may_be_missing() {
    for bit in [
        net::VIRTIO_NET_F_MTU,
        net::VIRTIO_NET_F_MAC,
        net::VIRTIO_NET_F_MRG_RXBUF,
        net::VIRTIO_NET_F_STATUS,
        net::VIRTIO_NET_F_CTRL_VQ,
        net::VIRTIO_NET_F_CTRL_RX,
        net::VIRTIO_NET_F_MQ,
    ] {
        let mut rig = Rig::running(without(bit), 256, 64);
        assert_eq!(rig.device.driver_features() & bits(&[bit]), 0);
        assert!(rig.device.receive(0, &frame(60, bit)));
        assert_eq!(rig.received(0).len(), 1, "without feature {bit}");
        assert!(rig.port.link().unwrap().up);
        rig.finish();
    }
}

#[test]
fn a_device_without_an_address_gets_the_same_one_each_time() {
    let address = || {
        let rig = Rig::new(without(net::VIRTIO_NET_F_MAC), 64);
        let mac = rig.port.info().mac;
        rig.finish();
        mac
    };
    let mac = address();
    assert_eq!(mac, address());
    assert_eq!(mac.0[0] & 3, 2, "locally administered, and no group: {mac}");
}

#[test]
fn capabilities_are_chosen_and_checked() {
    let with = |capabilities| Options { capabilities, ..Options::default() };
    Rig::running(with(Capabilities::WithStrangers), 256, 64).finish();
    let error = refusal(with(Capabilities::Legacy));
    assert!(error.contains("legacy-only"), "{error}");
    for capabilities in [Capabilities::BeyondBar, Capabilities::Short, Capabilities::Loop] {
        let error = refusal(with(capabilities));
        assert!(error.contains("capabilit"), "{error}");
    }
}

#[test]
fn a_device_that_is_gone_or_hangs_is_said_to() {
    let memory = memory();
    let device = NetDevice::new(&memory, Options::default());
    device.set_faults(Faults { reset_hangs: true, ..Faults::default() });
    device.add_status(4);
    let error = probe(&device, &memory).err().unwrap().to_string();
    assert!(error.contains("reset"), "{error}");
    device.vanish();
    let error = probe(&device, &memory).err().unwrap().to_string();
    assert!(error.contains("0000:00:00.0"), "{error}");
}

#[test]
fn a_device_that_goes_between_probing_and_starting_is_said_to_be_gone() {
    let mut rig = Rig::new(Options::default(), 256);
    rig.port.configure(&port_config(1, 64, 64)).unwrap();
    rig.device.vanish();
    let error = rig.start().unwrap_err().to_string();
    assert!(error.contains("gone"), "{error}");
    assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0));
}

#[test]
fn a_configuration_that_changes_is_read_again() {
    let memory = memory();
    let device = NetDevice::new(&memory, Options::default());
    device.set_faults(Faults { generation_changes: 7, ..Faults::default() });
    assert_eq!(probe(&device, &memory).unwrap().info().mac.0[5], 0x2a);
    device.set_faults(Faults { generation_changes: u32::MAX, ..Faults::default() });
    let error = probe(&device, &memory).err().unwrap().to_string();
    assert!(error.contains("changes faster"), "{error}");
}

#[test]
fn queue_sizes_are_the_devices_to_limit() {
    for (offered, most) in [(2, 2), (3, 2), (4, 4), (255, 128), (1024, 1024), (32768, 32768)] {
        let rig = Rig::new(Options { queue_size: offered, ..Options::default() }, 64);
        assert_eq!(rig.port.info().rx_descriptors.max, most, "{offered}");
        rig.finish();
    }
    for offered in [0, 1] {
        let error = refusal(Options { queue_size: offered, ..Options::default() });
        assert!(error.contains("at least 2"), "{error}");
    }
}

#[test]
fn what_was_asked_is_what_the_device_gets() {
    let mut rig = Rig::new(Options { queue_pairs: 3, ..Options::default() }, 512);
    rig.port.configure(&port_config(3, 32, 8)).unwrap();
    rig.start().unwrap();
    assert_eq!(
        (0..6).map(|index| rig.device.queue_size(index)).collect::<Vec<_>>(),
        [32, 8, 32, 8, 32, 8]
    );
    assert_eq!(rig.device.active_pairs(), 3);
    assert_eq!((rig.queues.rx.len(), rig.queues.tx.len()), (3, 3));
    rig.finish();
}

#[test]
fn impossible_settings_name_the_option_and_the_limit() {
    let mut rig = Rig::new(Options { queue_pairs: 2, ..Options::default() }, 64);
    let mut error =
        |queues, rx, tx| rig.port.configure(&port_config(queues, rx, tx)).unwrap_err().to_string();
    for queues in [0, 3, u16::MAX] {
        let error = error(queues, 64, 64);
        assert!(error.contains("2 at most"), "{error}");
    }
    for wrong in [0, 1, 3, 100, 257, 512, u16::MAX] {
        let (rx, tx) = (error(1, wrong, 64), error(1, 64, wrong));
        assert!(rx.contains("--rxd") && rx.contains("2 to 256"), "{rx}");
        assert!(tx.contains("--txd") && tx.contains("2 to 256"), "{tx}");
    }
    rig.finish();
}

#[test]
fn each_thing_in_its_state() {
    let mut rig = Rig::new(Options::default(), 512);
    let is_state = |result: Result<(), PortError>| matches!(result, Err(PortError::State { .. }));
    assert!(is_state(rig.start()), "not configured");
    assert!(is_state(rig.stop()), "not started");
    assert!(is_state(rig.port.set_promiscuous(true)));
    let config = port_config(1, 64, 64);
    rig.port.configure(&config).unwrap();
    rig.start().unwrap();
    assert!(is_state(rig.port.configure(&config)), "running");
    let pools = [rig.pool.clone()];
    assert!(matches!(rig.port.start(&pools), Err(PortError::State { .. })), "running");
    rig.stop().unwrap();
    assert!(is_state(rig.stop()), "stopped already");
    assert!(is_state(rig.port.set_all_multicast(true)));
    rig.finish();
}

#[test]
fn an_mtu_is_taken_where_frames_so_long_can_be_received() {
    let with = |mtu| PortConfig { mtu: Some(mtu), ..port_config(1, 64, 64) };
    let mtu_error = |result: Result<(), PortError>, words: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, PortError::Mtu { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("--mtu") && error.contains(words), "{error}");
    };
    // The device says how much it takes.
    let mut rig = Rig::new(Options { mtu: 9000, ..Options::default() }, 256);
    assert_eq!(rig.port.capabilities().mtu, Some((68, 9000)));
    mtu_error(rig.port.configure(&with(9001)), "68 to 9000");
    mtu_error(rig.port.configure(&with(67)), "68 to 9000");
    for mtu in [68, 1500, 9000] {
        rig.port.configure(&with(mtu)).unwrap();
        rig.start().unwrap();
        let long = frame(usize::from(mtu) + 18, mtu.into());
        assert!(rig.device.receive(0, &long));
        assert_eq!(bytes_of(&rig.received(0).as_slice()[0]), long);
        rig.stop().unwrap();
    }
    rig.finish();
    // It doesn't: what can be received decides.
    let mut rig = Rig::new(without(net::VIRTIO_NET_F_MTU), 256);
    assert_eq!(rig.port.capabilities().mtu, Some((68, 65517)));
    mtu_error(rig.port.configure(&with(65518)), "68 to 65517");
    rig.port.configure(&with(65517)).unwrap();
    rig.start().unwrap();
    rig.finish();
    // Buffers of one pool are as long as those of another aren't.
    let single = || without(net::VIRTIO_NET_F_MRG_RXBUF);
    let mut rig = Rig::new(Options { mtu: 9000, ..single() }, 256);
    rig.port.configure(&with(2030)).unwrap();
    rig.start().unwrap();
    let longest = frame(2048, 1);
    assert!(rig.device.receive(0, &longest));
    assert_eq!(bytes_of(&rig.received(0).as_slice()[0]), longest);
    rig.stop().unwrap();
    rig.port.configure(&with(2031)).unwrap();
    mtu_error(rig.start(), "2049 bytes don't fit into mbufs of 2048");
    assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0));
    rig.finish();
    let pool = MbufPoolConfig { data_room_bytes: 9146, ..MbufPoolConfig::new("long", 128) };
    let mut rig = Rig::with_pool(Options { mtu: 9000, ..single() }, &pool);
    rig.port.configure(&with(9000)).unwrap();
    rig.start().unwrap();
    assert!(rig.device.receive(0, &frame(9018, 1)));
    assert_eq!(bytes_of(&rig.received(0).as_slice()[0]), frame(9018, 1));
    rig.finish();
}

/// A start that fails leaves the port stopped, gives everything back, and can be tried again.
#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let faults = [
        (Faults { refuses_features: true, ..Faults::default() }, "refused the features"),
        (Faults { keeps_queue_size: true, ..Faults::default() }, "read back"),
        (Faults { doorbell_beyond: true, ..Faults::default() }, "outside"),
        (Faults { refuses_commands: true, ..Faults::default() }, "VQ_PAIRS_SET"),
        (Faults { ignores_commands: true, ..Faults::default() }, "didn't answer"),
    ];
    let mut rig = Rig::new(Options { queue_pairs: 2, ..Options::default() }, 512);
    rig.port.configure(&port_config(2, 64, 64)).unwrap();
    for (fault, expected) in faults {
        rig.device.set_faults(fault);
        let error = rig.start().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} isn't in: {error}");
        assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0), "{expected}");
        assert!(!rig.device.bus_master(), "{expected}");
    }
    rig.device.set_faults(Faults::default());
    rig.start().unwrap();
    rig.finish();
}

#[test]
fn a_pool_that_is_too_small_is_named_with_the_option() {
    let mut rig = Rig::with_pool(Options::default(), &MbufPoolConfig::new("few", 100));
    rig.port.configure(&port_config(1, 128, 64)).unwrap();
    let error = rig.start().unwrap_err();
    assert!(matches!(error, PortError::Mbufs { wanted: 128, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("few") && error.contains("--mbufs"), "{error}");
    assert_eq!((rig.pool.objects().in_use(), rig.pool.leaked()), (0, 0));
    rig.port.configure(&port_config(1, 64, 64)).unwrap();
    rig.start().unwrap();
    rig.finish();
}

#[test]
fn the_link_is_seen_and_its_changes_told() {
    let mut rig = Rig::running(Options::default(), 256, 64);
    assert!(rig.port.link().unwrap().up);
    assert!(!rig.port.link_changed());
    for up in [false, true, false] {
        rig.device.set_link(up);
        assert!(rig.port.link_changed(), "no interrupt");
        assert!(!rig.port.link_changed(), "told twice");
        assert_eq!(rig.port.link().unwrap().up, up);
    }
    rig.finish();
    // Without a vector there is nothing to wait for: ask now and then.
    for (options, faults) in [
        (Options { msix_vectors: 0, ..Options::default() }, Faults::default()),
        (Options::default(), Faults { no_config_vector: true, ..Faults::default() }),
    ] {
        let mut rig = Rig::new(options, 256);
        rig.port.configure(&port_config(1, 64, 64)).unwrap();
        rig.device.set_faults(faults);
        rig.start().unwrap();
        rig.device.set_link(false);
        assert!(rig.port.link_changed() && rig.port.link_changed());
        assert!(!rig.port.link().unwrap().up);
        rig.finish();
    }
}

#[test]
fn filters_are_set_where_the_device_has_them() {
    let mut rig = Rig::running(Options::default(), 256, 64);
    rig.port.set_promiscuous(true).unwrap();
    assert_eq!(rig.device.filters(), (true, false));
    for on in [true, false] {
        for _ in 0..50 {
            rig.port.set_all_multicast(on).unwrap(); // more often than the queue has entries
        }
        rig.port.set_promiscuous(!on).unwrap();
        assert_eq!(rig.device.filters(), (!on, on));
    }
    rig.device.set_faults(Faults { refuses_commands: true, ..Faults::default() });
    let error = rig.port.set_promiscuous(true).unwrap_err().to_string();
    assert!(error.contains("VIRTIO_NET_CTRL_RX_PROMISC"), "{error}");
    rig.device.set_faults(Faults { ignores_commands: true, ..Faults::default() });
    let error = rig.port.set_promiscuous(true).unwrap_err().to_string();
    assert!(error.contains("didn't answer"), "{error}");
    // The unanswered command's buffer is still the device's: no second one is given.
    rig.device.set_faults(Faults::default());
    assert!(rig.port.set_promiscuous(true).is_err());
    rig.stop().unwrap();
    rig.start().unwrap();
    rig.port.set_promiscuous(true).unwrap();
    rig.finish();

    let mut rig = Rig::running(without(net::VIRTIO_NET_F_CTRL_RX), 256, 64);
    let error = rig.port.set_promiscuous(true).unwrap_err();
    assert!(matches!(error, PortError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("VIRTIO_NET_F_CTRL_RX"), "{error}");
    rig.finish();
}

#[test]
fn a_wish_for_removal_is_passed_on() {
    let rig = Rig::running(Options::default(), 256, 64);
    assert!(!rig.port.removed());
    rig.device.request_removal();
    assert!(rig.port.removed());
    rig.finish();
}
