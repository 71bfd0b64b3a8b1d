//! The registers that this driver uses: one table, from which accessors, a dump and a test for
//! overlaps come.
//!
//! Each line: datasheet name, offset of the first, distance to the next, how many, what access
//! does, the section of the 82599 datasheet that describes its group, meaning. A register's kind of
//! access is its type: one that a read clears can't be read by accident, a read-only one can't be
//! written.

use std::marker::PhantomData;

/// Read only.
#[derive(Debug)]
pub(crate) struct Ro;
/// Read and write.
#[derive(Debug)]
pub(crate) struct Rw;
/// A counter that a read sets to zero, or a flag that a read changes.
#[derive(Debug)]
pub(crate) struct Rc;
/// Write only.
#[derive(Debug)]
pub(crate) struct Wo;

/// Reading it changes nothing.
pub(crate) trait Readable {}
impl Readable for Ro {}
impl Readable for Rw {}
/// Writing it does something.
pub(crate) trait Writable {}
impl Writable for Rw {}
impl Writable for Wo {}

/// A register, or several of a kind; `M` is what access does.
#[derive(Debug)]
pub(crate) struct Register<M> {
    offset: u32,
    stride: u32,
    count: u32,
    mode: PhantomData<M>,
}

// Not derived, which would ask for the same of `M`.
impl<M> Clone for Register<M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M> Copy for Register<M> {}

impl<M> Register<M> {
    const fn new(offset: u32, stride: u32, count: u32) -> Self {
        Self { offset, stride, count, mode: PhantomData }
    }

    /// Where number `n` stands, in bytes. `n` is brought into range, as no outside data gets here.
    pub(crate) const fn at(self, n: u16) -> u64 {
        let n = if (n as u32) < self.count { n as u32 } else { self.count - 1 };
        (self.offset + n * self.stride) as u64
    }

    /// How many there are.
    pub(crate) const fn count(self) -> u16 {
        self.count as u16
    }
}

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) offset: u32,
    pub(crate) stride: u32,
    pub(crate) count: u32,
    /// Whether a read changes nothing, so that a dump may show it.
    pub(crate) quiet: bool,
    pub(crate) meaning: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and a test"))]
    pub(crate) section: &'static str,
}

macro_rules! quiet {
    (Ro) => {
        true
    };
    (Rw) => {
        true
    };
    ($other:ident) => {
        false
    };
}

macro_rules! registers {
    ($($name:ident $offset:literal $stride:literal $count:literal $mode:ident $section:literal $meaning:literal;)*) => {
        $(#[doc = $meaning]
        #[allow(dead_code, reason = "some are there to be shown")]
        pub(crate) const $name: Register<$mode> = Register::new($offset, $stride, $count);)*
        /// All of them, by offset within each group.
        pub(crate) const TABLE: &[Line] = &[$(Line {
            name: stringify!($name), offset: $offset, stride: $stride, count: $count,
            quiet: quiet!($mode), section: $section, meaning: $meaning,
        }),*];
    };
}

