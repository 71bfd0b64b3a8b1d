//! The EEPROM (82599 datasheet, chapter 6), and the semaphores around what firmware shares with
//! software.

use std::time::Duration;

use packetboat::port::PortError;

use crate::bar::Bar;
use crate::clock::{Instant, sleep};
use crate::registers::{EEC, EERD, GSSR, SWSM, SWSM_SET};

/// EEPROM control: one is there; the device has read it.
const PRESENT: u32 = 1 << 8;
pub(crate) const AUTO_READ_DONE: u32 = 1 << 9;
/// EEPROM read.
const START: u32 = 1 << 0;
const DONE: u32 = 1 << 1;
const READ_LIMIT: Duration = Duration::from_millis(50);

/// The sum of all checked words (6.3.2.9).
const SUM: u16 = 0xbaba;
/// Words 0 to 0x3e are checked, and word 0x3f is the rest.
const CHECKSUM: u16 = 0x3f;
/// Pointers to sections that are checked, too: from the PCIe analog section to the last before the
/// firmware's.
const SECTIONS: std::ops::Range<u16> = 3..0xf;
/// The most words of a section: EERD has 14 bits for an address.
const WORDS: u32 = 1 << 14;

/// Reads word `address`.
pub(crate) fn read(bar: &Bar, address: u16) -> Result<u16, PortError> {
    if u32::from(address) >= WORDS {
        return Err(bar.fault(format!("its EEPROM points to word {address:#x}, which there isn't")));
    }
    bar.write(EERD, u32::from(address) << 2 | START);
    let what = "its EEPROM doesn't answer";
    bar.await_bits((EERD, 0), DONE, true, READ_LIMIT, what)?;
    Ok((bar.read(EERD) >> 16) as u16)
}

/// Whether the EEPROM is there and its contents add up. The device loads its address from it, so
/// one that doesn't add up is nothing to go by.
pub(crate) fn check(bar: &Bar) -> Result<(), PortError> {
    if bar.read(EEC) & PRESENT == 0 {
        return Err(bar.fault("it has no EEPROM, and so no address"));
    }
    let mut sum: u16 = 0;
    for address in 0..=CHECKSUM {
        sum = sum.wrapping_add(read(bar, address)?);
    }
    for pointer in SECTIONS {
        let section = read(bar, pointer)?;
        if matches!(section, 0 | 0xffff) {
            continue;
        }
        let len = read(bar, section)?;
        if matches!(len, 0 | 0xffff) {
            continue;
        }
        let end = u32::from(section) + u32::from(len);
        if end >= WORDS {
            return Err(
                bar.fault(format!("its EEPROM's section {pointer} would reach to word {end:#x}"))
            );
        }
        for address in section + 1..=section + len {
            sum = sum.wrapping_add(read(bar, address)?);
        }
    }
    if sum == SUM {
        return Ok(());
    }
    Err(bar.fault(format!(
        "its EEPROM's checksum is wrong: the words add up to {sum:#06x}, wanted {SUM:#06x}"
    )))
}

/// What software and firmware take turns at (8.2.3.4, GSSR).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shared {
    /// The PHY or SFP+ of port 0 or 1.
    Phy(bool),
    /// The MAC's link registers.
    Mac,
}

impl Shared {
    fn bit(self) -> u32 {
        match self {
            Self::Phy(false) => 1 << 1,
            Self::Phy(true) => 1 << 2,
            Self::Mac => 1 << 3,
        }
    }
}

/// Between software's bits and firmware's.
const FIRMWARE_SHIFT: u32 = 5;
/// Drivers of the two ports; software and firmware.
const BETWEEN_PORTS: u32 = 1 << 0;
const WITH_FIRMWARE: u32 = 1 << 1;
const SEMAPHORE_LIMIT: Duration = Duration::from_secs(1);
const SEMAPHORE_STEP: Duration = Duration::from_millis(5);

/// Holds a resource until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    bar: &'a Bar,
    what: Shared,
}

/// Takes a resource (10.5.4). One that is held for a second is held by somebody who has gone: it is
/// taken all the same.
pub(crate) fn hold(bar: &Bar, what: Shared) -> Result<Held<'_>, PortError> {
    let start = Instant::now();
    let (mine, firmwares) = (what.bit(), what.bit() << FIRMWARE_SHIFT);
    loop {
        let late = start.elapsed() > SEMAPHORE_LIMIT;
        let taken = with_semaphore(bar, || {
            let holders = bar.read(GSSR);
            if holders == u32::MAX {
                return Err(bar.fault("it is gone"));
            }
            let free = holders & (mine | firmwares) == 0;
            if free || late {
                bar.write(GSSR, holders & !firmwares | mine);
            }
            Ok(free || late)
        })?;
        if taken {
            return Ok(Held { bar, what });
        }
        sleep(SEMAPHORE_STEP);
    }
}

/// Does something to GSSR while nobody else does.
fn with_semaphore<T>(
    bar: &Bar,
    work: impl FnOnce() -> Result<T, PortError>,
) -> Result<T, PortError> {
    let start = Instant::now();
    // A read gives what stood there, and takes it.
    while bar.take_at(SWSM, 0) & BETWEEN_PORTS != 0 && start.elapsed() < SEMAPHORE_LIMIT {
        sleep(SEMAPHORE_STEP);
    }
    loop {
        bar.write(SWSM_SET, BETWEEN_PORTS | WITH_FIRMWARE);
        if bar.take_at(SWSM, 0) & WITH_FIRMWARE != 0 || start.elapsed() > SEMAPHORE_LIMIT {
            break;
        }
        sleep(SEMAPHORE_STEP);
    }
    let result = work();
    bar.write(SWSM_SET, 0);
    result
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let bit = self.what.bit();
        let released = with_semaphore(self.bar, || {
            self.bar.change(GSSR, bit, 0);
            Ok(())
        });
        if let Err(error) = released {
            tracing::debug!("{error}");
        }
    }
}
