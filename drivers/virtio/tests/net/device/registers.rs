//! The registers behind the BAR (virtio 1.3, 4.1.4.3 to 4.1.4.6, and 5.1.4).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use packetboat::mmio::{RegionIo, Width};
use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_net as net;
use virtio_queue::QueueT;

use super::config_space::{COMMON, DEVICE, ISR, NOTIFY, NOTIFY_LEN_BYTES, NOTIFY_MULTIPLIER};
use super::{STATUS_DRIVER_OK, Shared, State};

pub(super) struct Bar(pub(super) Arc<Shared>);

const STATUS_FEATURES_OK: u8 = config::VIRTIO_CONFIG_S_FEATURES_OK as u8;
const NO_VECTOR: u16 = 0xffff;

impl RegionIo for Bar {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if self.0.is_gone() {
            return !0 >> (64 - 8 * width.len_bytes());
        }
        let mut state = self.0.state();
        match offset {
            COMMON..ISR => self.read_common(&mut state, offset - COMMON, width),
            ISR => 0,
            DEVICE..NOTIFY => self.read_device(&state, offset - DEVICE, width),
            _ => {
                state.violated(format!("read of {offset:#x}"));
                0
            }
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if self.0.is_gone() {
            return;
        }
        if offset >= NOTIFY {
            return self.notify(offset - NOTIFY, width, value);
        }
        let mut state = self.0.state();
        match offset {
            COMMON..ISR => self.write_common(&mut state, offset - COMMON, width, value),
            _ => state.violated(format!("write of {value:#x} to {offset:#x}")),
        }
    }
}

impl Bar {
    fn read_common(&self, state: &mut State, offset: u64, width: Width) -> u64 {
        let selected = usize::from(state.queue_select);
        let queue = state.queues.get(selected);
        let (value, expected): (u64, Width) = match offset {
            0 => (state.device_feature_select.into(), Width::U32),
            4 => {
                let half = match state.device_feature_select {
                    0 => self.0.options.offered & 0xffff_ffff,
                    1 => self.0.options.offered >> 32,
                    _ => 0,
                };
                (half, Width::U32)
            }
            16 => (state.config_vector.into(), Width::U16),
            18 => (state.queues.len() as u64, Width::U16),
            20 => (state.status.into(), Width::U8),
            21 => {
                if state.faults.generation_changes > 0 {
                    state.faults.generation_changes -= 1;
                    state.generation = state.generation.wrapping_add(1);
                }
                (state.generation.into(), Width::U8)
            }
            22 => (state.queue_select.into(), Width::U16),
            24 => (queue.map_or(0, |queue| queue.size).into(), Width::U16),
            26 => (queue.map_or(NO_VECTOR, |queue| queue.vector).into(), Width::U16),
            28 => (queue.is_some_and(|queue| queue.enabled).into(), Width::U16),
            30 => {
                let beyond = NOTIFY_LEN_BYTES / NOTIFY_MULTIPLIER;
                let at = if state.faults.doorbell_beyond { beyond } else { selected as u64 };
                (at, Width::U16)
            }
            58 => (0, Width::U16), // a reset takes no time here
            _ => {
                state.violated(format!("read of common configuration at {offset}"));
                (0, width)
            }
        };
        if width != expected {
            state.violated(format!("common configuration at {offset} read as {width:?}"));
        }
        value
    }

    fn write_common(&self, state: &mut State, offset: u64, width: Width, value: u64) {
        let expected = match offset {
            20 | 21 => Width::U8,
            16..32 | 56.. => Width::U16,
            _ => Width::U32,
        };
        if width != expected {
            state.violated(format!("common configuration at {offset} written as {width:?}"));
        }
        match offset {
            0 => state.device_feature_select = value as u32,
            8 => state.driver_feature_select = value as u32,
            12 => self.accept_features(state, value),
            16 => {
                let known = value < u64::from(self.0.options.msix_vectors);
                let taken = known && !state.faults.no_config_vector;
                state.config_vector = if taken { value as u16 } else { NO_VECTOR };
            }
            20 => self.set_status(state, value as u8),
            22 => state.queue_select = value as u16,
            24..56 => self.write_queue(state, offset, value),
            58 => self.reset_queue(state, value),
            _ => state.violated(format!("write of common configuration at {offset}")),
        }
    }

    fn accept_features(&self, state: &mut State, half: u64) {
        if state.status & STATUS_FEATURES_OK != 0 {
            state.violated("features written after FEATURES_OK");
        }
        let shift = match state.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        state.driver_features &= !(0xffff_ffff << shift);
        state.driver_features |= half << shift;
    }

