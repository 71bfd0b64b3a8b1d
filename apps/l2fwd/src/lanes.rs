//! Which lcore forwards what.

use packetboat::eal::Lcore;

use crate::portmap::Route;

/// What one lcore does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LcorePlan {
    /// The lcore.
    pub(crate) lcore: Lcore,
    /// Its lanes, each from one port to another.
    pub(crate) lanes: Vec<LanePlan>,
}

/// The way from one port to another on one lcore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LanePlan {
    /// From which port to which.
    pub(crate) route: Route,
    /// The receive queues that it polls.
    pub(crate) rx_queues: Vec<u16>,
    /// The transmit queue that it has for itself.
    pub(crate) tx_queue: u16,
}

/// More receive queues than the lcores may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough lcores: {queues} receive queues with -q {per_lcore} need {needed} lcores, and -l \
     gives {lcores}; use -q {enough}, or more lcores with -l"
)]
pub(crate) struct TooFewLcores {
    /// Receive queues of all ports.
    queues: usize,
    /// As `-q` says.
    per_lcore: usize,
    /// Lcores that would do.
    needed: usize,
    /// Lcores that there are.
    lcores: usize,
    /// A `-q` that would do.
    enough: usize,
}

/// Gives each receive queue (`rx_queues` on each port that a route starts from) to an lcore.
///
/// Queues are dealt out in the order queue 0 of every port, queue 1 of every port, and so on: at
/// most `per_lcore` (`-q`) to each, or evenly over all lcores without `-q`. If there are lcores
/// enough without it, `main` gets none and is free for control work. Lcores left without a queue
/// don't appear in the answer.
///
/// An lcore has one transmit queue for each port it sends to, counted through from 0 on each port.
///
/// # Errors
/// If `per_lcore` times the lcores is less than the queues.
pub(crate) fn assign(
    routes: &[Route],
    rx_queues: u16,
    per_lcore: Option<u16>,
    lcores: &[Lcore],
    main: Option<Lcore>,
) -> Result<Vec<LcorePlan>, TooFewLcores> {
    let of_every_port = |queue| routes.iter().map(move |route| (*route, queue));
    let queues: Vec<(Route, u16)> = (0..rx_queues).flat_map(of_every_port).collect();
    let wanted = match per_lcore.map(usize::from) {
        Some(most) => queues.len().div_ceil(most.max(1)),
        None => queues.len().min(lcores.len()),
    };
    if wanted > lcores.len() {
        return Err(TooFewLcores {
            queues: queues.len(),
            per_lcore: per_lcore.map_or(1, usize::from),
            needed: wanted,
            lcores: lcores.len(),
            enough: queues.len().div_ceil(lcores.len().max(1)),
        });
    }
    let without_main: Vec<Lcore> =
        lcores.iter().filter(|lcore| Some(**lcore) != main).copied().collect();
    let takers = if wanted <= without_main.len() { &without_main[..] } else { lcores };

    let mut tx_queues = std::collections::BTreeMap::new();
    let mut rest = queues.as_slice();
    let mut plans = Vec::with_capacity(wanted);
    for (index, lcore) in takers.iter().take(wanted).enumerate() {
        let share = match per_lcore.map(usize::from) {
            Some(most) => most.min(rest.len()),
            None => rest.len().div_ceil(wanted - index),
        };
        let (mine, others) = rest.split_at(share);
        rest = others;
        let mut lanes: Vec<LanePlan> = Vec::new();
        for &(route, queue) in mine {
            match lanes.iter_mut().find(|lane| lane.route == route) {
                Some(lane) => lane.rx_queues.push(queue),
                None => {
                    let next = tx_queues.entry(route.to).or_insert(0);
                    lanes.push(LanePlan { route, rx_queues: vec![queue], tx_queue: *next });
                    *next += 1;
                }
            }
        }
        plans.push(LcorePlan { lcore: *lcore, lanes });
    }
    Ok(plans)
}

/// How many transmit queues `port` needs for these plans.
pub(crate) fn tx_queues(plans: &[LcorePlan], port: u16) -> u16 {
    let lanes = plans.iter().flat_map(|plan| &plan.lanes).filter(|lane| lane.route.to == port);
    lanes.map(|lane| lane.tx_queue + 1).max().unwrap_or(0)
}

