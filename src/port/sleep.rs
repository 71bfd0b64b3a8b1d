//! Sleeping until a receive queue has something.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::RxQueue;

/// Lets an lcore sleep until one of its receive queues rings.
#[derive(Debug)]
pub struct Sleeper {
    epoll: Epoll,
    eventfds: Vec<EventFd>,
}

impl Sleeper {
    /// For these queues; `None` if one of them can't ring.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub fn new<'a>(queues: impl IntoIterator<Item = &'a dyn RxQueue>) -> io::Result<Option<Self>> {
        let mut sleeper = Self { epoll: Epoll::new()?, eventfds: Vec::new() };
        for queue in queues {
            let Some(eventfd) = queue.interrupt() else { return Ok(None) };
            let event = EpollEvent::new(EventSet::IN, sleeper.eventfds.len() as u64);
            sleeper.epoll.ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)?;
            sleeper.eventfds.push(eventfd.try_clone()?);
        }
        Ok(Some(sleeper))
    }

    /// Sleeps until a queue rings, or for `limit`; whether one rang. What rang is quiet again.
    pub fn sleep(&self, limit: Duration) -> bool {
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let mut events = [EpollEvent::default(); 16];
        // An error is an interrupted sleep: the caller polls, and sleeps again.
        let count = self.epoll.wait(limit_ms, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            if let Some(eventfd) = self.eventfds.get(event.data() as usize) {
                let _ = eventfd.read(); // non-blocking
            }
        }
        count != 0
    }
}
