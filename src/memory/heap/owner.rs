//! Typed owners of blocks: values that live in a heap and are freed when they go.
#![expect(unsafe_code, reason = "typed access to bytes of a heap")]

use super::config::Request;
use super::error::HeapError;
use super::heap::Heap;
use super::state::Part;
use super::tag::Tag;
use crate::memory::Iova;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use zerocopy::FromZeros;

/// A `T` in a heap. Dropping it drops the value and frees the block.
///
/// ```
/// use packetboat::memory::{Memory, MemoryConfig, heap::{Heap, HeapBox, HeapConfig, Request, Tag}};
/// let memory = Memory::reserve(&MemoryConfig::no_huge(4))?;
/// let heap = Heap::new(&memory, HeapConfig::new("tables", 4 << 20))?;
/// let mut counters = HeapBox::new(&heap, Tag::new("counters")?, [0_u64; 16])?;
/// counters[3] += 1;
/// assert_eq!(heap.stats().live_blocks, 1);
/// drop(counters);
/// assert_eq!(heap.stats().live_blocks, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HeapBox<T> {
    place: Owned,
    value: PhantomData<T>,
}

/// A slice of `T` in a heap, of a length that doesn't change. Dropping it drops the elements and
/// frees the block.
pub struct HeapSlice<T> {
    place: Owned,
    /// Elements that have been made, from the first on.
    len: usize,
    elements: PhantomData<T>,
}

/// A block, and the heap that it goes back to when this is dropped.
struct Owned {
    part: Part,
    heap: Arc<Heap>,
}

impl Owned {
    /// `request` with the length and at least the alignment of `count` elements of `T`.
    fn new<T>(heap: &Arc<Heap>, request: Request, count: usize) -> Result<Self, HeapError> {
        let bytes = size_of::<T>().checked_mul(count);
        let wanted =
            |len_bytes| Request { len_bytes, ..request.align(request.align.max(align_of::<T>())) };
        let Some(len_bytes) = bytes.filter(|_| count > 0) else {
            let len_bytes = if count == 0 { 0 } else { usize::MAX };
            return Err(heap.bad_len(&wanted(len_bytes)));
        };
        // Types without a size get a place all the same, so that each has its address.
        let part = heap.take(&wanted(len_bytes.max(1)))?;
        Ok(Self { part, heap: Arc::clone(heap) })
    }

    fn address<T>(&self) -> NonNull<T> {
        self.part.address.cast()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // A destructor can't return an error, and the block stays in use then.
        if let Err(error) = self.heap.give(&self.part) {
            tracing::error!("{error}");
        }
    }
}

impl<T> HeapBox<T> {
    /// Moves `value` into the heap, on any node.
    ///
    /// # Errors
    /// Those of [`Heap::alloc`]; the value is dropped.
    pub fn new(heap: &Arc<Heap>, tag: Tag, value: T) -> Result<Self, HeapError> {
        Self::with(heap, Request::new(size_of::<T>()).tag(tag), value)
    }

    /// Moves `value` into the heap, on the node and with the tag of `request`, aligned as it says
    /// or as the type needs, whichever is more. The request's length isn't looked at.
    ///
    /// # Errors
    /// Those of [`Heap::alloc`]; the value is dropped.
    pub fn with(heap: &Arc<Heap>, request: Request, value: T) -> Result<Self, HeapError> {
        let place = Owned::new::<T>(heap, request, 1)?;
        // SAFETY: the block is long enough and aligned for a T (`Owned::new`), and new.
        unsafe { place.address().write(value) };
        Ok(Self { place, value: PhantomData })
    }

    /// The device's address of the value.
    pub fn iova(&self) -> Iova {
        self.place.part.iova
    }

    /// Moves the value out and frees the block.
    pub fn into_inner(self) -> T {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the value is there since `with` and is read this once: `self` isn't dropped.
        let value = unsafe { this.place.address::<T>().read() };
        // SAFETY: as above: nobody else drops the place, and this doesn't touch the value.
        drop(unsafe { std::ptr::read(&raw const this.place) });
        value
    }
}

impl<T> Deref for HeapBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the block holds a T since `with` and is this owner's; the heap that keeps its
        // extent is held by the Arc.
        unsafe { self.place.address().as_ref() }
    }
}

impl<T> DerefMut for HeapBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; the owner is borrowed mutably.
        unsafe { self.place.address().as_mut() }
    }
}

impl<T> Drop for HeapBox<T> {
    fn drop(&mut self) {
        // SAFETY: the value is there since `with` and dropped once; only then goes the place.
        unsafe { self.place.address::<T>().drop_in_place() };
    }
}

impl<T> HeapSlice<T> {
    /// `len` elements, each made by `make` from its index.
    ///
    /// # Errors
    /// Those of [`Heap::alloc`], before `make` is called; a length of 0 is refused.
    pub fn from_fn(
        heap: &Arc<Heap>,
        request: Request,
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<Self, HeapError> {
        let mut slice =
            Self { place: Owned::new::<T>(heap, request, len)?, len: 0, elements: PhantomData };
        for index in 0..len {
            // If `make` panics, the elements made so far are dropped with `slice`.
            let element = make(index);
            // SAFETY: `index < len`, for which `Owned::new` made room, aligned for T.
            unsafe { slice.place.address::<T>().add(index).write(element) };
            slice.len = index + 1;
        }
        Ok(slice)
    }

    /// A copy of `elements`.
    ///
    /// # Errors
    /// As for [`from_fn`](Self::from_fn).
    pub fn copy_of(heap: &Arc<Heap>, request: Request, elements: &[T]) -> Result<Self, HeapError>
    where
        T: Copy,
    {
        let place = Owned::new::<T>(heap, request, elements.len())?;
        let source = NonNull::from(elements).cast::<T>();
        // SAFETY: the block has room for as many elements, and is new, so it can't overlap them.
        unsafe { place.address::<T>().copy_from_nonoverlapping(source, elements.len()) };
        Ok(Self { place, len: elements.len(), elements: PhantomData })
    }

    /// `len` elements with all bytes 0.
    ///
    /// # Errors
    /// As for [`from_fn`](Self::from_fn).
    pub fn zeroed(heap: &Arc<Heap>, request: Request, len: usize) -> Result<Self, HeapError>
    where
        T: FromZeros,
    {
        let place = Owned::new::<T>(heap, request, len)?;
        // SAFETY: the block has room for `len` elements, and is new.
        unsafe { place.address::<T>().write_bytes(0, len) };
        Ok(Self { place, len, elements: PhantomData })
    }

    /// The device's address of the first element; the rest follows without a gap.
    pub fn iova(&self) -> Iova {
        self.place.part.iova
    }
}

impl<T> Deref for HeapSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements have been made, and the block is this owner's; the heap that
        // keeps its extent is held by the Arc.
        unsafe { std::slice::from_raw_parts(self.place.address().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HeapSlice<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the owner is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.place.address().as_ptr(), self.len) }
    }
}

impl<T> Drop for HeapSlice<T> {
    fn drop(&mut self) {
        let elements = NonNull::slice_from_raw_parts(self.place.address::<T>(), self.len);
        // SAFETY: `len` elements are there, and dropped once; only then goes the place.
        unsafe { elements.drop_in_place() };
    }
}

// `Owned` may go to and be used from any thread; what is in it may do what T may, as `PhantomData`
// says.

impl<T: fmt::Debug> fmt::Debug for HeapBox<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(out)
    }
}

impl<T: fmt::Debug> fmt::Debug for HeapSlice<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(out)
    }
}
