//! Pools of values of one type.
#![expect(unsafe_code, reason = "makes references to elements that a guard has")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, align_of, size_of};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::batch::{Batch, LocalPool, Places};
use super::config::{MempoolConfig, MempoolError};
use super::layout::ELEMENT_ALIGN_BYTES;
use super::pool::{Mempool, Object};
use crate::memory::{Iova, Memory};

/// A pool of values that are made once, when the pool is, and then go from hand to hand: what one
/// left in a value the next finds there.
///
/// ```
/// use packetboat::memory::{Memory, MemoryConfig};
/// use packetboat::mempool::{MempoolConfig, ObjectPool};
/// let memory = Memory::reserve(&MemoryConfig::no_huge(2))?;
/// let config = MempoolConfig::new("flows", 1000, 0); // the length is that of the type
/// let pool = ObjectPool::new(&memory, &config, |number, _iova| (number, [0_u8; 100]))?;
/// let mut flow = pool.get().ok_or("none left")?;
/// flow.1[0] = 1;
/// assert_eq!(pool.as_mempool().in_use(), 1);
/// drop(flow);
/// assert_eq!(pool.as_mempool().in_use(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ObjectPool<T> {
    objects: Mempool,
    values: PhantomData<T>,
}

// SAFETY: values go from thread to thread, which `T: Send` allows; two threads never see one value
// at a time. The mempool is Sync.
unsafe impl<T: Send> Sync for ObjectPool<T> {}

/// A pool that can't be closed, since somebody has objects of it.
#[derive(thiserror::Error)]
#[error(
    "mempool {:?}: {out} of {} objects are still out; give them back before the pool goes",
    pool.objects.name(), pool.objects.count()
)]
pub struct ObjectsOut<T> {
    /// The pool, as it was.
    pub pool: ObjectPool<T>,
    /// How many are out.
    pub out: usize,
}

impl<T> fmt::Debug for ObjectsOut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectsOut").field("pool", &self.pool).field("out", &self.out).finish()
    }
}

impl<T> ObjectPool<T> {
    /// Makes a pool; `make` gives each value, by its number and what devices call its address.
    /// `config.element_len_bytes` is replaced by the length of `T`.
    ///
    /// # Errors
    /// Any [`MempoolError`]; no value was made then.
    pub fn new(
        memory: &Arc<Memory>,
        config: &MempoolConfig,
        mut make: impl FnMut(usize, Iova) -> T,
    ) -> Result<Self, MempoolError> {
        const {
            assert!(align_of::<T>() <= ELEMENT_ALIGN_BYTES, "elements start on cache lines");
        }
        // A type of no length gets a byte, so that each value has an address of its own.
        let config = MempoolConfig { element_len_bytes: size_of::<T>().max(1), ..config.clone() };
        let objects = Mempool::new(memory, &config, |number, object, iova| {
            // SAFETY: an element is as long as T, aligned to 64, and nobody has it yet.
            unsafe { object.0.cast::<T>().write(make(number, iova)) };
        })?;
        Ok(Self { objects, values: PhantomData })
    }

    /// The pool of objects below: counts, statistics, audit.
    #[must_use]
    pub fn as_mempool(&self) -> &Mempool {
        &self.objects
    }

    /// Takes a value. `None` if there is none left.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<Pooled<T, &Self>> {
        Some(Pooled { element: self.take_one()?, pool: self })
    }

    /// Takes a value that keeps the pool alive, to be sent to other threads.
    #[inline]
    #[must_use]
    pub fn get_owned(self: &Arc<Self>) -> Option<Pooled<T, Arc<Self>>> {
        Some(Pooled { element: self.take_one()?, pool: Arc::clone(self) })
    }

    /// Takes `N` values at once, or none.
    #[inline(always)]
    #[must_use]
    pub fn get_bulk<const N: usize>(&self) -> Option<PooledArray<'_, T, N>> {
        let mut objects = [const { MaybeUninit::<Object>::uninit() }; N];
        self.objects.get_bulk(&mut objects).then(|| {
            // SAFETY: filled; an array of MaybeUninit has the layout of the array.
            let objects = unsafe { std::mem::transmute_copy::<_, [Object; N]>(&objects) };
            PooledArray { objects, pool: self }
        })
    }

    #[inline(always)]
    fn take_one(&self) -> Option<NonNull<T>> {
        let mut object = [MaybeUninit::<Object>::uninit()];
        self.objects.get_bulk(&mut object).then(|| {
            // SAFETY: filled.
            unsafe { object[0].assume_init() }.0.cast()
        })
    }

    /// The pool as the calling lcore sees it, for loops: its cache is looked up once.
    #[inline]
    #[must_use]
    pub fn local(&self) -> LocalPool<'_, T> {
        LocalPool::new(self)
    }

    /// An empty batch of as many values as there are places.
    #[inline(always)]
    pub fn batch<'b, const N: usize>(
        &'b self,
        places: &'b mut Places<N>,
    ) -> Batch<'b, T, &'b Self> {
        Batch::new(self, places)
    }

    /// Ends the pool.
    ///
    /// # Errors
    /// If objects are out (their guards were forgotten): the pool comes back.
    pub fn close(self) -> Result<(), Box<ObjectsOut<T>>> {
        match self.objects.in_use() {
            0 => Ok(()),
            out => Err(Box::new(ObjectsOut { pool: self, out })),
        }
    }

    /// All values, if none is out.
    pub fn iter_mut(&mut self) -> Option<impl Iterator<Item = &mut T>> {
        // SAFETY: with `&mut self` nobody else takes or has one, so each is ours alone; each is
        // visited once.
        (self.objects.in_use() == 0)
            .then(|| self.objects.addresses().map(|(_, at, _)| unsafe { at.cast::<T>().as_mut() }))
    }
}

