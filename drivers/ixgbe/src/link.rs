//! The link: brought up, looked at, and its pause frames (82599 datasheet 4.6.4, 3.7).

use std::time::Duration;

use packetboat::port::{FlowControl, Link, PortError};

use crate::Media;
use crate::bar::Bar;
use crate::clock::sleep;
use crate::eeprom::{self, Shared};
use crate::registers::{
    ANLP1, AUTOC, AUTOC2, ESDP, FCCFG, FCRTH, FCRTL, FCRTV, FCTTV, LEDCTL, LINKS, MFLCN, RXPBSIZE,
    STATUS, TFCS,
};
use crate::sfp::{self, Module};

/// AUTOC: restart, and the link's mode.
const RESTART: u32 = 1 << 12;
const MODE_MASK: u32 = 7 << 13;
const MODE_10G_SERIAL: u32 = 3 << 13;
const MODE_1G_AN: u32 = 2 << 13;
/// AUTOC2: the EEPROM keeps the link down.
const LINK_DISABLED: u32 = 7 << 28;
/// ANLP1: how far negotiation is; not 0 once it began.
const NEGOTIATING: u32 = 0xf << 16;
const NEGOTIATION_TRIES: u32 = 10;
const NEGOTIATION_STEP: Duration = Duration::from_millis(4);
/// ESDP: pin 3 turns the laser off, as an output (its direction is bit 11).
const LASER_OFF: u32 = 1 << 3;

/// LINKS.
const UP: u32 = 1 << 30;
const SPEED_MASK: u32 = 3 << 28;
const SPEED_10G: u32 = 3 << 28;
const SPEED_1G: u32 = 2 << 28;
const SPEED_100M: u32 = 1 << 28;

/// Whether it is the second port of its controller.
pub(crate) fn is_second_port(bar: &Bar) -> bool {
    bar.read(STATUS) >> 2 & 1 != 0
}

/// Sets the link up (4.6.4). For an SFP+ that is the module's set-up first; without a module there
/// is nothing to be set up, and no link.
pub(crate) fn set_up(bar: &Bar, media: Media) -> Result<Option<Module>, PortError> {
    if bar.read(AUTOC2) & LINK_DISABLED != 0 {
        bar.change(AUTOC2, LINK_DISABLED, 0);
    }
    match media {
        // Its PHY negotiates by itself, as its firmware has set it up.
        Media::Copper => Ok(None),
        Media::Backplane | Media::Fixed => {
            let _held = eeprom::hold(bar, Shared::Mac)?;
            bar.change(AUTOC, 0, RESTART);
            Ok(None)
        }
        Media::Sfp => {
            let second = is_second_port(bar);
            let Some(module) = sfp::identify(bar, second)? else {
                tracing::warn!("{}: no SFP+ module is plugged in, so there is no link", bar.name());
                return Ok(None);
            };
            tracing::debug!("{}: a {module}", bar.name());
            sfp::set_up(bar, module, second)?;
            bar.change(ESDP, LASER_OFF, 0);
            let mode = match module {
                Module::Gigabit { .. } => MODE_1G_AN,
                Module::DirectAttach | Module::Optical => MODE_10G_SERIAL,
            };
            let _held = eeprom::hold(bar, Shared::Mac)?;
            bar.change(AUTOC, MODE_MASK, mode | RESTART);
            // The state moves on once the data path has been reset.
            let mut tries = NEGOTIATION_TRIES;
            while bar.read(ANLP1) & NEGOTIATING == 0 && tries != 0 {
                sleep(NEGOTIATION_STEP);
                tries -= 1;
            }
            Ok(Some(module))
        }
    }
}

/// The link as it is now.
pub(crate) fn look(bar: &Bar) -> Link {
    let links = bar.read(LINKS);
    if links & UP == 0 || links == u32::MAX {
        return Link { up: false, speed_mbps: None, full_duplex: None };
    }
    let speed_mbps = match links & SPEED_MASK {
        SPEED_10G => Some(10_000),
        SPEED_1G => Some(1_000),
        SPEED_100M => Some(100),
        _ => None,
    };
    Link { up: true, speed_mbps, full_duplex: Some(true) }
}

/// Pause frames: dropped by the MAC rather than received; heeded; sent.
const DROP_PAUSE: u32 = 1 << 1;
const HEED_PAUSE: u32 = 1 << 3;
const SEND_PAUSE: u32 = 1 << 3;
const THRESHOLD_ON: u32 = 1 << 31;
/// Between the buffer's end and the high mark stays room for what is under way, and for the
/// transmit switch (3.7.7.3.2).
const ROOM_BYTES: u32 = 24 * 1024;
/// In units of 512 bit times.
const PAUSE_TIME: u32 = 0x680;

/// Sets which pause frames are heeded and sent (3.7.7.3).
pub(crate) fn set_flow_control(bar: &Bar, wanted: FlowControl) {
    bar.change(MFLCN, HEED_PAUSE, DROP_PAUSE | if wanted.heed { HEED_PAUSE } else { 0 });
    bar.change(FCCFG, 3 << 3, if wanted.send { SEND_PAUSE } else { 0 });
    let high = bar.read(RXPBSIZE).saturating_sub(ROOM_BYTES);
    if wanted.send {
        bar.write(FCRTL, (high - high / 4) & !0x1f | THRESHOLD_ON);
        bar.write(FCRTH, high & !0x1f | THRESHOLD_ON);
    } else {
        bar.write(FCRTL, 0);
        bar.write(FCRTH, high & !0x1f);
    }
    for pair in 0..FCTTV.count() {
        bar.write_at(FCTTV, pair, PAUSE_TIME | PAUSE_TIME << 16);
    }
    bar.write(FCRTV, PAUSE_TIME / 2);
}

/// TFCS: frames may leave.
const MAY_SEND: u32 = 1 << 0;

/// Whether the other side holds this one's frames back, with pause frames that are heeded.
pub(crate) fn is_paused(bar: &Bar) -> bool {
    bar.read(MFLCN) & HEED_PAUSE != 0 && bar.read(TFCS) & MAY_SEND == 0
}

/// The LED that shows activity, of four; on, and blinking.
const LED: u32 = 2;
const LED_MASK: u32 = 0xff << (8 * LED);
const LED_BLINK: u32 = 0x8e << (8 * LED);

/// Lets the LED blink; gives what it did before.
pub(crate) fn blink(bar: &Bar) -> u32 {
    let before = bar.read(LEDCTL);
    bar.write(LEDCTL, before & !LED_MASK | LED_BLINK);
    before & LED_MASK
}

/// The LED does what it did before.
pub(crate) fn stop_blinking(bar: &Bar, before: u32) {
    bar.change(LEDCTL, LED_MASK, before & LED_MASK);
}