/// For people: `port 0 rx 0-1 > port 1 tx 0`.
pub(crate) fn describe(lanes: &[LanePlan]) -> String {
    let one = |lane: &LanePlan| {
        let queues: Vec<u32> = lane.rx_queues.iter().map(|queue| u32::from(*queue)).collect();
        let LanePlan { route: Route { from, to }, tx_queue, .. } = lane;
        format!("{from} rx {} > {to} tx {tx_queue}", packetboat::sys::idlist::format(&queues))
    };
    lanes.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use packetboat::eal::Role;

    use super::*;

    fn lcores(ids: &[u32]) -> Vec<Lcore> {
        ids.iter().map(|id| Lcore { id: *id, cpu: *id, node: None, role: Role::Worker }).collect()
    }

    /// `lcore: lanes` for ports that are paired in order.
    fn plan(
        ports: u16,
        rx_queues: u16,
        per_lcore: Option<u16>,
        ids: &[u32],
    ) -> Result<Vec<String>, String> {
        let routes: Vec<Route> =
            (0..ports).map(|port| Route { from: port, to: port ^ 1 }).collect();
        let lcores = lcores(ids);
        let plans = assign(&routes, rx_queues, per_lcore, &lcores, lcores.first().copied());
        plans
            .map(|plans| {
                plans.iter().map(|p| format!("{}: {}", p.lcore.id, describe(&p.lanes))).collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_for_each_lcore() {
        let two = ["0: 0 rx 0 > 1 tx 0", "1: 1 rx 0 > 0 tx 0"];
        assert_eq!(plan(2, 1, None, &[0, 1]).unwrap(), two);
        assert_eq!(plan(2, 1, Some(1), &[0, 1]).unwrap(), two);
    }

    #[test]
    fn the_main_lcore_is_spared_if_it_can_be() {
        let two = ["1: 0 rx 0 > 1 tx 0", "2: 1 rx 0 > 0 tx 0"];
        assert_eq!(plan(2, 1, None, &[0, 1, 2]).unwrap(), two);
        assert_eq!(plan(2, 1, Some(1), &[0, 1, 2, 3]).unwrap(), two);
        assert_eq!(plan(2, 1, Some(2), &[0, 1]).unwrap(), ["1: 0 rx 0 > 1 tx 0, 1 rx 0 > 0 tx 0"]);
    }

    #[test]
    fn one_lcore_does_it_all_with_one_transmit_queue_per_port() {
        assert_eq!(plan(2, 2, None, &[4]).unwrap(), ["4: 0 rx 0-1 > 1 tx 0, 1 rx 0-1 > 0 tx 0"]);
    }

    #[test]
    fn two_queues_of_each_port_on_two_lcores() {
        let plans = plan(2, 2, None, &[0, 1]).unwrap();
        assert_eq!(
            plans,
            ["0: 0 rx 0 > 1 tx 0, 1 rx 0 > 0 tx 0", "1: 0 rx 1 > 1 tx 1, 1 rx 1 > 0 tx 1"]
        );
        assert_eq!(plan(2, 2, Some(2), &[0, 1]).unwrap(), plans);
    }

    #[test]
    fn queues_are_spread_evenly_and_none_is_forgotten() {
        for (ports, rx_queues, ids) in
            [(4, 1, &[0, 1, 2][..]), (4, 3, &[0, 1, 2, 3, 4]), (2, 7, &[0, 1, 2]), (6, 1, &[3])]
        {
            let routes: Vec<Route> =
                (0..ports).map(|port| Route { from: port, to: port ^ 1 }).collect();
            let lcores = lcores(ids);
            let plans = assign(&routes, rx_queues, None, &lcores, lcores.first().copied()).unwrap();
            let mut polled: Vec<(u16, u16)> = plans
                .iter()
                .flat_map(|plan| &plan.lanes)
                .flat_map(|lane| lane.rx_queues.iter().map(|queue| (lane.route.from, *queue)))
                .collect();
            polled.sort_unstable();
            let all = (0..ports).flat_map(|port| (0..rx_queues).map(move |queue| (port, queue)));
            assert!(polled.into_iter().eq(all));
            let loads: Vec<usize> = plans
                .iter()
                .map(|plan| plan.lanes.iter().map(|lane| lane.rx_queues.len()).sum())
                .collect();
            assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
            for port in 0..ports {
                let senders = plans
                    .iter()
                    .filter(|plan| plan.lanes.iter().any(|lane| lane.route.to == port))
                    .count();
                assert_eq!(usize::from(tx_queues(&plans, port)), senders);
            }
        }
    }

    #[test]
    fn too_few_lcores_is_an_error_that_says_how_many_would_do() {
        let error = plan(4, 1, Some(1), &[0, 1]).unwrap_err();
        for part in ["4 receive queues", "-q 1", "4 lcores", "-l gives 2", "use -q 2"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}
