//! Our front end in the lock step of `peer/lockstep.c`: what `peer/frontend_dpdk.c` is for DPDK's.
//!
//! A static library with a C interface. All of it is called by one thread.
#![expect(unsafe_code, reason = "the other side of its functions is a C program")]

use std::ffi::{CStr, c_char, c_uint};
use std::sync::Arc;

use packetboat::mbuf::{Burst, MAX_BURST, Mbuf, MbufPool, MbufPoolConfig};
use packetboat::memory::{IovaModeRequest, Memory, MemoryConfig};
use packetboat::net::{EthernetHeader, MacAddress};
use packetboat::port::{Port, PortConfig, Queues, RxQueue, TxQueue};
use packetboat::sys::lcore_id::LcoreClaim;
use packetboat_virtio::VHOST_USER;

/// Two ports, and the way from the first to the second.
pub struct Frontend {
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    burst: Burst,
    destination: MacAddress,
    source: MacAddress,
    // In this order: a pool goes after those who have its mbufs.
    _others: [Queues; 2],
    _ports: [Box<dyn Port>; 2],
    _pool: MbufPool,
    _lcore: LcoreClaim,
}

type Failure = Box<dyn std::error::Error>;

impl Frontend {
    fn start(
        sockets: [&str; 2],
        arguments: &str,
        queue_size: u16,
        mbufs: usize,
        aged: bool,
        huge: bool,
    ) -> Result<Self, Failure> {
        let lcore = LcoreClaim::claim(0)?;
        let memory = Memory::reserve(&match huge {
            true => MemoryConfig {
                total_mib: Some(64),
                iova_mode: IovaModeRequest::Va,
                ..MemoryConfig::default()
            },
            false => MemoryConfig::no_huge(64),
        })?;
        let pool = MbufPool::new(&memory, &MbufPoolConfig::new("mbufs", mbufs))?;
        if aged {
            age(&pool, mbufs)?;
        }
        let mut ports = [
            port(&memory, sockets[0], arguments, queue_size)?,
            port(&memory, sockets[1], arguments, queue_size)?,
        ];
        let [first, second] = &mut ports;
        let mut queues = [start(first, 0, &pool)?, start(second, 1, &pool)?];
        let (rx, tx) = (queues[0].rx.pop(), queues[1].tx.pop());
        let source = ports[1].info().mac;
        Ok(Self {
            rx: rx.ok_or("port 0 has no receive queue")?,
            tx: tx.ok_or("port 1 has no transmit queue")?,
            _others: queues,
            burst: Burst::with_limit(32),
            destination: MacAddress([2, 0, 0, 0, 0, 1]),
            source,
            _ports: ports,
            _pool: pool,
            _lcore: lcore,
        })
    }

    #[inline(always)]
    fn receive(&mut self) -> usize {
        self.rx.receive(&mut self.burst);
        self.burst.len()
    }

    /// As l2fwd does it.
    #[inline(always)]
    fn rewrite(&mut self) {
        let Self { destination, source, .. } = *self;
        for frame in self.burst.iter_mut() {
            if let Some(header) = frame.view_mut::<EthernetHeader>() {
                header.destination = destination;
                header.source = source;
            }
        }
    }

    #[inline(always)]
    fn send(&mut self) -> usize {
        let before = self.burst.len();
        self.tx.send(&mut self.burst);
        let sent = before - self.burst.len();
        self.burst.clear();
        sent
    }
}

fn port(
    memory: &Arc<Memory>,
    socket: &str,
    arguments: &str,
    queue_size: u16,
) -> Result<Box<dyn Port>, Failure> {
    let vdev = format!("vhost-user,path={socket},queue-size={queue_size},{arguments}").parse()?;
    Ok(VHOST_USER.probe(&vdev, memory)?)
}

fn start(port: &mut Box<dyn Port>, number: u16, pool: &MbufPool) -> Result<Queues, Failure> {
    port.configure(&PortConfig { number, rx_queues: 1, tx_queues: 1, ..PortConfig::default() })?;
    Ok(port.start(std::slice::from_ref(pool))?)
}

/// Puts the pool in a random order, always the same: as peer/frontend_dpdk.c does.
fn age(pool: &MbufPool, count: usize) -> Result<(), Failure> {
    let mut all: Vec<Mbuf> = Vec::new();
    for _ in 0..count {
        all.push(pool.alloc().ok_or("fewer mbufs than there should be")?);
    }
    let mut seed: u32 = 12345;
    for last in (1..count).rev() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        all.swap(last, (seed >> 8) as usize % (last + 1));
    }
    all.into_iter().for_each(drop);
    Ok(())
}

/// Starts both ports. Null: it said why on standard error.
///
/// # Safety
/// The three texts are strings that end with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetboat_start(
    socket_0: *const c_char,
    socket_1: *const c_char,
    arguments: *const c_char,
    queue_size: u16,
    mbufs: c_uint,
    aged: bool,
    huge: bool,
) -> *mut Frontend {
    // SAFETY: the caller's promise.
    let text = |at| unsafe { CStr::from_ptr(at) }.to_str().unwrap_or_default();
    let sockets = [text(socket_0), text(socket_1)];
    match Frontend::start(sockets, text(arguments), queue_size, mbufs as usize, aged, huge) {
        Ok(frontend) => Box::into_raw(Box::new(frontend)),
        Err(error) => {
            eprintln!("packetboat: {error}");
            std::ptr::null_mut()
        }
    }
}

/// Port 1's address.
///
/// # Safety
/// `frontend` came from [`packetboat_start`]; `mac` has room for 6 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetboat_mac(frontend: *const Frontend, mac: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { mac.copy_from((*frontend).source.0.as_ptr(), 6) };
}

/// The most frames that one receive takes.
///
/// # Safety
/// As for [`packetboat_step`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetboat_burst(frontend: *mut Frontend, limit: c_uint) {
    // SAFETY: the caller's promise.
    unsafe { (*frontend).burst = Burst::with_limit((limit as usize).min(MAX_BURST)) };
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident: $body:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `frontend` came from [`packetboat_start`], and no other call is under way.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(frontend: *mut Frontend) -> c_uint {
            // SAFETY: the caller's promise.
            let frontend = unsafe { &mut *frontend };
            let body: fn(&mut Frontend) -> usize = $body;
            body(frontend) as c_uint
        }
    )*};
}

steps! {
    /// Receives, rewrites, sends: how many frames.
    packetboat_step: |frontend| {
        frontend.receive();
        frontend.rewrite();
        frontend.send()
    };
    /// The first part of a step.
    packetboat_rx: Frontend::receive;
    /// The second.
    packetboat_rewrite: |frontend| {
        frontend.rewrite();
        frontend.burst.len()
    };
    /// The third.
    packetboat_tx: Frontend::send;
}
