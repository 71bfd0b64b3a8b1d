//! What the device itself counts (82599 datasheet 8.2.3.23): read and cleared, and added up.

use crate::bar::Bar;
use crate::registers::{
    BPRC, BPTC, CRCERRS, ERRBC, GORCH, GORCL, GOTCH, GOTCL, GPRC, GPTC, ILLERRC, LXOFFRXCNT,
    LXOFFTXC, LXONRXCNT, LXONTXC, MLFC, MNGPRC, MPRC, MPTC, MRFC, PRC64, PRC127, PRC255, PRC511,
    PRC1023, PRC1522, PTC64, PTC127, PTC255, PTC511, PTC1023, PTC1522, QPRDC, RFC, RJC, RLEC, ROC,
    RUC, RXMPC, Rc, Register, TORH, TORL, TPR, TPT, XEC,
};

/// A counter: its name, its register, and that of its upper half if it has one.
type Line = (&'static str, Register<Rc>, Option<Register<Rc>>);

/// All that are added up, with names as people know them from `ethtool -S` where there are such.
const COUNTERS: &[Line] = &[
    ("rx_good_packets", GPRC, None),
    ("rx_good_bytes", GORCL, Some(GORCH)),
    ("tx_good_packets", GPTC, None),
    ("tx_good_bytes", GOTCL, Some(GOTCH)),
    ("rx_total_packets", TPR, None),
    ("rx_total_bytes", TORL, Some(TORH)),
    ("tx_total_packets", TPT, None),
    ("rx_missed_packets", RXMPC, None),
    ("rx_broadcast_packets", BPRC, None),
    ("rx_multicast_packets", MPRC, None),
    ("tx_broadcast_packets", BPTC, None),
    ("tx_multicast_packets", MPTC, None),
    ("rx_crc_errors", CRCERRS, None),
    ("rx_illegal_byte_errors", ILLERRC, None),
    ("rx_error_bytes", ERRBC, None),
    ("rx_length_errors", RLEC, None),
    ("rx_undersize_errors", RUC, None),
    ("rx_fragment_errors", RFC, None),
    ("rx_oversize_errors", ROC, None),
    ("rx_jabber_errors", RJC, None),
    ("rx_checksum_errors", XEC, None),
    ("rx_management_packets", MNGPRC, None),
    ("mac_local_faults", MLFC, None),
    ("mac_remote_faults", MRFC, None),
    ("rx_xon_packets", LXONRXCNT, None),
    ("rx_xoff_packets", LXOFFRXCNT, None),
    ("tx_xon_packets", LXONTXC, None),
    ("tx_xoff_packets", LXOFFTXC, None),
    ("rx_size_64_packets", PRC64, None),
    ("rx_size_65_to_127_packets", PRC127, None),
    ("rx_size_128_to_255_packets", PRC255, None),
    ("rx_size_256_to_511_packets", PRC511, None),
    ("rx_size_512_to_1023_packets", PRC1023, None),
    ("rx_size_1024_to_max_packets", PRC1522, None),
    ("tx_size_64_packets", PTC64, None),
    ("tx_size_65_to_127_packets", PTC127, None),
    ("tx_size_128_to_255_packets", PTC255, None),
    ("tx_size_256_to_511_packets", PTC511, None),
    ("tx_size_512_to_1023_packets", PTC1023, None),
    ("tx_size_1024_to_max_packets", PTC1522, None),
];

/// Sums since the port was made.
#[derive(Debug)]
pub(crate) struct Statistics {
    sums: Vec<u64>,
    /// Of each receive queue: frames that it dropped as its ring was empty.
    dropped: Vec<u64>,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self { sums: vec![0; COUNTERS.len()], dropped: vec![0; usize::from(QPRDC.count())] }
    }

    /// Reads, and so clears, all of the device's counters without adding them: what they hold
    /// after a reset is nobody's (4.6.5).
    pub(crate) fn clear(bar: &Bar) {
        Self::new().update(bar, QPRDC.count());
    }

    /// Adds what the device has counted since.
    pub(crate) fn update(&mut self, bar: &Bar, rx_queues: u16) {
        if bar.is_gone() {
            return;
        }
        for (sum, (_, register, upper)) in self.sums.iter_mut().zip(COUNTERS) {
            // Missed frames are counted for each packet buffer, of which one is used.
            let low = u64::from(bar.take_at(*register, 0));
            let high = upper.map_or(0, |upper| u64::from(bar.take_at(upper, 0)));
            *sum = sum.wrapping_add(high << 32 | low);
        }
        for (queue, sum) in (0..rx_queues.min(QPRDC.count())).zip(&mut self.dropped) {
            *sum = sum.wrapping_add(u64::from(bar.take_at(QPRDC, queue)));
        }
    }

    /// By name.
    pub(crate) fn named(&self, rx_queues: u16) -> Vec<(String, u64)> {
        let device = COUNTERS.iter().zip(&self.sums);
        let mut all: Vec<_> = device.map(|((name, ..), sum)| ((*name).to_owned(), *sum)).collect();
        let queues = (0..rx_queues).zip(&self.dropped);
        all.extend(queues.map(|(queue, sum)| (format!("rx_queue_{queue}_dropped"), *sum)));
        all
    }
}
