//! Every register of BAR 0 that the model knows (82599 datasheet, chapter 8).
//!
//! Each line: datasheet name, offset of the first, distance to the next, how many, access, value
//! after reset, bits that software may change, meaning.

/// BAR 0 as the configuration space announces it. Behind the registers the 82599 shows its flash,
/// which isn't modelled and reads as zero.
pub const BAR_LEN_BYTES: u64 = 512 << 10;

/// How much of BAR 0 has registers.
pub const FILE_LEN_BYTES: usize = 128 << 10;

/// What a read or a write by software does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Read only: writes change nothing.
    Ro,
    /// Read and write, within the writable bits.
    Rw,
    /// A counter that a read sets to zero. Writes change nothing.
    Rc,
    /// Write only: a write has an effect, a read gives 0.
    Wo,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// The datasheet's name.
    pub name: &'static str,
    /// Offset of the first in BAR 0, in bytes.
    pub offset: u32,
    /// Distance to the next, in bytes.
    pub stride: u32,
    /// How many there are.
    pub count: u32,
    /// Access by software.
    pub mode: Mode,
    /// Value after a reset.
    pub reset: u32,
    /// The bits that a write changes.
    pub writable: u32,
    /// What it is for.
    pub meaning: &'static str,
}

/// A second place where registers can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// Offset of the first alias.
    pub offset: u32,
    /// Distance to the next alias.
    pub stride: u32,
    /// How many.
    pub count: u32,
    /// What the first stands for.
    pub target: u32,
    /// Distance to the next target.
    pub target_stride: u32,
}

const ALL: u32 = 0xffff_ffff;

