//! From the command line to ports that are started, with everything checked before it is taken.

use std::collections::BTreeMap;

use packetboat::eal::{Eal, LcoreThread, Plan};
use packetboat::mbuf::{MbufPool, MbufPoolConfig};
use packetboat::port::PortConfig;

use crate::drivers::{self, Source};
use crate::error::Error;
use crate::lanes::{self, LcorePlan};
use crate::options::{Arguments, Options};
use crate::portmap::{self, Route};
use crate::ports::{OpenPort, Ports};
use crate::queues::QueuesByPort;
use crate::sizing::{self, CACHE_SIZE, Demand, USUAL_DESCRIPTORS};

/// Everything made ready, nothing started that needs to be stopped.
pub(crate) struct Ready {
    /// The ports that are used, configured.
    pub(crate) ports: Ports,
    /// By NUMA node; `None`: nodes don't matter, or aren't known.
    pub(crate) pools: BTreeMap<Option<u32>, MbufPool>,
    /// Lcores that wait for work, each with what it shall do.
    pub(crate) lcores: Vec<(LcoreThread, LcorePlan)>,
    /// Memory and VFIO; goes last.
    pub(crate) eal: Eal,
}

/// Does all that can fail before a port is started.
///
/// # Errors
/// Each thing that can be missing has its own. What was taken until then is given back.
pub(crate) fn prepare(arguments: &Arguments) -> Result<Ready, Error> {
    let options = &arguments.l2fwd;
    let plan = Plan::make(&arguments.eal)?;
    let devices = drivable(&plan)?;
    plan.check_devices()?;
    let names: Vec<String> = devices.iter().map(Source::name).collect();
    let routes = portmap::routes(&names, options.portmask, options.portmap.as_ref())?;
    let lcore_plans = lanes::assign(
        &routes,
        options.rxq,
        options.queues_per_lcore,
        plan.lcores().application(),
        plan.lcores().main(),
    )?;

    let need = needed_bytes(options, &devices, &routes, &lcore_plans);
    let eal = plan.start(need)?;
    let ports = open(&eal, options, &devices, &routes, &lcore_plans)?;
    let pools = make_pools(&eal, options, &ports, &lcore_plans)?;
    let start = |plan: LcorePlan| Ok((eal.lcore(plan.lcore)?, plan));
    let lcores = lcore_plans.into_iter().map(start).collect::<Result<_, Error>>()?;
    Ok(Ready { ports, pools, lcores, eal })
}

/// The plan's devices that a linked driver knows; their order is the order of ports: those of
/// `--vdev` come last.
fn drivable(plan: &Plan) -> Result<Vec<Source>, Error> {
    let mut devices = Vec::new();
    for device in plan.devices() {
        if drivers::for_ids(&device.ids()).is_some() {
            devices.push(Source::Found(device.clone()));
        } else if plan.is_named(device) {
            return Err(drivers::unsupported(device));
        } else {
            tracing::info!("left alone: {}: no driver here knows it", device);
        }
    }
    for vdev in plan.vdevs() {
        drivers::for_vdev(vdev)?;
        devices.push(Source::Virtual(vdev.clone()));
    }
    if devices.is_empty() {
        let found = match plan.devices() {
            [] => "no network device is bound to vfio-pci, and no -a names a vfio-user socket",
            _ => "no driver here knows the network devices that are bound to vfio-pci",
        };
        return Err(Error::NoPorts { found });
    }
    Ok(devices)
}

/// Bytes of memory that all of it needs, reckoned before any device has been asked.
fn needed_bytes(
    options: &Options,
    devices: &[Source],
    routes: &[Route],
    lcores: &[LcorePlan],
) -> u64 {
    let rx = usize::from(options.rxd.unwrap_or(USUAL_DESCRIPTORS));
    let tx = usize::from(options.txd.unwrap_or(USUAL_DESCRIPTORS));
    let mut by_node: BTreeMap<Option<u32>, Demand> = BTreeMap::new();
    for route in routes {
        let node = devices.get(usize::from(route.from)).and_then(Source::node);
        let demand = by_node.entry(node).or_insert_with(|| no_ports(options, lcores));
        let tx_queues = usize::from(lanes::tx_queues(lcores, route.from));
        demand.rx_descriptors += usize::from(options.rxq) * rx;
        demand.tx_descriptors += tx_queues * tx;
        demand.queues += usize::from(options.rxq) + tx_queues;
    }
    let bytes = |demand: &Demand| {
        let mbufs = options.mbufs.map_or(demand.mbufs(), |mbufs| mbufs as usize);
        sizing::mbuf_bytes(mbufs) + demand.ring_bytes()
    };
    by_node.values().map(bytes).sum::<u64>() + sizing::SPARE_BYTES
}

