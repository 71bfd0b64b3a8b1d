//! What differs between processor architectures; nothing else in the tree does.
#![cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(
        unsafe_code,
        reason = "reading the cycle counter takes an intrinsic or inline assembly"
    )
)]

/// The processor's constant-rate counter, in ticks (`sys::tsc::hz` gives ticks per second).
///
/// x86-64: RDTSC, not serialising: good for spans of a burst and longer. aarch64: CNTVCT_EL0.
/// Elsewhere: the monotonic clock in nanoseconds.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn timestamp() -> u64 {
    // SAFETY: RDTSC reads a register and touches no memory; every x86-64 processor has it, and
    // Linux leaves it enabled for user mode (a process that asked for PR_TSC_SIGSEGV gets a
    // signal, not undefined behaviour).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The processor's constant-rate counter, in ticks (CNTVCT_EL0).
#[cfg(target_arch = "aarch64")]
#[inline(always)]
#[must_use]
pub fn timestamp() -> u64 {
    let ticks: u64;
    // SAFETY: reads the virtual counter, which Linux makes readable at EL0; no memory, no flags.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
    ticks
}

/// The monotonic clock in nanoseconds: architectures without a counter of their own here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[must_use]
pub fn timestamp() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