macro_rules! registers {
    ($($name:ident $offset:literal $stride:literal $count:literal $mode:ident $reset:literal $writable:expr, $meaning:literal;)*) => {
        /// The table.
        pub const TABLE: &[Register] = &[$(Register {
            name: stringify!($name), offset: $offset, stride: $stride, count: $count,
            mode: Mode::$mode, reset: $reset, writable: $writable, meaning: $meaning,
        }),*];
        /// Offsets by name: of the first, where there are several.
        pub mod at {
            $(#[doc = $meaning] pub const $name: u32 = $offset;)*
        }
    };
}

registers! {
    // General control
    CTRL          0x00000 0    1   Rw 0x0000_0000 ALL, "device control: RST 26, LRST 3, GIO_DIS 2";
    STATUS        0x00008 0    1   Ro 0x0008_0000 0,   "device status: GIO master enable 19, LAN id 3:2";
    CTRL_EXT      0x00018 0    1   Rw 0x0000_0000 ALL, "extended control: DRV_LOAD 28";
    ESDP          0x00020 0    1   Rw 0x0000_0004 0xffff_fffb, "software defined pins: module in its cage 2";
    I2CCTL        0x00028 0    1   Rw 0x0000_000f 0x0a, "two wires to the SFP+: clock in 0, out 1, data in 2, out 3";
    FRTIMER       0x00048 0    1   Ro 0x0000_0000 0,   "free running timer";
    TCPTIMER      0x0004c 0    1   Rw 0x0000_0000 ALL, "TCP timer";
    LEDCTL        0x00200 0    1   Rw 0x0084_0800 ALL, "LEDs";
    CORESPARE     0x00600 0    1   Rw 0x0000_0000 ALL, "spare";
    // Interrupts
    EICR          0x00800 0    1   Rw 0x0000_0000 ALL, "interrupt causes: a read clears, 1 clears";
    EICS          0x00808 0    1   Rw 0x0000_0000 ALL, "sets causes; a read gives them";
    EIAC          0x00810 0    1   Rw 0x0000_0000 0x4000_ffff, "causes cleared when their message goes out";
    EITR          0x00820 4    24  Rw 0x0000_0000 0x001f_fff8, "least time between messages of vectors 0-23";
    EIMS          0x00880 0    1   Rw 0x0000_0000 0x7fff_ffff, "enables causes";
    EIMC          0x00888 0    1   Rw 0x0000_0000 0x7fff_ffff, "disables causes";
    EIAM          0x00890 0    1   Rw 0x0000_0000 0x7fff_ffff, "causes disabled when the interrupt goes out";
    EITRSEL       0x00894 0    1   Rw 0x0000_0000 ALL, "which function's EITR";
    GPIE          0x00898 0    1   Rw 0x0000_0000 ALL, "MSI-X 4, OCD 5, EIMEN 6, EIAME 30, PBA 31";
    IVAR          0x00900 4    64  Rw 0x0000_0000 ALL, "vectors of two queue pairs";
    IVAR_MISC     0x00a00 0    1   Rw 0x0000_0000 ALL, "vectors of the TCP timer and all else";
    EICS_EX       0x00a90 4    2   Rw 0x0000_0000 ALL, "sets causes of vectors 0-63";
    EIMS_EX       0x00aa0 4    2   Rw 0x0000_0000 ALL, "enables vectors 0-63";
    EIMC_EX       0x00ab0 4    2   Rw 0x0000_0000 ALL, "disables vectors 0-63";
    EIAM_EX       0x00ad0 4    2   Rw 0x0000_0000 ALL, "vectors disabled when their message goes out";
    EITR_HI       0x12300 4    105 Rw 0x0000_0000 0x001f_fff8, "least time between messages of vectors 24-128";
    // Receive queues 0-63 and 64-127
    RDBAL         0x01000 0x40 64  Rw 0x0000_0000 0xffff_ff80, "ring address, low";
    RDBAH         0x01004 0x40 64  Rw 0x0000_0000 ALL, "ring address, high";
    RDLEN         0x01008 0x40 64  Rw 0x0000_0000 0x000f_ff80, "ring length in bytes";
    DCA_RXCTRL    0x0100c 0x40 64  Rw 0x0000_0000 ALL, "direct cache access";
    RDH           0x01010 0x40 64  Rw 0x0000_0000 0x0000_ffff, "head";
    SRRCTL        0x01014 0x40 64  Rw 0x0000_0402 ALL, "buffer sizes, descriptor type 27:25, DROP_EN 28";
    RDT           0x01018 0x40 64  Rw 0x0000_0000 0x0000_ffff, "tail";
    RXDCTL        0x01028 0x40 64  Rw 0x0000_0000 ALL, "ENABLE 25, VLAN strip 30";
    RSCCTL        0x0102c 0x40 64  Rw 0x0000_0000 ALL, "receive side coalescing";
    QPRC          0x01030 0x40 16  Rc 0x0000_0000 0,   "frames received by a queue";
    QBRC_L        0x01034 0x40 16  Rc 0x0000_0000 0,   "bytes received by a queue, low";
    QBRC_H        0x01038 0x40 16  Rc 0x0000_0000 0,   "bytes received by a queue, high";
    QPRDC         0x01430 0x40 16  Rc 0x0000_0000 0,   "frames dropped by a queue";
    RDBAL_HI      0x0d000 0x40 64  Rw 0x0000_0000 0xffff_ff80, "ring address, low";
    RDBAH_HI      0x0d004 0x40 64  Rw 0x0000_0000 ALL, "ring address, high";
    RDLEN_HI      0x0d008 0x40 64  Rw 0x0000_0000 0x000f_ff80, "ring length in bytes";
    DCA_RXCTRL_HI 0x0d00c 0x40 64  Rw 0x0000_0000 ALL, "direct cache access";
    RDH_HI        0x0d010 0x40 64  Rw 0x0000_0000 0x0000_ffff, "head";
    SRRCTL_HI     0x0d014 0x40 64  Rw 0x0000_0402 ALL, "buffer sizes, descriptor type 27:25, DROP_EN 28";
    RDT_HI        0x0d018 0x40 64  Rw 0x0000_0000 0x0000_ffff, "tail";
    RXDCTL_HI     0x0d028 0x40 64  Rw 0x0000_0000 ALL, "ENABLE 25, VLAN strip 30";
    RSCCTL_HI     0x0d02c 0x40 64  Rw 0x0000_0000 ALL, "receive side coalescing";
    // Transmit queues 0-127
    TDBAL         0x06000 0x40 128 Rw 0x0000_0000 0xffff_ff80, "ring address, low";
    TDBAH         0x06004 0x40 128 Rw 0x0000_0000 ALL, "ring address, high";
    TDLEN         0x06008 0x40 128 Rw 0x0000_0000 0x000f_ff80, "ring length in bytes";
    DCA_TXCTRL    0x0600c 0x40 128 Rw 0x0000_0000 ALL, "direct cache access";
    TDH           0x06010 0x40 128 Rw 0x0000_0000 0x0000_ffff, "head";
    TDT           0x06018 0x40 128 Rw 0x0000_0000 0x0000_ffff, "tail";
    TXDCTL        0x06028 0x40 128 Rw 0x0000_0000 ALL, "thresholds, ENABLE 25";
    QPTC          0x06030 0x40 16  Rc 0x0000_0000 0,   "frames sent by a queue";
    QBTC_L        0x08700 8    16  Rc 0x0000_0000 0,   "bytes sent by a queue, low";
    QBTC_H        0x08704 8    16  Rc 0x0000_0000 0,   "bytes sent by a queue, high";
    TDWBAL        0x06038 0x40 128 Rw 0x0000_0000 ALL, "where to write the head, low; enable 0";
    TDWBAH        0x0603c 0x40 128 Rw 0x0000_0000 ALL, "where to write the head, high";
    // Receive
    RQSMR         0x02300 4    32  Rw 0x0000_0000 ALL, "receive queue to statistics counter";
    RTRPCS        0x02430 0    1   Rw 0x0000_0000 ALL, "receive packet plane";
    RTRPT4C       0x02140 4    8   Rw 0x0000_0000 ALL, "receive packet plane, credits";
    DMACR         0x02400 0    1   Rw 0x0000_0000 ALL, "DMA coalescing";
    DMCTLX        0x02404 0    1   Rw 0x0000_0000 ALL, "DMA coalescing";
    RDRXCTL       0x02f00 0    1   Rw 0x0000_000a 0xffff_fff7, "CRC strip 1, DMA init done 3";
    QDE           0x02f04 0    1   Rw 0x0000_0000 ALL, "queue drop enable";
    RDDCC         0x02f20 0    1   Rw 0x0000_0000 ALL, "descriptor cache";
    RXDSTATCTRL   0x02f40 0    1   Rw 0x0000_0000 ALL, "what RXDGPC counts";
    RXDGPC        0x02f50 0    1   Rc 0x0000_0000 0,   "frames given to the host";
    RXDGBCL       0x02f54 0    1   Rc 0x0000_0000 0,   "bytes given to the host, low";
    RXDGBCH       0x02f58 0    1   Rc 0x0000_0000 0,   "bytes given to the host, high";
    LMVM_RX       0x02fa4 0    1   Ro 0x0000_0000 0,   "last malicious VM";
    LVMMC_RX      0x02fa8 0    1   Rc 0x0000_0000 0,   "malicious VM cause";
    WQBR_RX       0x02fb0 4    4   Rc 0x0000_0000 0,   "wrong queue behaviour";
    RXCTRL        0x03000 0    1   Rw 0x0000_0000 0x0000_0001, "RXEN 0";
    PFCTOP        0x03008 0    1   Rw 0x0100_8808 ALL, "priority flow control type";
    RTRUP2TC      0x03020 0    1   Rw 0x0000_0000 ALL, "user priority to traffic class";
    RSCDBU        0x03028 0    1   Rw 0x0000_0080 ALL, "coalescing: ACK disable 7";
    FCTTV         0x03200 4    4   Rw 0x0000_0000 ALL, "pause time";
    FCRTL         0x03220 4    8   Rw 0x0000_0000 0x8007_fff0, "XON threshold";
    FCRTH         0x03260 4    8   Rw 0x0000_0000 0x8007_fff0, "XOFF threshold";
    FCRTV         0x032a0 0    1   Rw 0x0000_0000 ALL, "pause refresh";
    DMCTH         0x03300 4    8   Rw 0x0000_0000 ALL, "DMA coalescing threshold";
    PXON2OFFCNT   0x03240 4    8   Rc 0x0000_0000 0,   "XON to XOFF";
    RXPBSIZE      0x03c00 4    8   Rw 0x0008_0000 0x000f_fc00, "packet buffer size in bytes";
    RTRPT4S       0x02160 4    8   Ro 0x0000_0000 0,   "receive packet plane, status";
    RTRUP2TC_2    0x03c20 4    8   Rw 0x0000_0000 ALL, "receive arbiter credits";
    FCCFG         0x03d00 0    1   Rw 0x0000_0000 ALL, "flow control: which kind to send";
    DROPEN        0x03d04 0    1   Rw 0x0000_0000 ALL, "drop enable";
    RXCSUM        0x05000 0    1   Rw 0x0000_0000 ALL, "IPPCSE 12, PCSD 13";
    RFCTL         0x05008 0    1   Rw 0x0000_0000 ALL, "receive filter control";
    EXVET         0x05078 0    1   Rw 0x8100_8100 ALL, "outer VLAN type";
    FCTRL         0x05080 0    1   Rw 0x0000_0000 ALL, "SBP 1, MPE 8, UPE 9, BAM 10";
    VLNCTRL       0x05088 0    1   Rw 0x0000_8100 ALL, "VLAN type 15:0, CFIEN 29, VFE 30";
    MCSTCTRL      0x05090 0    1   Rw 0x0000_0000 0x0000_0007, "MFE 2, which address bits 1:0";
    PFFLPL        0x050b0 0    1   Rw 0x0000_0000 ALL, "function level packet";
    PFFLPH        0x050b4 0    1   Rw 0x0000_0000 ALL, "function level packet";
    FCRXCTRL      0x05100 0    1   Rw 0x0000_0000 ALL, "FCoE receive control";
    FCCRC         0x05118 0    1   Rc 0x0000_0000 0,   "FCoE CRC errors";
    RXMTRL        0x05120 0    1   Rw 0x0000_0000 ALL, "time stamp message types";
    ETQF          0x05128 4    8   Rw 0x0000_0000 ALL, "EtherType filters";
    VMTXSW        0x05180 4    2   Rw 0x0000_0000 ALL, "pool loopback";
    TSYNCRXCTL    0x05188 0    1   Rw 0x0000_0000 ALL, "receive time stamps";
    VT_CTL        0x051b0 0    1   Rw 0x0000_0000 ALL, "virtualisation";
    RXFECCERR0    0x051b8 0    1   Rw 0x0000_0000 ALL, "ECC";
    VFRE          0x051e0 4    2   Rw 0x0000_0000 ALL, "pools that receive";
    MTA           0x05200 4    128 Rw 0x0000_0000 ALL, "multicast hash table";
    WUC           0x05800 0    1   Rw 0x0000_0000 ALL, "wake-up control";
    WUFC          0x05808 0    1   Rw 0x0000_0000 ALL, "wake-up filters";
    WUS           0x05810 0    1   Rw 0x0000_0000 ALL, "wake-up status";
    MRQC          0x05818 0    1   Rw 0x0000_0000 ALL, "several receive queues: MRQE 3:0, RSS fields 31:16";
    VMD_CTL       0x0581c 0    1   Rw 0x0000_0000 ALL, "virtual machine control";
    IPAV          0x05838 0    1   Rw 0x0000_0000 ALL, "wake-up address valid";
    IP4AT         0x05840 4    7   Rw 0x0000_0000 ALL, "wake-up addresses";
    IP6AT         0x05880 4    4   Rw 0x0000_0000 ALL, "wake-up addresses";
    WUPL          0x05900 0    1   Rw 0x0000_0000 ALL, "wake-up packet length";
    IMIR          0x05a80 4    8   Rw 0x0000_0000 ALL, "immediate interrupts";
    IMIREXT       0x05aa0 4    8   Rw 0x0000_0000 ALL, "immediate interrupts";
    IMIRVP        0x05ac0 0    1   Rw 0x0000_0000 ALL, "immediate interrupts by priority";
    RETA          0x05c00 4    32  Rw 0x0000_0000 0x0f0f_0f0f, "RSS: hash to queue";
    RSSRK         0x05c80 4    10  Rw 0x0000_0000 ALL, "RSS: key";
    VFTA          0x0a000 4    128 Rw 0x0000_0000 ALL, "VLAN filter";
    RAL           0x0a200 8    128 Rw 0x0000_0000 ALL, "receive address, low";
    RAH           0x0a204 8    128 Rw 0x0000_0000 0x8000_ffff, "receive address, high; AV 31";
    MPSAR_LO      0x0a600 8    128 Rw 0x0000_0000 ALL, "pools of an address";
    MPSAR_HI      0x0a604 8    128 Rw 0x0000_0000 ALL, "pools of an address";
    PSRTYPE       0x0ea00 4    64  Rw 0x0000_0000 ALL, "where headers end";
    SAQF          0x0e000 4    128 Rw 0x0000_0000 ALL, "5-tuple filter: source";
    DAQF          0x0e200 4    128 Rw 0x0000_0000 ALL, "5-tuple filter: destination";
    SDPQF         0x0e400 4    128 Rw 0x0000_0000 ALL, "5-tuple filter: ports";
    FTQF          0x0e600 4    128 Rw 0x0000_0000 ALL, "5-tuple filter";
    L34T_IMIR     0x0e800 4    128 Rw 0x0000_0000 ALL, "5-tuple filter: immediate interrupt";
    ETQS          0x0ec00 4    8   Rw 0x0000_0000 ALL, "EtherType queue";
    SYNQF         0x0ec30 0    1   Rw 0x0000_0000 ALL, "SYN filter";
    RQTC          0x0ec70 0    1   Rw 0x0000_0000 ALL, "RSS queues of a traffic class";
    LLITHRESH     0x0ec90 0    1   Rw 0x0000_0000 ALL, "low latency threshold";
    FCRECTL       0x0ed00 0    1   Rw 0x0000_0000 ALL, "FCoE redirection";
    FCRETA        0x0ed10 4    8   Rw 0x0000_0000 ALL, "FCoE redirection";
    FDIRCTRL      0x0ee00 0    1   Rw 0x0000_0008 0xffff_fff7, "flow director: INIT_DONE 3";
    FDIRSIPV6     0x0ee0c 4    3   Rw 0x0000_0000 ALL, "flow director";
    FDIRIPSA      0x0ee18 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRIPDA      0x0ee1c 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRPORT      0x0ee20 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRVLAN      0x0ee24 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRHASH      0x0ee28 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRCMD       0x0ee2c 0    1   Rw 0x0000_0000 0xffff_fffc, "flow director: command 1:0, done at once";
    FDIRFREE      0x0ee38 0    1   Rw 0x0000_8000 ALL, "flow director";
    FDIRDIP4M     0x0ee3c 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRSIP4M     0x0ee40 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRTCPM      0x0ee44 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRUDPM      0x0ee48 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRLEN       0x0ee4c 0    1   Rc 0x0000_0000 0,   "flow director";
    FDIRUSTAT     0x0ee50 0    1   Rc 0x0000_0000 0,   "flow director";
    FDIRFSTAT     0x0ee54 0    1   Rc 0x0000_0000 0,   "flow director";
    FDIRMATCH     0x0ee58 0    1   Rc 0x0000_0000 0,   "flow director";
    FDIRMISS      0x0ee5c 0    1   Rc 0x0000_0000 0,   "flow director";
    FDIRHKEY      0x0ee68 0    1   Rw 0x8000_0000 ALL, "flow director";
    FDIRSKEY      0x0ee6c 0    1   Rw 0x8000_0000 ALL, "flow director";
    FDIRM         0x0ee70 0    1   Rw 0x0000_0000 ALL, "flow director";
    FDIRIP6M      0x0ee74 0    1   Rw 0x0000_0000 ALL, "flow director";
    VMOLR         0x0f000 4    64  Rw 0x0000_0000 ALL, "pool offloads";
    VLVF          0x0f100 4    64  Rw 0x0000_0000 ALL, "pool VLANs";
    VLVFB         0x0f200 4    128 Rw 0x0000_0000 ALL, "pools of a VLAN";
    UTA           0x0f400 4    128 Rw 0x0000_0000 ALL, "unicast hash table";
    MRCTL         0x0f600 4    4   Rw 0x0000_0000 ALL, "mirroring";
    // Transmit
    RTTDCS        0x04900 0    1   Rw 0x0000_0000 ALL, "transmit descriptor plane: ARBDIS 6";
    RTTDQSEL      0x04904 0    1   Rw 0x0000_0000 ALL, "which queue";
    RTTDT1C       0x04908 0    1   Rw 0x0000_0000 ALL, "credits";
    RTTDT2C       0x04910 4    8   Rw 0x0000_0000 ALL, "credits";
    RTTDT2S       0x04930 4    8   Ro 0x0000_0000 0,   "credits";
    TXPBTHRESH    0x04950 4    8   Rw 0x0000_0096 ALL, "transmit buffer threshold";
    RTTBCNRM      0x04980 0    1   Rw 0x0000_0000 ALL, "rate limit";
    RTTBCNRC      0x04984 0    1   Rw 0x0000_0000 ALL, "rate limit";
    DMATXCTL      0x04a80 0    1   Rw 0x8100_0004 ALL, "TE 0, VLAN type 31:16";
    DTXTCPFLGL    0x04a88 0    1   Rw 0x0ff6_0ff6 ALL, "TCP flags of first and middle segments";
    DTXTCPFLGH    0x04a8c 0    1   Rw 0x0000_0f7f ALL, "TCP flags of the last segment";
    RTTQCNTG      0x04a90 0    1   Rw 0x0000_0000 ALL, "congestion tag";
    TEOFF         0x04a94 0    1   Rw 0x0000_0000 ALL, "FCoE EOF";
    TSOFF         0x04a98 0    1   Rw 0x0000_0000 ALL, "FCoE SOF";
    TQSM          0x08600 4    32  Rw 0x0000_0000 ALL, "transmit queue to statistics counter";
    VMVIR         0x08000 4    64  Rw 0x0000_0000 ALL, "pool VLAN insert";
    DTXMXSZRQ     0x08100 0    1   Rw 0x0000_0010 ALL, "outstanding reads";
    LVMMC_TX      0x08108 0    1   Rc 0x0000_0000 0,   "malicious VM cause";
    VFTE          0x08110 4    2   Rw 0x0000_0000 ALL, "pools that send";
    MTQC          0x08120 0    1   Rw 0x0000_0000 ALL, "several transmit queues";
    LMVM_TX       0x08124 0    1   Ro 0x0000_0000 0,   "last malicious VM";
    WQBR_TX       0x08130 4    4   Rc 0x0000_0000 0,   "wrong queue behaviour";
    PFVFSPOOF     0x08200 4    8   Rw 0x0000_0000 ALL, "anti spoofing";
    PFDTXGSWC     0x08220 0    1   Rw 0x0000_0000 ALL, "loopback between pools";
    VMECM         0x08790 4    2   Rw 0x0000_0000 ALL, "pool error counting";
    SSVPC         0x08780 0    1   Rc 0x0000_0000 0,   "spoofed frames";
    FCOEPTC       0x08784 0    1   Rc 0x0000_0000 0,   "FCoE frames sent";
    FCOEDWTC      0x08788 0    1   Rc 0x0000_0000 0,   "FCoE words sent";
    TXDGPC        0x087a0 0    1   Rc 0x0000_0000 0,   "frames taken from the host";
    TXDGBCL       0x087a4 0    1   Rc 0x0000_0000 0,   "bytes taken from the host, low";
    TXDGBCH       0x087a8 0    1   Rc 0x0000_0000 0,   "bytes taken from the host, high";
    SECTXCTRL     0x08800 0    1   Rw 0x0000_0001 ALL, "security, transmit: TX_DIS 1";
    SECTXSTAT     0x08804 0    1   Ro 0x0000_0001 0,   "security, transmit: ready 0";
    SECTXBUFFAF   0x08808 0    1   Rw 0x0000_0250 ALL, "security buffer";
    SECTXMINIFG   0x08810 0    1   Rw 0x0000_1001 ALL, "security inter frame gap";
    IPSTXIDX      0x08900 0    1   Rw 0x0000_0000 0x7fff_ffff, "IPsec, done at once";
    IPSTXSALT     0x08904 0    1   Rw 0x0000_0000 ALL, "IPsec";
    IPSTXKEY      0x08908 4    4   Rw 0x0000_0000 ALL, "IPsec";
    LSECTXCAP     0x08a00 0    1   Rw 0x0001_0101 ALL, "MACsec";
    LSECTXCTRL    0x08a04 0    1   Rw 0x0000_0000 ALL, "MACsec";
    TSYNCTXCTL    0x08c00 0    1   Rw 0x0000_0000 ALL, "transmit time stamps";
    SYSTIML       0x08c0c 0    1   Rw 0x0000_0000 ALL, "time, low (stands still)";
    SYSTIMH       0x08c10 0    1   Rw 0x0000_0000 ALL, "time, high";
    TIMINCA       0x08c14 0    1   Rw 0x0000_0000 ALL, "time increment";
    TSAUXC        0x08c20 0    1   Rw 0x0000_0000 ALL, "time, auxiliary";
    SECRXCTRL     0x08d00 0    1   Rw 0x0000_0001 ALL, "security, receive: RX_DIS 1";
    SECRXSTAT     0x08d04 0    1   Ro 0x0000_0001 0,   "security, receive: ready 0";
    IPSRXIDX      0x08e00 0    1   Rw 0x0000_0000 0x7fff_ffff, "IPsec, done at once";
    IPSRXIPADDR   0x08e04 4    4   Rw 0x0000_0000 ALL, "IPsec";
    IPSRXSPI      0x08e14 0    1   Rw 0x0000_0000 ALL, "IPsec";
    IPSRXIPIDX    0x08e18 0    1   Rw 0x0000_0000 ALL, "IPsec";
    IPSRXKEY      0x08e1c 4    4   Rw 0x0000_0000 ALL, "IPsec";
    IPSRXSALT     0x08e2c 0    1   Rw 0x0000_0000 ALL, "IPsec";
    IPSRXMOD      0x08e30 0    1   Rw 0x0000_0000 ALL, "IPsec";
    LSECRXCAP     0x08f00 0    1   Rw 0x0001_0101 ALL, "MACsec";
    LSECRXCTRL    0x08f04 0    1   Rw 0x0000_0000 ALL, "MACsec";
    RTTUP2TC      0x0c800 0    1   Rw 0x0000_0000 ALL, "user priority to traffic class";
    TXPBSIZE      0x0cc00 4    8   Rw 0x0002_8000 ALL, "packet buffer size in bytes";
    RTTPCS        0x0cd00 0    1   Rw 0x0000_0000 ALL, "transmit packet plane";
    RTTPT2C       0x0cd20 4    8   Rw 0x0000_0000 ALL, "credits";
    TFCS          0x0ce00 0    1   Ro 0x0000_0001 0,   "flow control: not stopped 0";
    // Link and MAC
    PCS1GCFIG     0x04200 0    1   Rw 0x0000_0000 ALL, "1G";
    PCS1GLCTL     0x04208 0    1   Rw 0x0200_0000 ALL, "1G";
    PCS1GLSTA     0x0420c 0    1   Ro 0x0000_0000 0,   "1G";
    PCS1GANA      0x04218 0    1   Rw 0x0000_0000 ALL, "1G";
    PCS1GANLP     0x0421c 0    1   Ro 0x0000_0000 0,   "1G";
    HLREG0        0x04240 0    1   Rw 0x1000_0001 ALL, "CRC strip 1, jumbo 2, pad 10, loopback 15";
    HLREG1        0x04244 0    1   Ro 0x0000_0000 0,   "MAC status";
    PAP           0x04248 0    1   Rw 0x0000_ffff ALL, "pause and pace";
    MSCA          0x0425c 0    1   Rw 0x0000_0000 0xbfff_ffff, "MDIO command, done at once";
    MSRWD         0x04260 0    1   Rw 0x0000_0000 0x0000_ffff, "MDIO data";
    MAXFRS        0x04268 0    1   Rw 0x05ee_0000 0xffff_0000, "longest frame with CRC, 31:16";
    PCSS1         0x04288 0    1   Ro 0x0000_0000 0,   "PCS";
    PCSS2         0x0428c 0    1   Ro 0x0000_0000 0,   "PCS";
    XPCSS         0x04290 0    1   Ro 0x0000_0000 0,   "PCS";
    MFLCN         0x04294 0    1   Rw 0x0000_0000 ALL, "flow control: RFCE 3";
    SERDESC       0x04298 0    1   Rw 0x0000_0000 ALL, "SerDes";
    MACS          0x0429c 0    1   Ro 0x0000_0000 0,   "MAC status";
    AUTOC         0x042a0 0    1   Rw 0x0000_6000 ALL, "link mode 15:13 (3: 10G serial), restart 12";
    LINKS         0x042a4 0    1   Ro 0x0000_0000 0,   "link up 30, 10G 29:28, up now 7";
    AUTOC2        0x042a8 0    1   Rw 0x0002_0000 ALL, "10G serial is SFI, 17:16";
    ANLP1         0x042b0 0    1   Ro 0x000c_0000 0,   "link partner";
    ANLP2         0x042b4 0    1   Ro 0x0000_0000 0,   "link partner";
    MMNGC         0x042d0 0    1   Ro 0x0000_0000 0,   "manageability veto 0";
    MACC          0x04330 0    1   Rw 0x0000_0000 ALL, "MAC control";
    LINKS2        0x04324 0    1   Ro 0x0000_0000 0,   "link status";
    CORECTL       0x14f00 0    1   Rw 0x0000_0000 ALL, "analog core";
    SMADARCTL     0x14f10 0    1   Rw 0x0000_0000 ALL, "analog core";
    // Counters
    RXMPC         0x03fa0 4    8   Rc 0x0000_0000 0,   "frames missed";
    LXONTXC       0x03f60 0    1   Rc 0x0000_0000 0,   "XON sent";
    LXOFFTXC      0x03f68 0    1   Rc 0x0000_0000 0,   "XOFF sent";
    PXONTXC       0x03f00 4    8   Rc 0x0000_0000 0,   "priority XON sent";
    PXOFFTXC      0x03f20 4    8   Rc 0x0000_0000 0,   "priority XOFF sent";
    CRCERRS       0x04000 0    1   Rc 0x0000_0000 0,   "CRC errors";
    ILLERRC       0x04004 0    1   Rc 0x0000_0000 0,   "illegal bytes";
    ERRBC         0x04008 0    1   Rc 0x0000_0000 0,   "error bytes";
    MSPDC         0x04010 0    1   Rc 0x0000_0000 0,   "short frames dropped";
    MLFC          0x04034 0    1   Rc 0x0000_0000 0,   "local faults";
    MRFC          0x04038 0    1   Rc 0x0000_0000 0,   "remote faults";
    RLEC          0x04040 0    1   Rc 0x0000_0000 0,   "length errors";
    PRC64         0x0405c 0    1   Rc 0x0000_0000 0,   "frames received of 64 bytes";
    PRC127        0x04060 0    1   Rc 0x0000_0000 0,   "frames received of 65-127 bytes";
    PRC255        0x04064 0    1   Rc 0x0000_0000 0,   "frames received of 128-255 bytes";
    PRC511        0x04068 0    1   Rc 0x0000_0000 0,   "frames received of 256-511 bytes";
    PRC1023       0x0406c 0    1   Rc 0x0000_0000 0,   "frames received of 512-1023 bytes";
    PRC1522       0x04070 0    1   Rc 0x0000_0000 0,   "frames received from 1024 bytes on";
    GPRC          0x04074 0    1   Rc 0x0000_0000 0,   "good frames received";
    BPRC          0x04078 0    1   Rc 0x0000_0000 0,   "broadcast frames received";
    MPRC          0x0407c 0    1   Rc 0x0000_0000 0,   "multicast frames received";
    GPTC          0x04080 0    1   Rc 0x0000_0000 0,   "good frames sent";
    GORCL         0x04088 0    1   Rc 0x0000_0000 0,   "good bytes received, low";
    GORCH         0x0408c 0    1   Rc 0x0000_0000 0,   "good bytes received, high";
    GOTCL         0x04090 0    1   Rc 0x0000_0000 0,   "good bytes sent, low";
    GOTCH         0x04094 0    1   Rc 0x0000_0000 0,   "good bytes sent, high";
    RUC           0x040a4 0    1   Rc 0x0000_0000 0,   "undersized frames";
    RFC           0x040a8 0    1   Rc 0x0000_0000 0,   "fragments";
    ROC           0x040ac 0    1   Rc 0x0000_0000 0,   "oversized frames";
    RJC           0x040b0 0    1   Rc 0x0000_0000 0,   "jabber";
    MNGPRC        0x040b4 0    1   Rc 0x0000_0000 0,   "frames to manageability";
    MNGPDC        0x040b8 0    1   Rc 0x0000_0000 0,   "frames to manageability, dropped";
    TORL          0x040c0 0    1   Rc 0x0000_0000 0,   "all bytes received, low";
    TORH          0x040c4 0    1   Rc 0x0000_0000 0,   "all bytes received, high";
    TPR           0x040d0 0    1   Rc 0x0000_0000 0,   "all frames received";
    TPT           0x040d4 0    1   Rc 0x0000_0000 0,   "all frames sent";
    PTC64         0x040d8 0    1   Rc 0x0000_0000 0,   "frames sent of 64 bytes";
    PTC127        0x040dc 0    1   Rc 0x0000_0000 0,   "frames sent of 65-127 bytes";
    PTC255        0x040e0 0    1   Rc 0x0000_0000 0,   "frames sent of 128-255 bytes";
    PTC511        0x040e4 0    1   Rc 0x0000_0000 0,   "frames sent of 256-511 bytes";
    PTC1023       0x040e8 0    1   Rc 0x0000_0000 0,   "frames sent of 512-1023 bytes";
    PTC1522       0x040ec 0    1   Rc 0x0000_0000 0,   "frames sent from 1024 bytes on";
    MPTC          0x040f0 0    1   Rc 0x0000_0000 0,   "multicast frames sent";
    BPTC          0x040f4 0    1   Rc 0x0000_0000 0,   "broadcast frames sent";
    XEC           0x04120 0    1   Rc 0x0000_0000 0,   "checksum errors";
    PXONRXCNT     0x04140 4    8   Rc 0x0000_0000 0,   "priority XON received";
    PXOFFRXCNT    0x04160 4    8   Rc 0x0000_0000 0,   "priority XOFF received";
    LXONRXCNT     0x041a4 0    1   Rc 0x0000_0000 0,   "XON received";
    LXOFFRXCNT    0x041a8 0    1   Rc 0x0000_0000 0,   "XOFF received";
    RXNFGPC       0x041b0 0    1   Rc 0x0000_0000 0,   "good frames before the filter";
    RXNFGBCL      0x041b4 0    1   Rc 0x0000_0000 0,   "good bytes before the filter, low";
    RXNFGBCH      0x041b8 0    1   Rc 0x0000_0000 0,   "good bytes before the filter, high";
    MNGPTC        0x0cf90 0    1   Rc 0x0000_0000 0,   "manageability frames sent";
    FCOERPDC      0x0241c 0    1   Rc 0x0000_0000 0,   "FCoE frames dropped";
    FCLAST        0x02424 0    1   Rc 0x0000_0000 0,   "FCoE";
    FCOEPRC       0x02428 0    1   Rc 0x0000_0000 0,   "FCoE frames received";
    FCOEDWRC      0x0242c 0    1   Rc 0x0000_0000 0,   "FCoE words received";
    // EEPROM, semaphores, PCI Express
    EEC           0x10010 0    1   Rw 0x0000_2b00 0x0000_0040, "EEPROM: REQ 6, GNT 7, present 8, read 9, size 14:11";
    EERD          0x10014 0    1   Rw 0x0000_0000 ALL, "EEPROM read: START 0, DONE 1, address 15:2, data 31:16";
    EEWR          0x10018 0    1   Rw 0x0000_0000 ALL, "EEPROM write: START 0, DONE 1, address 15:2, data 31:16";
    FLA           0x1001c 0    1   Rw 0x0000_0000 ALL, "flash access";
    EEMNGCTL      0x10110 0    1   Ro 0x000c_0000 0,   "configuration done 18, 19";
    FLOP          0x1013c 0    1   Rw 0x0000_0000 ALL, "flash opcode";
    SWSM          0x10140 0    1   Rw 0x0000_0000 0x0000_0003, "software semaphore: SMBI 0 is set by a read, SWESMBI 1";
    FWSM          0x10148 0    1   Ro 0x0000_8000 0,   "firmware semaphore: valid 15";
    GSSR          0x10160 0    1   Rw 0x0000_0000 0x0000_03ff, "who has which shared resource";
    GRC           0x10200 0    1   Rw 0x0000_0002 ALL, "manageability present 0";
    SRAMREL       0x10210 0    1   Rw 0x0000_0000 ALL, "SRAM remapping";
    FACTPS        0x10150 0    1   Ro 0x0000_0000 0,   "power states, LAN function select 30";
    GCR           0x11000 0    1   Rw 0x0000_0000 ALL, "PCI Express control";
    GSCL_1        0x11010 4    4   Rw 0x0000_0000 ALL, "PCI Express statistics";
    GSCN_0        0x11020 4    4   Ro 0x0000_0000 0,   "PCI Express statistics";
    GCR_EXT       0x11050 0    1   Rw 0x0000_0000 ALL, "extended: buffers clear 30";
    PBACL         0x11068 0    1   Rw 0x0000_0000 ALL, "clears pending bits";
    DCA_ID        0x11070 0    1   Ro 0x0000_0000 0,   "DCA";
    DCA_CTRL      0x11074 0    1   Rw 0x0000_0001 ALL, "DCA";
    CIAA          0x11088 0    1   Rw 0x0000_0000 ALL, "configuration space of VFs";
    CIAD          0x1108c 0    1   Rw 0x0000_0000 ALL, "configuration space of VFs";
    PICAUSE       0x110b0 0    1   Rw 0x0000_0000 ALL, "PCI Express interrupt cause";
    PIENA         0x110b8 0    1   Rw 0x0000_0000 ALL, "PCI Express interrupt enable";
    PBACL_EX      0x110c4 4    8   Rw 0x0000_0000 ALL, "clears pending bits";
}

/// What can be reached in two places: the second one, and what it stands for.
pub const ALIASES: &[Alias] = &[
    Alias { offset: 0x00004, stride: 0, count: 1, target: at::CTRL, target_stride: 0 },
    Alias { offset: 0x02100, stride: 4, count: 16, target: at::SRRCTL, target_stride: 0x40 },
    Alias { offset: 0x02200, stride: 4, count: 16, target: at::DCA_RXCTRL, target_stride: 0x40 },
    Alias { offset: 0x05400, stride: 8, count: 16, target: at::RAL, target_stride: 8 },
    Alias { offset: 0x05404, stride: 8, count: 16, target: at::RAH, target_stride: 8 },
    Alias { offset: 0x05480, stride: 4, count: 16, target: at::PSRTYPE, target_stride: 4 },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn no_two_registers_share_an_offset_and_all_lie_in_the_file() {
        let mut taken: HashMap<u32, &str> = HashMap::new();
        let mut take = |offset: u32, name: &'static str| {
            assert_eq!(offset % 4, 0, "{name}");
            assert!((offset as usize) < FILE_LEN_BYTES, "{name}");
            if let Some(other) = taken.insert(offset, name) {
                panic!("{name} and {other} are both at {offset:#x}");
            }
        };
        for register in TABLE {
            for n in 0..register.count {
                take(register.offset + n * register.stride, register.name);
            }
        }
        for alias in ALIASES {
            for n in 0..alias.count {
                take(alias.offset + n * alias.stride, "alias");
            }
        }
    }

    #[test]
    fn lines_agree_with_themselves() {
        for register in TABLE {
            assert!(register.count == 1 || register.stride >= 4, "{}", register.name);
            if matches!(register.mode, Mode::Ro | Mode::Rc) {
                assert_eq!(register.writable, 0, "{}", register.name);
            }
        }
    }
}