registers! {
    // General control
    CTRL       0x00000 0    1   Rw "8.2.3.1"  "device control: PCIe master disable 2, link reset 3, reset 26";
    STATUS     0x00008 0    1   Ro "8.2.3.1"  "device status: LAN id 3:2, PCIe master enabled 19";
    CTRL_EXT   0x00018 0    1   Rw "8.2.3.1"  "extended control: no snoop disabled 16, driver loaded 28";
    ESDP       0x00020 0    1   Rw "8.2.3.1"  "software defined pins: SFP+ cage and laser";
    I2CCTL     0x00028 0    1   Rw "8.2.3.1"  "two wires to the SFP+: clock in 0, out 1, data in 2, out 3";
    LEDCTL     0x00200 0    1   Rw "8.2.3.1"  "LEDs: one byte each, mode 3:0, blink 7";
    // EEPROM and semaphores
    EEC        0x10010 0    1   Rw "8.2.3.2"  "EEPROM control: present 8, read 9, size 14:11";
    EERD       0x10014 0    1   Rw "8.2.3.2"  "EEPROM read: start 0, done 1, address 15:2, data 31:16";
    EEMNGCTL   0x10110 0    1   Ro "8.2.3.2"  "configuration done: port 0 18, port 1 19";
    SWSM       0x10140 0    1   Rc "8.2.3.4"  "software semaphore: a read takes it (0), and asks the firmware for it (1)";
    SWSM_SET   0x10140 0    1   Wo "8.2.3.4"  "software semaphore: given back by writing 0";
    FWSM       0x10148 0    1   Ro "8.2.3.4"  "firmware semaphore: mode 3:1, valid 15";
    GSSR       0x10160 0    1   Rw "8.2.3.4"  "what software (4:0) and firmware (9:5) hold";
    // Flow control
    FCTTV      0x03200 4    4   Rw "8.2.3.3"  "pause times of two traffic classes";
    FCRTL      0x03220 4    8   Rw "8.2.3.3"  "below this much in the buffer sending may go on";
    FCRTH      0x03260 4    8   Rw "8.2.3.3"  "above this much in the buffer the sender is told to pause";
    FCRTV      0x032a0 0    1   Rw "8.2.3.3"  "when a pause is repeated";
    FCCFG      0x03d00 0    1   Rw "8.2.3.3"  "which pause frames are sent: 802.3x 3";
    TFCS       0x0ce00 0    1   Ro "8.2.3.3"  "flow control: frames may leave 0";
    // Interrupts
    EICR       0x00800 0    1   Wo "8.2.3.5"  "causes: writing 1 clears";
    EICS       0x00808 0    1   Rw "8.2.3.5"  "writing 1 sets causes; a read shows them and clears none";
    EIMS       0x00880 0    1   Rw "8.2.3.5"  "writing 1 enables causes";
    EIMC       0x00888 0    1   Wo "8.2.3.5"  "writing 1 disables causes";
    EIAC       0x00810 0    1   Rw "8.2.3.5"  "causes that clear themselves when their message goes out";
    EIMS_EX    0x00aa0 4    2   Wo "8.2.3.5"  "writing 1 enables vectors";
    EIMC_EX    0x00ab0 4    2   Wo "8.2.3.5"  "writing 1 disables vectors";
    EIAM_EX    0x00ad0 4    2   Rw "8.2.3.5"  "vectors that are disabled when their message goes out";
    EITR       0x00820 4    24  Rw "8.2.3.5"  "least time between a vector's messages: 2 µs units in 11:3";
    IVAR       0x00900 4    64  Rw "8.2.3.5"  "vectors of two queue pairs: rx, tx, rx, tx; valid 7 of each";
    IVAR_MISC  0x00a00 0    1   Rw "8.2.3.5"  "vectors of the timer and of all else";
    GPIE       0x00898 0    1   Rw "8.2.3.5"  "MSI-X 4, other causes clear alone 5, mask on message 30, pending bits 31";
    // Receive queues
    RDBAL      0x01000 0x40 64  Rw "8.2.3.8"  "ring address, low";
    RDBAH      0x01004 0x40 64  Rw "8.2.3.8"  "ring address, high";
    RDLEN      0x01008 0x40 64  Rw "8.2.3.8"  "ring length in bytes";
    DCA_RXCTRL 0x0100c 0x40 64  Rw "8.2.3.11" "cache hints: bit 12 has to be 0";
    RDH        0x01010 0x40 64  Rw "8.2.3.8"  "head: the device's";
    SRRCTL     0x01014 0x40 64  Rw "8.2.3.8"  "buffer in KiB 4:0, descriptor type 27:25, drop when full 28";
    RDT        0x01018 0x40 64  Rw "8.2.3.8"  "tail: behind the last descriptor given to the device";
    RXDCTL     0x01028 0x40 64  Rw "8.2.3.8"  "enabled 25, VLAN tags taken out 30";
    RSCCTL     0x0102c 0x40 64  Rw "8.2.3.8"  "coalescing";
    RQSMR      0x02300 4    32  Rw "8.2.3.23" "receive queue to statistics counter, four a register";
    RDRXCTL    0x02f00 0    1   Rw "8.2.3.8"  "CRC stripped 1, DMA ready 3";
    RXCTRL     0x03000 0    1   Rw "8.2.3.8"  "receiver enabled 0";
    RXPBSIZE   0x03c00 4    8   Rw "8.2.3.8"  "packet buffers in KiB from bit 10";
    // Receive filters
    RXCSUM     0x05000 0    1   Rw "8.2.3.7"  "IP payload checksum 12, hash instead of checksum 13";
    RFCTL      0x05008 0    1   Rw "8.2.3.7"  "filter control";
    MTA        0x05200 4    128 Rw "8.2.3.7"  "multicast table";
    RAL        0x0a200 8    128 Rw "8.2.3.7"  "own addresses, low";
    RAH        0x0a204 8    128 Rw "8.2.3.7"  "own addresses, high; valid 31";
    MPSAR_LO   0x0a600 8    128 Rw "8.2.3.7"  "pools of each address, 0-31";
    MPSAR_HI   0x0a604 8    128 Rw "8.2.3.7"  "pools of each address, 32-63";
    VFTA       0x0a000 4    128 Rw "8.2.3.7"  "VLAN filter, a bit for each";
    FTQF       0x0e600 4    128 Rw "8.2.3.7"  "five-tuple filters: enabled 31";
    PFUTA      0x0f400 4    128 Rw "8.2.3.27" "unicast table";
    FCTRL      0x05080 0    1   Rw "8.2.3.7"  "filter: bad frames 1, all multicast 8, all unicast 9, broadcast 10";
    VLNCTRL    0x05088 0    1   Rw "8.2.3.7"  "VLAN ethertype 15:0, filter 30";
    MCSTCTRL   0x05090 0    1   Rw "8.2.3.7"  "multicast filter enabled 2";
    MRQC       0x05818 0    1   Rw "8.2.3.7"  "RSS enabled 3:0, hashed fields 31:16";
    RETA       0x05c00 4    32  Rw "8.2.3.7"  "queue of each hash value, four a register";
    RSSRK      0x05c80 4    10  Rw "8.2.3.7"  "hash key";
    PSRTYPE    0x0ea00 4    64  Rw "8.2.3.7"  "headers that are split";
    // Transmit
    DMATXCTL   0x04a80 0    1   Rw "8.2.3.9"  "transmit enabled 0, VLAN ethertype 31:16";
    DTXTCPFLGL 0x04a88 0    1   Rw "8.2.3.9"  "TCP flags of first and middle segments";
    DTXTCPFLGH 0x04a8c 0    1   Rw "8.2.3.9"  "TCP flags of the last segment";
    DTXMXSZRQ  0x08100 0    1   Rw "8.2.3.9"  "most bytes requested at once";
    MTQC       0x08120 0    1   Rw "8.2.3.9"  "transmit queues and traffic classes";
    RTTDCS     0x04900 0    1   Rw "8.2.3.10" "descriptor plane arbiter: disabled 6";
    TXPBTHRESH 0x04950 4    8   Rw "8.2.3.9"  "packet buffer threshold in KiB";
    TXPBSIZE   0x0cc00 4    8   Rw "8.2.3.9"  "packet buffers in KiB from bit 10";
    TQSM       0x08600 4    32  Rw "8.2.3.23" "transmit queue to statistics counter, four a register";
    TDBAL      0x06000 0x40 128 Rw "8.2.3.9"  "ring address, low";
    TDBAH      0x06004 0x40 128 Rw "8.2.3.9"  "ring address, high";
    TDLEN      0x06008 0x40 128 Rw "8.2.3.9"  "ring length in bytes";
    DCA_TXCTRL 0x0600c 0x40 128 Rw "8.2.3.11" "cache hints; write-back ordering 11";
    TDH        0x06010 0x40 128 Rw "8.2.3.9"  "head: the device's";
    TDT        0x06018 0x40 128 Rw "8.2.3.9"  "tail: behind the last descriptor given to the device";
    TXDCTL     0x06028 0x40 128 Rw "8.2.3.9"  "thresholds 6:0, 14:8, 22:16, enabled 25";
    TDWBAL     0x06038 0x40 128 Rw "8.2.3.9"  "where the head is written; enabled 0";
    TDWBAH     0x0603c 0x40 128 Rw "8.2.3.9"  "where the head is written, high";
    // Security: in the way of starting and stopping
    SECTXCTRL  0x08800 0    1   Rw "8.2.3.12" "transmit security: disabled 0, transmit disabled 1";
    SECTXSTAT  0x08804 0    1   Ro "8.2.3.12" "transmit path empty 0";
    SECRXCTRL  0x08d00 0    1   Rw "8.2.3.12" "receive security: disabled 0, receive disabled 1";
    SECRXSTAT  0x08d04 0    1   Ro "8.2.3.12" "receive path empty 0";
    // MAC and link
    HLREG0     0x04240 0    1   Rw "8.2.3.22" "CRC added 0, stripped 1, jumbo 2, padding 10, loopback 15";
    MAXFRS     0x04268 0    1   Rw "8.2.3.22" "longest frame in bytes 31:16";
    MFLCN      0x04294 0    1   Rw "8.2.3.22" "pause frames: dropped 1, heeded 3";
    AUTOC      0x042a0 0    1   Rw "8.2.3.22" "link: restart 12, mode 15:13, what is advertised";
    LINKS      0x042a4 0    1   Ro "8.2.3.22" "link: speed 29:28, up 30";
    AUTOC2     0x042a8 0    1   Rw "8.2.3.22" "link: serial 10G kind 17:16, disabled 30:28";
    ANLP1      0x042b0 0    1   Ro "8.2.3.22" "what the other side advertises: pause 11:10, state 19:16";
    MACC       0x04330 0    1   Rw "8.2.3.22" "MAC control";
    MSCA       0x0425c 0    1   Rw "8.2.3.22" "MDIO command: address, operation, in progress 30";
    MSRWD      0x04260 0    1   Rw "8.2.3.22" "MDIO data: written 15:0, read 31:16";
    CORECTL    0x14f00 0    1   Wo "8.2.3.22" "analog set-up of the SFP+ side";
    // Statistics (a read clears)
    CRCERRS    0x04000 0    1   Rc "8.2.3.23" "frames with a bad CRC";
    ILLERRC    0x04004 0    1   Rc "8.2.3.23" "illegal bytes";
    ERRBC      0x04008 0    1   Rc "8.2.3.23" "error bytes";
    MLFC       0x04034 0    1   Rc "8.2.3.23" "local faults of the MAC";
    MRFC       0x04038 0    1   Rc "8.2.3.23" "remote faults of the MAC";
    RLEC       0x04040 0    1   Rc "8.2.3.23" "frames whose length field is wrong";
    RXMPC      0x03fa0 4    8   Rc "8.2.3.23" "frames missed as no buffer was free";
    LXONTXC    0x03f60 0    1   Rc "8.2.3.23" "XON frames sent";
    LXONRXCNT  0x041a4 0    1   Rc "8.2.3.23" "XON frames received";
    LXOFFTXC   0x03f68 0    1   Rc "8.2.3.23" "XOFF frames sent";
    LXOFFRXCNT 0x041a8 0    1   Rc "8.2.3.23" "XOFF frames received";
    PRC64      0x0405c 0    1   Rc "8.2.3.23" "frames received: 64 bytes with CRC";
    PRC127     0x04060 0    1   Rc "8.2.3.23" "frames received: 65-127 bytes";
    PRC255     0x04064 0    1   Rc "8.2.3.23" "frames received: 128-255 bytes";
    PRC511     0x04068 0    1   Rc "8.2.3.23" "frames received: 256-511 bytes";
    PRC1023    0x0406c 0    1   Rc "8.2.3.23" "frames received: 512-1023 bytes";
    PRC1522    0x04070 0    1   Rc "8.2.3.23" "frames received: 1024 bytes and more";
    GPRC       0x04074 0    1   Rc "8.2.3.23" "good frames received, that passed the filters";
    BPRC       0x04078 0    1   Rc "8.2.3.23" "broadcast frames received";
    MPRC       0x0407c 0    1   Rc "8.2.3.23" "multicast frames received";
    GPTC       0x04080 0    1   Rc "8.2.3.23" "good frames sent";
    GORCL      0x04088 0    1   Rc "8.2.3.23" "bytes of good frames received, low";
    GORCH      0x0408c 0    1   Rc "8.2.3.23" "bytes of good frames received, high";
    GOTCL      0x04090 0    1   Rc "8.2.3.23" "bytes of good frames sent, low";
    GOTCH      0x04094 0    1   Rc "8.2.3.23" "bytes of good frames sent, high";
    RUC        0x040a4 0    1   Rc "8.2.3.23" "frames received: too short, good CRC";
    RFC        0x040a8 0    1   Rc "8.2.3.23" "frames received: too short, bad CRC";
    ROC        0x040ac 0    1   Rc "8.2.3.23" "frames received: too long, good CRC";
    RJC        0x040b0 0    1   Rc "8.2.3.23" "frames received: too long, bad CRC";
    MNGPRC     0x040b4 0    1   Rc "8.2.3.23" "frames received by the management engine";
    TORL       0x040c0 0    1   Rc "8.2.3.23" "bytes received, low";
    TORH       0x040c4 0    1   Rc "8.2.3.23" "bytes received, high";
    TPR        0x040d0 0    1   Rc "8.2.3.23" "frames received";
    TPT        0x040d4 0    1   Rc "8.2.3.23" "frames sent";
    PTC64      0x040d8 0    1   Rc "8.2.3.23" "frames sent: 64 bytes with CRC";
    PTC127     0x040dc 0    1   Rc "8.2.3.23" "frames sent: 65-127 bytes";
    PTC255     0x040e0 0    1   Rc "8.2.3.23" "frames sent: 128-255 bytes";
    PTC511     0x040e4 0    1   Rc "8.2.3.23" "frames sent: 256-511 bytes";
    PTC1023    0x040e8 0    1   Rc "8.2.3.23" "frames sent: 512-1023 bytes";
    PTC1522    0x040ec 0    1   Rc "8.2.3.23" "frames sent: 1024 bytes and more";
    MPTC       0x040f0 0    1   Rc "8.2.3.23" "multicast frames sent";
    BPTC       0x040f4 0    1   Rc "8.2.3.23" "broadcast frames sent";
    XEC        0x04120 0    1   Rc "8.2.3.23" "frames whose IPv4, TCP or UDP checksum is wrong";
    QPRDC      0x01430 0x40 16  Rc "8.2.3.23" "frames that a queue dropped as its ring was empty";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_two_registers_stand_in_one_place() {
        let mut taken: BTreeMap<u32, &str> = BTreeMap::new();
        for line in TABLE {
            for n in 0..line.count {
                let offset = line.offset + n * line.stride;
                assert!(
                    offset.is_multiple_of(4) && offset < super::super::bar::BAR_LEN_BYTES as u32
                );
                let before = taken.insert(offset, line.name);
                // SWSM has two names, since reading and writing it are different things; the drop
                // counters stand where those of queues 16 to 31 would.
                let known = line.name == "SWSM_SET";
                assert!(before.is_none() || known, "{} and {before:?} at {offset:#x}", line.name);
            }
        }
    }

    #[test]
    fn every_line_is_whole() {
        for line in TABLE {
            assert!(
                line.section.starts_with("8.2.3.") && !line.meaning.is_empty(),
                "{}",
                line.name
            );
            assert!(line.count >= 1 && (line.count == 1) == (line.stride == 0), "{}", line.name);
            assert!(line.stride.is_multiple_of(4), "{}", line.name);
        }
    }

    #[test]
    fn numbers_lead_to_places() {
        assert_eq!(RDT.at(0), 0x1018);
        assert_eq!(RDT.at(63), 0x1fd8);
        assert_eq!(RDT.at(64), 0x1fd8, "brought into range");
        assert_eq!(TDT.at(127), 0x7fd8);
        assert_eq!(RAH.at(1), 0xa20c);
    }
}