    fn set_status(&self, state: &mut State, status: u8) {
        if status == 0 {
            if !state.faults.reset_hangs {
                state.reset(&self.0.options);
            }
            return;
        }
        if state.status & !status != 0 {
            state.violated(format!("status bits taken back: {:#x} {status:#x}", state.status));
        }
        let mut status = status;
        if status & !state.status & STATUS_FEATURES_OK != 0 {
            let unknown = state.driver_features & !self.0.options.offered;
            if unknown != 0 {
                state.violated(format!("features that weren't offered: {unknown:#x}"));
            }
            if state.faults.refuses_features || unknown != 0 {
                status &= !STATUS_FEATURES_OK;
            }
        }
        if status & STATUS_DRIVER_OK != 0 && status & STATUS_FEATURES_OK == 0 {
            state.violated("DRIVER_OK without FEATURES_OK");
        }
        state.status = status;
    }

    /// The selected queue is as new, and the others go on.
    fn reset_queue(&self, state: &mut State, value: u64) {
        let selected = usize::from(state.queue_select);
        let ready = state.may_dma() && state.negotiated(config::VIRTIO_F_RING_RESET);
        if !ready || value != 1 || !state.queues.get(selected).is_some_and(|queue| queue.enabled) {
            return state.violated(format!("queue {selected} reset with {value}"));
        }
        state.queues[selected] = super::VirtQueue::new(self.0.options.queue_size);
        state.queue_resets.push(selected);
    }

    /// The registers of the selected queue, and its start.
    fn write_queue(&self, state: &mut State, offset: u64, value: u64) {
        let selected = usize::from(state.queue_select);
        let keeps_size = state.faults.keeps_queue_size;
        let ready = state.status & STATUS_FEATURES_OK != 0;
        let Some(queue) = state.queues.get_mut(selected) else {
            return state.violated(format!("queue {selected} written to, which isn't there"));
        };
        if queue.enabled {
            return state.violated(format!("queue {selected} changed while enabled"));
        }
        match offset {
            24 if keeps_size => {}
            24 => queue.size = value as u16,
            26 => queue.vector = value as u16,
            28 => {
                let [descriptors, driver, device] =
                    queue.addresses.map(|[low, high]| u64::from(high) << 32 | u64::from(low));
                // The oracle takes powers of two within its limit only, and aligned addresses.
                let taken = queue.queue.try_set_size(queue.size).is_ok()
                    && queue
                        .queue
                        .try_set_desc_table_address(vm_memory::GuestAddress(descriptors))
                        .is_ok()
                    && queue
                        .queue
                        .try_set_avail_ring_address(vm_memory::GuestAddress(driver))
                        .is_ok()
                    && queue
                        .queue
                        .try_set_used_ring_address(vm_memory::GuestAddress(device))
                        .is_ok();
                queue.queue.set_ready(true);
                let valid = taken && queue.queue.is_valid(&self.0.memory);
                queue.enabled = value == 1;
                if !valid || !ready || value != 1 {
                    state.violated(format!("queue {selected} enabled with what it can't have"));
                }
            }
            32..56 => {
                let half = (offset - 32) / 4;
                queue.addresses[(half / 2) as usize][(half % 2) as usize] = value as u32;
            }
            _ => state.violated(format!("write of common configuration at {offset}")),
        }
    }

    /// `struct virtio_net_config`.
    fn read_device(&self, state: &State, offset: u64, width: Width) -> u64 {
        let mut bytes = [0; 24];
        bytes[..6].copy_from_slice(&self.0.options.mac);
        let status = u16::from(state.link_up) | u16::from(state.announce) << 1;
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[17..20].copy_from_slice(&[40, 16, 0]); // RSS: bytes of a key, entries of a table
        bytes[20..24].copy_from_slice(&0x1ff_u32.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.0.options.queue_pairs.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.0.options.mtu.to_le_bytes());
        let from = offset as usize;
        let field = bytes.get(from..from + width.len_bytes()).unwrap_or(&[]);
        field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn notify(&self, offset: u64, width: Width, value: u64) {
        self.0.kicks.fetch_add(1, Ordering::Relaxed);
        let index = (offset / NOTIFY_MULTIPLIER) as usize;
        if !offset.is_multiple_of(NOTIFY_MULTIPLIER) || width != Width::U16 || value != index as u64
        {
            self.0
                .state()
                .violated(format!("doorbell {offset:#x} rung with {value:#x}, {width:?}"));
        }
        // The others are looked at when the test says so. Their doorbells take no lock, which
        // would keep lcores and device from running at the same time.
        if index >= 2 * usize::from(self.0.options.queue_pairs) || index == 2 {
            let mut state = self.0.state();
            let many =
                state.negotiated(net::VIRTIO_NET_F_MQ) || state.negotiated(net::VIRTIO_NET_F_RSS);
            let control = if many { 2 * usize::from(self.0.options.queue_pairs) } else { 2 };
            if !state.may_dma() {
                state.violated(format!("doorbell {index} rung before DRIVER_OK"));
            } else if index == control && state.negotiated(net::VIRTIO_NET_F_CTRL_VQ) {
                state.answer_commands(control, &self.0.memory);
            }
        }
    }
}