fn no_ports(options: &Options, lcores: &[LcorePlan]) -> Demand {
    Demand { lcores: lcores.len(), burst_len: options.burst_len(), ..Demand::default() }
}

/// Opens and configures the ports that have a route.
fn open(
    eal: &Eal,
    options: &Options,
    devices: &[Source],
    routes: &[Route],
    lcores: &[LcorePlan],
) -> Result<Ports, Error> {
    let mut ports = Ports::new();
    for &Route { from: number, .. } in routes {
        let Some(device) = devices.get(usize::from(number)) else { continue };
        let port = device.open(eal)?;
        let config = PortConfig {
            number,
            rx_queues: options.rxq,
            tx_queues: lanes::tx_queues(lcores, number),
            rx_descriptors: options.rxd,
            tx_descriptors: options.txd,
            mtu: options.mtu,
            offloads: options.offloads(),
            rx_interrupts: options.interrupt_mode,
        };
        ports.insert(number, OpenPort::configure(port, config)?);
    }
    Ok(ports)
}

/// A pool for each NUMA node that has ports: on that node if there is memory for it, else
/// wherever there is.
fn make_pools(
    eal: &Eal,
    options: &Options,
    ports: &Ports,
    lcores: &[LcorePlan],
) -> Result<BTreeMap<Option<u32>, MbufPool>, Error> {
    let mut demands: BTreeMap<Option<u32>, Demand> = BTreeMap::new();
    for port in ports.values() {
        let demand = demands.entry(port.info.node).or_insert_with(|| no_ports(options, lcores));
        let (rx, tx) = (usize::from(port.config.rx_queues), usize::from(port.config.tx_queues));
        demand.rx_descriptors += rx * usize::from(port.rx_descriptors());
        demand.tx_descriptors += tx * usize::from(port.tx_descriptors());
        demand.queues += rx + tx;
    }
    let mut pools = BTreeMap::new();
    for (node, demand) in demands {
        let count = options.mbufs.map_or(demand.mbufs(), |mbufs| mbufs as usize);
        let name = node.map_or("mbufs".to_owned(), |node| format!("mbufs_node{node}"));
        let config = MbufPoolConfig {
            cache_size: CACHE_SIZE.min(count / 8),
            node,
            ..MbufPoolConfig::new(name, count)
        };
        let pool = MbufPool::new(eal.memory(), &config).or_else(|error| match node {
            Some(node) => {
                tracing::warn!(
                    "mbufs for the ports on NUMA node {node} come from elsewhere: {error}"
                );
                MbufPool::new(eal.memory(), &MbufPoolConfig { node: None, ..config })
            }
            None => Err(error),
        });
        pools.insert(node, pool.map_err(|source| Error::Pool { source })?);
    }
    Ok(pools)
}

/// Starts all ports, or none.
///
/// # Errors
/// If one doesn't start; those that did are stopped again.
pub(crate) fn start(ready: &mut Ready, options: &Options) -> Result<QueuesByPort, Error> {
    let mut started = QueuesByPort::new();
    let mut failure = None;
    for (number, port) in &mut ready.ports {
        let Some(pool) = ready.pools.get(&port.info.node) else { continue };
        match port.start(pool, options.promiscuous) {
            Ok(queues) => {
                started.insert(*number, queues);
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let Some(error) = failure else { return Ok(started) };
    for (number, queues) in started {
        if let Some(port) = ready.ports.get_mut(&number)
            && let Err(second) = port.port.stop(queues)
        {
            tracing::error!("port {number}: {second}");
        }
    }
    Err(error.into())
}
