//! Cookies: marks before and behind each element that tell who has it, and whether somebody has
//! written beyond it. For debugging; a pool has them or not from the start.
#![expect(unsafe_code, reason = "reads and writes the marks around elements by address")]

use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::ObjectLayout;
use super::pool::Object;

/// In the header of an object that is free. Values that data seldom has.
const FREE: u64 = 0xf4ee_0b9e_c75f_4ee5;
/// In the header of one that somebody has.
const OUT: u64 = 0x1e47_0b9e_c71e_4750;
/// Behind each element.
const END: u64 = 0xe4d0_fe1e_3e47_e4d0;

/// What a cookie says is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is free already.
    #[error("put back twice")]
    DoublePut,
    /// It was handed out while somebody has it: it had been put back twice before.
    #[error("handed out twice")]
    DoubleGet,
    /// Its header is neither that of a free object nor of one that is out.
    #[error("written to before its start (the header cookie is {0:#x})")]
    Underrun(u64),
    /// The mark behind it is gone.
    #[error("written to beyond its end (the trailer cookie is {0:#x})")]
    Overrun(u64),
    /// It isn't an object of this pool, or an address within one.
    #[error("not an object of this pool")]
    Foreign,
}

/// The marks of a pool's objects. Every call is with an object of that pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cookies {
    trailer_at: usize,
}

impl Cookies {
    /// `layout` has room for them.
    pub(super) fn new(layout: &ObjectLayout) -> Option<Self> {
        (layout.header_bytes > 0).then(|| Self { trailer_at: layout.trailer_at() })
    }

    /// # Safety
    /// `object` is one of the pool's.
    unsafe fn header(&self, object: Object) -> &AtomicU64 {
        // SAFETY: the 8 bytes before an element are its header's cookie, always accessed as an
        // atomic; elements are aligned to 64.
        unsafe { AtomicU64::from_ptr(object.0.as_ptr().sub(8).cast()) }
    }

    /// # Safety
    /// `object` is one of the pool's.
    unsafe fn trailer(&self, object: Object) -> &AtomicU64 {
        // SAFETY: the trailer stands that far behind the element's start, aligned to 8, since
        // what comes before it is a multiple of 64 less 8.
        unsafe { AtomicU64::from_ptr(object.0.as_ptr().add(self.trailer_at).cast()) }
    }

    /// Marks a new object as free.
    ///
    /// # Safety
    /// `object` is one of the pool's.
    pub(super) unsafe fn bake(&self, object: Object) {
        // SAFETY: passed on.
        unsafe {
            self.header(object).store(FREE, Ordering::Relaxed);
            self.trailer(object).store(END, Ordering::Relaxed);
        }
    }

    /// Marks an object as out that was free.
    ///
    /// # Safety
    /// `object` is one of the pool's.
    pub(super) unsafe fn take(&self, object: Object) -> Result<(), Fault> {
        // SAFETY: passed on.
        unsafe { self.change(object, FREE, OUT, Fault::DoubleGet) }
    }

    /// Marks an object as free that was out.
    ///
    /// # Safety
    /// `object` is one of the pool's.
    pub(super) unsafe fn give(&self, object: Object) -> Result<(), Fault> {
        // SAFETY: passed on.
        unsafe { self.change(object, OUT, FREE, Fault::DoublePut) }
    }

    /// What is wrong is said once: the marks are whole again afterwards.
    unsafe fn change(&self, object: Object, from: u64, to: u64, same: Fault) -> Result<(), Fault> {
        // SAFETY: the callers' promise.
        let (header, trailer) = unsafe { (self.header(object), self.trailer(object)) };
        let end = trailer.swap(END, Ordering::Relaxed);
        let was = header.swap(to, Ordering::Relaxed);
        match (was, end) {
            (was, _) if was == to => Err(same),
            (was, _) if was != from => Err(Fault::Underrun(was)),
            (_, end) if end != END => Err(Fault::Overrun(end)),
            _ => Ok(()),
        }
    }

    /// Whether the object is free; what is wrong with it, if something is. Changes nothing.
    ///
    /// # Safety
    /// `object` is one of the pool's.
    pub(super) unsafe fn look(&self, object: Object) -> Result<bool, Fault> {
        // SAFETY: passed on.
        let (header, trailer) = unsafe { (self.header(object), self.trailer(object)) };
        let end = trailer.load(Ordering::Relaxed);
        if end != END {
            return Err(Fault::Overrun(end));
        }
        match header.load(Ordering::Relaxed) {
            FREE => Ok(true),
            OUT => Ok(false),
            was => Err(Fault::Underrun(was)),
        }
    }
}
