//! A NIC and the threads that share it: one answers the client, one moves frames.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::device::Device;

// A client with shared pages rings no bell: how long the data plane sleeps before it looks again.
const SHARED_PATIENCE: Duration = Duration::from_micros(50);
const SPINS: u32 = 2000;

/// How the queue registers are reached, and how eager the data plane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Clients may map the pages of the queue registers.
    pub share_pages: bool,
    /// The data plane never sleeps.
    pub busy: bool,
}

/// A NIC.
pub struct Nic {
    /// Its name in messages.
    pub name: String,
    /// How it is reached.
    pub manner: Manner,
    device: Mutex<Device>,
    wanting: AtomicU32,
    asleep: AtomicBool,
    bell: OwnedFd,
    stop: AtomicBool,
    connection: Mutex<Option<UnixStream>>,
}

impl Nic {
    /// Puts a device where threads can share it.
    ///
    /// # Errors
    /// When there is no eventfd to be had.
    pub fn new(name: String, device: Device, manner: Manner) -> io::Result<Self> {
        Ok(Self {
            name,
            manner,
            device: Mutex::new(device),
            wanting: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stop: AtomicBool::new(false),
            connection: Mutex::new(None),
        })
    }

    /// The device, for anybody but the data plane: who asks is next.
    pub fn device(&self) -> MutexGuard<'_, Device> {
        self.wanting.fetch_add(1, Ordering::SeqCst);
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanting.fetch_sub(1, Ordering::SeqCst);
        device
    }

    /// There may be something to do: wakes the data plane.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Ends the data plane, and the connection if there is one.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        self.hang_up();
    }

    /// Whether it is to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Which connection is open, so that it can be closed from outside.
    pub fn set_connection(&self, stream: Option<UnixStream>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    /// Closes the connection. `false`: there was none.
    pub fn hang_up(&self) -> bool {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.as_ref().is_some_and(|stream| stream.shutdown(std::net::Shutdown::Both).is_ok())
    }

    /// The data plane: moves frames until [`stop`](Self::stop).
    pub fn move_frames(&self) {
        let mut idle = 0u32;
        while !self.is_stopping() {
            while self.wanting.load(Ordering::Relaxed) > 0 {
                std::hint::spin_loop();
                std::thread::yield_now();
            }
            let moved = self.device.lock().unwrap_or_else(PoisonError::into_inner).poll();
            if moved > 0 {
                idle = 0;
                continue;
            }
            idle = idle.saturating_add(1);
            if self.manner.busy || (self.manner.share_pages && idle < SPINS) {
                std::hint::spin_loop();
                continue;
            }
            self.sleep();
        }
    }

    fn sleep(&self) {
        // First say so, then look once more: who rings in between is heard.
        self.asleep.store(true, Ordering::SeqCst);
        let (moved, descriptor, mut patience) = {
            let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
            let moved = device.poll();
            let descriptor = device.wire().descriptor().and_then(|fd| fd.try_clone_to_owned().ok());
            let patience = device.wire().patience();
            let patience = if device.interrupts.is_waiting() { SHARED_PATIENCE } else { patience };
            let patience = device.paused().map_or(patience, |left| patience.min(left));
            (moved, descriptor, patience)
        };
        if moved > 0 {
            self.asleep.store(false, Ordering::SeqCst);
            return;
        }
        if self.manner.share_pages {
            patience = patience.min(SHARED_PATIENCE);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        if let Some(descriptor) = &descriptor {
            fds.push(PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN));
        }
        let _ = poll(&mut fds, Some(&timeout));
        self.asleep.store(false, Ordering::SeqCst);
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}
