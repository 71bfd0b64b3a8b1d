#![cfg_attr(
    target_arch = "aarch64",
    expect(unsafe_code, reason = "barrier instructions that Rust's fences don't offer")
)]
//! Barriers between ordinary memory that a device reads or writes by DMA, and its registers.
//!
//! On x86-64 a store to uncached register space doesn't overtake earlier stores to memory, and
//! loads stay in order (Intel SDM 3A, 9.2.2 "Memory Ordering in P6 and More Recent Processor
//! Families"), so only the compiler has to be held back: `fence(Release)` and `fence(Acquire)`
//! cost no instruction there.
//!
//! On aarch64 Rust's fences order the inner shareable domain only, and a PCI device may stand in
//! the outer one: `dmb oshst` and `dmb oshld` are needed (Arm ARM, B2.3 and C6 "DMB").

use core::sync::atomic::{Ordering, fence};

/// Orders earlier writes to DMA memory (descriptors, buffers, ring indexes) before later writes
/// to memory or registers: a device that sees the later write sees the earlier ones.
#[inline(always)]
pub fn order_dma_writes() {
    fence(Ordering::Release);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches no memory and no register.
    unsafe {
        core::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
}

/// Orders earlier reads (a register, a descriptor's done bit, a ring index) before later reads of
/// DMA memory: what the device wrote before it set the flag is seen after the flag was.
#[inline(always)]
pub fn order_dma_reads() {
    fence(Ordering::Acquire);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches no memory and no register.
    unsafe {
        core::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
}

/// Orders earlier writes before later reads, both in memory shared with a device: after a ring
/// index was published, and before the device's wish for a doorbell is read.
#[inline(always)]
pub fn order_dma_all() {
    fence(Ordering::SeqCst);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches no memory and no register.
    unsafe {
        core::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
}
