//! The way back: frames to their pools, buffers when the last owner goes.
#![expect(unsafe_code, reason = "puts headers back into the pools that they came from")]

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use super::external::Owner;
use super::frame::Mbuf;
use super::header::{Header, Kind};
use super::owners::Owners;
use super::pool::Shared;
use crate::mempool::Object;

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        let header = self.header();
        if !header.owners.is_single() {
            return free_chain(self.as_header());
        }
        // SAFETY: a single segment, ours, in the state its pool wants it in; the pool's memory
        // outlives every mbuf of it.
        unsafe { (*header.meta.pool).objects.put_one(Object(self.as_header().cast())) };
    }
}

impl Mbuf {
    /// Frees `count` frames that stand side by side, those of one pool in one go.
    ///
    /// # Safety
    /// `frames` points to `count` frames that the caller gives up.
    #[inline]
    pub(super) unsafe fn free_bulk(frames: *mut Self, count: usize) {
        let mut from = 0;
        while from < count {
            // SAFETY: `from < count`; headers of frames are valid.
            let (first, pool) = unsafe {
                let first = frames.add(from);
                (first, (*first).header().meta.pool)
            };
            let mut to = from;
            // Four at a time, with one branch.
            while to + 4 <= count {
                let odd = (to..to + 4).fold(0, |odd, at| {
                    // SAFETY: `at < count`.
                    let header = unsafe { (*frames.add(at)).header() };
                    let other_pool = header.meta.pool.addr() ^ pool.addr();
                    odd | other_pool as u64 | u64::from(header.owners.unlike_single())
                });
                if odd != 0 {
                    break;
                }
                to += 4;
            }
            while to < count {
                // SAFETY: as above.
                let header = unsafe { (*frames.add(to)).header() };
                // A chain, or a buffer with other owners, isn't just put back: it ends the run.
                if header.meta.pool != pool || !header.owners.is_single() {
                    break;
                }
                to += 1;
            }
            if to == from {
                // SAFETY: given up by the caller, once.
                free_chain(unsafe { (*first).as_header() });
                from += 1;
                continue;
            }
            // SAFETY: an Mbuf is its header's address, as an Object is; these are single segments
            // of one pool, given up by the caller, in the state that the pool wants them in.
            unsafe {
                let objects = std::slice::from_raw_parts(first.cast::<Object>(), to - from);
                (*pool).objects.put_bulk(objects);
            }
            from = to;
        }
    }
}

/// Headers of one pool on their way back.
struct Batch {
    objects: [MaybeUninit<Object>; 32],
    filled: usize,
    pool: *const Shared,
}

impl Batch {
    /// Adds a header that is in the state its pool wants it in, and nobody's any more.
    ///
    /// # Safety
    /// That is so.
    unsafe fn add(&mut self, header: NonNull<Header>) {
        // SAFETY: headers are valid as long as their pool.
        let pool = unsafe { (*header.as_ptr()).meta.pool };
        if self.filled == self.objects.len() || pool != self.pool {
            self.flush();
            self.pool = pool;
        }
        if let Some(slot) = self.objects.get_mut(self.filled) {
            slot.write(Object(header.cast()));
            self.filled += 1;
        }
    }

    fn flush(&mut self) {
        if self.filled > 0 {
            // SAFETY: the first `filled` ones are initialised, came from `pool`, and were given up.
            unsafe {
                let objects = self.objects.as_ptr().cast::<Object>();
                let objects = std::slice::from_raw_parts(objects, self.filled);
                (*self.pool).objects.put_bulk(objects);
            }
            self.filled = 0;
        }
    }
}

/// Frees a chain segment by segment: what is single goes back, a buffer with other owners loses
/// one, a borrowed buffer is given up, and goes back, too, if this was the last owner.
#[cold]
#[inline(never)]
fn free_chain(first: NonNull<Header>) {
    let mut batch =
        Batch { objects: [const { MaybeUninit::uninit() }; 32], filled: 0, pool: std::ptr::null() };
    let mut next = Some(first);
    // SAFETY: every segment of the chain is the caller's. It is made as its pool wants it before
    // the share in it is given up, and not touched after.
    unsafe {
        while let Some(header) = next {
            let segment = header.as_ptr();
            next = NonNull::new((*segment).meta.next);
            (*segment).meta.next = std::ptr::null_mut();
            (*segment).owners.set_segments(1);
            match (*segment).meta.kind {
                Kind::Own => free_owned(header, &mut batch),
                Kind::Clone | Kind::External => {
                    give_up_source(segment, &mut batch);
                    batch.add(header);
                }
            }
        }
    }
    batch.flush();
}

/// Gives up a share in the buffer of `header`, its own.
///
/// # Safety
/// The share is the caller's.
unsafe fn free_owned(header: NonNull<Header>, batch: &mut Batch) {
    // SAFETY: the header is valid while the caller has a share; with the last one it is the
    // caller's alone.
    unsafe {
        if (*header.as_ptr()).owners.release() {
            (&raw mut (*header.as_ptr()).owners).write(Owners::single());
            batch.add(header);
        }
    }
}

/// Gives up the borrowed buffer that a header uses, and puts its own back in place: it is as it
/// was in its pool, but for the fields that are written anyway.
///
/// # Safety
/// The header is the caller's, of kind `Clone` or `External`.
unsafe fn give_up_source(segment: *mut Header, batch: &mut Batch) {
    // SAFETY: the caller's promise: `source` is what `kind` says, and this header's share in it is
    // given up once.
    unsafe {
        let source = (*segment).meta.source;
        let kind = (*segment).meta.kind;
        Shared::restore(segment);
        match kind {
            Kind::Own => {}
            Kind::Clone => {
                if let Some(owner) = NonNull::new(source.cast::<Header>()) {
                    free_owned(owner, batch);
                }
            }
            Kind::External => drop(Arc::from_raw(source.cast_const().cast::<Owner>())),
        }
    }
}

/// Makes a borrowing header one with its own, empty buffer.
///
/// # Safety
/// The header is the caller's alone, of kind `Clone` or `External`.
pub(super) unsafe fn detach(segment: *mut Header) {
    let mut batch =
        Batch { objects: [const { MaybeUninit::uninit() }; 32], filled: 0, pool: std::ptr::null() };
    // SAFETY: the caller's promise.
    unsafe { give_up_source(segment, &mut batch) };
    batch.flush();
}