impl<T> Drop for ObjectPool<T> {
    fn drop(&mut self) {
        let out = self.objects.in_use();
        if out > 0 {
            let (name, count) = (self.objects.name(), self.objects.count());
            tracing::error!(
                "mempool {name:?}: {out} of {count} objects are still out; its memory is kept"
            );
            return;
        }
        if std::mem::needs_drop::<T>() {
            for value in self.iter_mut().into_iter().flatten() {
                // SAFETY: nobody has it, and the pool goes now.
                unsafe { std::ptr::drop_in_place(value) };
            }
        }
    }
}

impl<T> fmt::Debug for ObjectPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectPool")
            .field(&self.objects.name())
            .field(&self.objects.stats())
            .finish()
    }
}

/// A value of a pool; it goes back when this is dropped. `P` is how the pool is held: borrowed, or
/// as an [`Arc`].
pub struct Pooled<T, P: Deref<Target = ObjectPool<T>>> {
    element: NonNull<T>,
    pool: P,
}

// SAFETY: it is the value's one owner, and holds the pool.
unsafe impl<T: Send, P: Deref<Target = ObjectPool<T>> + Send> Send for Pooled<T, P> {}
// SAFETY: `&Pooled` gives out `&T` only.
unsafe impl<T: Send + Sync, P: Deref<Target = ObjectPool<T>> + Sync> Sync for Pooled<T, P> {}

impl<T, P: Deref<Target = ObjectPool<T>>> Deref for Pooled<T, P> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: made by the pool, and this guard's alone until it is dropped.
        unsafe { self.element.as_ref() }
    }
}

impl<T, P: Deref<Target = ObjectPool<T>>> DerefMut for Pooled<T, P> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.element.as_mut() }
    }
}

impl<T, P: Deref<Target = ObjectPool<T>>> Drop for Pooled<T, P> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken from this pool, by whoever made this, and given back once.
        unsafe { self.pool.objects.put_bulk(&[Object(self.element.cast())]) };
    }
}

impl<T: fmt::Debug, P: Deref<Target = ObjectPool<T>>> fmt::Debug for Pooled<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// `N` values of a pool, which go back together.
pub struct PooledArray<'p, T, const N: usize> {
    objects: [Object; N],
    pool: &'p ObjectPool<T>,
}

// SAFETY: as for `Pooled`.
unsafe impl<T: Send, const N: usize> Send for PooledArray<'_, T, N> {}
// SAFETY: as for `Pooled`.
unsafe impl<T: Send + Sync, const N: usize> Sync for PooledArray<'_, T, N> {}

impl<T, const N: usize> PooledArray<'_, T, N> {
    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: made by the pool, and this guard's alone.
        self.objects.iter().map(|object| unsafe { object.0.cast::<T>().as_ref() })
    }

    /// The values, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        // SAFETY: as above; each is another one.
        self.objects.iter().map(|object| unsafe { object.0.cast::<T>().as_mut() })
    }
}

impl<T, const N: usize> Drop for PooledArray<'_, T, N> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken from this pool together, and given back once.
        unsafe { self.pool.objects.put_bulk(&self.objects) };
    }
}

impl<T, const N: usize> fmt::Debug for PooledArray<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledArray({N} of {:?})", self.pool.objects.name())
    }
}
