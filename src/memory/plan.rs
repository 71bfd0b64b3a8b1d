//! Which pages to take: a pure function from what is wanted and what is there.

use super::error::MemoryError;
use super::hugepages::{Inventory, Pool};
use super::shortage::Shortage;
use super::size::Size;

/// Pages to take: all of one size, from one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The node; `None` on a kernel without NUMA, or if it doesn't matter.
    pub node: Option<u32>,
    /// Page size in bytes.
    pub page_len_bytes: u64,
    /// How many pages.
    pub pages: u64,
}

impl Take {
    /// Length in bytes; the greatest number there is if it doesn't fit.
    pub fn len_bytes(&self) -> u64 {
        self.pages.saturating_mul(self.page_len_bytes)
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// How much, and where.
    pub(super) amount: Amount,
    /// Only pages of this size.
    pub(super) page_len_bytes: Option<u64>,
    /// Nodes of the CPUs that will work with the memory, with the number of those CPUs.
    pub(super) cpus_of_node: Vec<(u32, u64)>,
}

/// An amount of memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// `-m`, or what the application needs: on whichever nodes.
    Total(u64),
    /// `--socket-mem`: on node 0, 1, ….
    PerNode(Vec<u64>),
}

/// Chooses pages for the whole wish, those of the nodes with most CPUs first.
///
/// # Errors
/// [`MemoryError::NoHugepages`], [`MemoryError::TooFewInTotal`], [`MemoryError::TooFewOnNode`] with the
/// sums and the command that mends it;
/// [`MemoryError::NoSuchNode`], [`MemoryError::PageSize`].
pub(super) fn plan(wish: &Wish, inventory: &Inventory) -> Result<Vec<Take>, MemoryError> {
    if let Some(wanted) = wish.page_len_bytes
        && !inventory.pools.is_empty()
        && !inventory.page_sizes().contains(&wanted)
    {
        let found = inventory.page_sizes().into_iter().map(Size).collect();
        return Err(MemoryError::PageSize { wanted: Size(wanted), found });
    }
    let usable = |pool: &&Pool| wish.page_len_bytes.is_none_or(|len| len == pool.page_len_bytes);
    let pools: Vec<Pool> = inventory.pools.iter().filter(usable).cloned().collect();
    let shares = match &wish.amount {
        Amount::Total(bytes) => spread(*bytes, &pools, wish, inventory)?,
        Amount::PerNode(amounts) => on_nodes(amounts, inventory)?,
    };
    let mut takes = Vec::new();
    for (node, bytes) in shares {
        let here: Vec<&Pool> = pools.iter().filter(|pool| pool.node == node).collect();
        let chosen = choose(&here, bytes)
            .ok_or_else(|| Shortage::on_node(node, bytes, wish, inventory).into_error())?;
        takes.extend(chosen);
    }
    Ok(takes)
}

/// `--socket-mem`, node by node. A kernel without NUMA has one nameless node.
pub(super) fn on_nodes(
    amounts: &[u64],
    inventory: &Inventory,
) -> Result<Vec<(Option<u32>, u64)>, MemoryError> {
    let mut shares = Vec::new();
    for (node, &bytes) in (0_u32..).zip(amounts) {
        match inventory.nodes.as_slice() {
            _ if bytes == 0 => {}
            [] if node == 0 => shares.push((None, bytes)),
            nodes if nodes.contains(&node) => shares.push((Some(node), bytes)),
            nodes => {
                let (option, online) = ("--socket-mem", nodes.to_vec());
                return Err(MemoryError::NoSuchNode { option, node, online });
            }
        }
    }
    Ok(shares)
}

/// Divides a total: over the nodes of the CPUs in proportion to their number, as far as there are
/// pages; what doesn't fit there goes to nodes that have pages left, CPUs first.
fn spread(
    total: u64,
    pools: &[Pool],
    wish: &Wish,
    inventory: &Inventory,
) -> Result<Vec<(Option<u32>, u64)>, MemoryError> {
    let mut nodes: Vec<Option<u32>> = pools.iter().map(|pool| pool.node).collect();
    nodes.dedup();
    let cpus = |node: Option<u32>| {
        let entry = wish.cpus_of_node.iter().find(|(id, _)| Some(*id) == node);
        entry.map_or(0, |(_, cpus)| *cpus)
    };
    nodes.sort_by_key(|node| (u64::MAX - cpus(*node), *node));
    let all_cpus: u64 = nodes.iter().map(|node| cpus(*node)).sum();

    let mut left = total;
    let mut shares: Vec<(Option<u32>, u64)> = Vec::new();
    for &node in &nodes {
        let fair = u128::from(total) * u128::from(cpus(node)) / u128::from(all_cpus.max(1));
        let fair = u64::try_from(fair).unwrap_or(u64::MAX);
        let pages = pools.iter().filter(|pool| pool.node == node && pool.free > 0);
        let whole = pages.map(|pool| pool.page_len_bytes).min().unwrap_or(1);
        let rounded = fair.checked_next_multiple_of(whole).unwrap_or(fair);
        let share = rounded.min(capacity(pools, node)).min(left);
        shares.push((node, share));
        left -= share;
    }
    for (node, share) in &mut shares {
        let more = (capacity(pools, *node) - *share).min(left);
        *share += more;
        left -= more;
    }
    if left > 0 {
        return Err(Shortage::in_total(total, wish, inventory).into_error());
    }
    shares.retain(|(_, share)| *share > 0);
    Ok(shares)
}

fn capacity(pools: &[Pool], node: Option<u32>) -> u64 {
    let here = pools.iter().filter(|pool| pool.node == node);
    here.map(|pool| pool.free.saturating_mul(pool.page_len_bytes)).fold(0, u64::saturating_add)
}

/// Pages of one node that cover `bytes`; `None` if all together are too few. Pages of one size
/// alone are preferred, because a zone can't reach from one segment into the next, unless that
/// wastes more than an eighth where a mixture doesn't.
fn choose(pools: &[&Pool], bytes: u64) -> Option<Vec<Take>> {
    let len = |takes: &[Take]| takes.iter().map(Take::len_bytes).sum::<u64>();
    let (alone, mixed) = (choose_alone(pools, bytes), choose_mixed(pools, bytes)?);
    Some(match alone {
        Some(take) if take.len_bytes() - bytes <= bytes / 8 => vec![take],
        Some(take) if take.len_bytes() <= len(&mixed) => vec![take],
        _ => mixed,
    })
}

/// Pages of one size: the one that wastes least, and of equals the greatest.
fn choose_alone(pools: &[&Pool], bytes: u64) -> Option<Take> {
    let takes = pools.iter().map(|pool| (take(pool, bytes.div_ceil(pool.page_len_bytes)), pool));
    takes
        .filter(|(take, pool)| take.pages <= pool.free)
        .map(|(take, _)| take)
        .min_by_key(|take| (take.len_bytes(), u64::MAX - take.page_len_bytes))
}

/// Pages of all sizes, the greatest first.
fn choose_mixed(pools: &[&Pool], bytes: u64) -> Option<Vec<Take>> {
    let mut pools = pools.to_vec();
    pools.sort_by_key(|pool| u64::MAX - pool.page_len_bytes);
    let mut left = bytes;
    let mut takes = Vec::new();
    for pool in &pools {
        let pages = (left / pool.page_len_bytes).min(pool.free);
        left -= pages * pool.page_len_bytes;
        takes.push(take(pool, pages));
    }
    if left > 0 {
        // Less than a page is left over: one more of the smallest that has one, and back with
        // the smaller ones that this makes needless.
        let spare_page = |(take, pool): (&Take, &&Pool)| take.pages < pool.free;
        let more = takes.iter().zip(&pools).rposition(spare_page)?;
        takes[more].pages += 1;
        let mut spare = takes[more].page_len_bytes.checked_sub(left)?;
        for take in takes.iter_mut().skip(more + 1) {
            let needless = (spare / take.page_len_bytes).min(take.pages);
            take.pages -= needless;
            spare -= needless * take.page_len_bytes;
        }
    }
    takes.retain(|take| take.pages > 0);
    Some(takes)
}

fn take(pool: &Pool, pages: u64) -> Take {
    Take { node: pool.node, page_len_bytes: pool.page_len_bytes, pages }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M2: u64 = 2 << 20;
    const G1: u64 = 1 << 30;

    fn pool(node: u32, page_len_bytes: u64, free: u64) -> Pool {
        Pool { node: Some(node), page_len_bytes, total: free, free, surplus: 0 }
    }

    fn machine(pools: &[Pool]) -> Inventory {
        let mut nodes: Vec<u32> = pools.iter().filter_map(|pool| pool.node).collect();
        nodes.dedup();
        Inventory {
            pools: pools.to_vec(),
            nodes,
            default_page_len_bytes: Some(M2),
            ..Inventory::default()
        }
    }

    fn total(bytes: u64, cpus_of_node: &[(u32, u64)]) -> Wish {
        Wish {
            amount: Amount::Total(bytes),
            page_len_bytes: None,
            cpus_of_node: cpus_of_node.to_vec(),
        }
    }

    fn per_node(amounts: &[u64]) -> Wish {
        Wish { amount: Amount::PerNode(amounts.to_vec()), ..total(0, &[]) }
    }

    /// `(node, page size, pages)` of each take.
    fn planned(wish: &Wish, inventory: &Inventory) -> Vec<(u32, u64, u64)> {
        let takes = plan(wish, inventory).unwrap();
        takes.iter().map(|take| (take.node.unwrap(), take.page_len_bytes, take.pages)).collect()
    }

    #[test]
    fn one_node_serves_all_and_rounds_up() {
        let inventory = machine(&[pool(0, M2, 100)]);
        assert_eq!(planned(&total(64 << 20, &[(0, 2)]), &inventory), [(0, M2, 32)]);
        assert_eq!(planned(&total(1, &[(0, 2)]), &inventory), [(0, M2, 1)]);
        assert_eq!(planned(&total(200 << 20, &[]), &inventory), [(0, M2, 100)]);
    }

    #[test]
    fn a_total_follows_the_cpus() {
        let inventory = machine(&[pool(0, M2, 100), pool(1, M2, 100)]);
        let bytes = 64 << 20;
        assert_eq!(planned(&total(bytes, &[(1, 2)]), &inventory), [(1, M2, 32)]);
        let both = [(0, M2, 16), (1, M2, 16)];
        assert_eq!(planned(&total(bytes, &[(0, 2), (1, 2)]), &inventory), both);
        let uneven = [(1, M2, 24), (0, M2, 8)];
        assert_eq!(planned(&total(bytes, &[(0, 1), (1, 3)]), &inventory), uneven);
        // An odd share is rounded up on the first node, so that the sum is exact.
        let odd = [(0, M2, 17), (1, M2, 16)];
        assert_eq!(planned(&total(bytes + 1, &[(0, 1), (1, 1)]), &inventory), odd);
    }

    #[test]
    fn what_does_not_fit_near_the_cpus_goes_elsewhere() {
        let inventory = machine(&[pool(0, M2, 10), pool(1, M2, 100)]);
        let bytes = 64 << 20;
        assert_eq!(planned(&total(bytes, &[(0, 2)]), &inventory), [(0, M2, 10), (1, M2, 22)]);
        let inventory = machine(&[pool(0, M2, 0), pool(1, M2, 100)]);
        assert_eq!(planned(&total(bytes, &[(0, 2)]), &inventory), [(1, M2, 32)]);
    }

    #[test]
    fn one_page_size_is_preferred_then_least_waste_then_large_pages() {
        let inventory = machine(&[pool(0, G1, 4), pool(0, M2, 1024)]);
        let plan = |bytes| planned(&per_node(&[bytes]), &inventory);
        assert_eq!(plan(64 << 20), [(0, M2, 32)]);
        assert_eq!(plan(2 * G1), [(0, G1, 2)]);
        assert_eq!(plan(G1 + G1 / 2), [(0, M2, 768)]);
        assert_eq!(plan(3 * G1 + M2), [(0, G1, 3), (0, M2, 1)]);
        assert_eq!(plan(4 * G1 + M2), [(0, G1, 4), (0, M2, 1)]);
        assert_eq!(plan(6 * G1), [(0, G1, 4), (0, M2, 1024)]);
    }

    #[test]
    fn a_rest_that_small_pages_cannot_cover_takes_a_large_one_instead_of_them() {
        let inventory = machine(&[pool(0, G1, 2), pool(0, 64 << 10, 8), pool(0, M2, 3)]);
        assert_eq!(
            planned(&per_node(&[G1 + (6 << 20) + (512 << 10)]), &inventory),
            [(0, G1, 1), (0, M2, 3), (0, 64 << 10, 8)]
        );
        let wish = per_node(&[G1 + (7 << 20)]);
        assert_eq!(planned(&wish, &inventory), [(0, G1, 2)]);
        let inventory = machine(&[pool(0, M2, 2), pool(0, 64 << 10, 40)]);
        let wish = per_node(&[M2 * 2 + (96 << 10)]);
        assert_eq!(planned(&wish, &inventory), [(0, M2, 2), (0, 64 << 10, 2)]);
    }

    #[test]
    fn only_the_size_asked_for_is_used() {
        let inventory = machine(&[pool(0, G1, 4), pool(0, M2, 1024)]);
        let wish = Wish { page_len_bytes: Some(G1), ..per_node(&[64 << 20]) };
        assert_eq!(planned(&wish, &inventory), [(0, G1, 1)]);
        let wish = Wish { page_len_bytes: Some(16 << 20), ..per_node(&[64 << 20]) };
        let text = plan(&wish, &inventory).unwrap_err().to_string();
        assert!(text.contains("16 MiB") && text.contains("1 GiB, 2 MiB"), "{text}");
    }

    #[test]
    fn socket_mem_takes_from_each_node_what_it_says() {
        let inventory = machine(&[pool(0, M2, 100), pool(1, M2, 100)]);
        let wish = per_node(&[32 << 20, 64 << 20]);
        assert_eq!(planned(&wish, &inventory), [(0, M2, 16), (1, M2, 32)]);
        assert_eq!(planned(&per_node(&[0, 64 << 20]), &inventory), [(1, M2, 32)]);
        let text = plan(&per_node(&[0, 0, M2]), &inventory).unwrap_err().to_string();
        assert!(text.contains("node 2") && text.contains("nodes 0-1"), "{text}");
    }

    #[test]
    fn a_kernel_without_numa_has_one_nameless_node() {
        let pools = [Pool { node: None, ..pool(0, M2, 10) }];
        let inventory = Inventory { nodes: vec![], ..machine(&pools) };
        let expected = [Take { node: None, page_len_bytes: M2, pages: 2 }];
        assert_eq!(plan(&per_node(&[2 * M2]), &inventory).unwrap(), expected);
        assert_eq!(plan(&total(2 * M2, &[]), &inventory).unwrap(), expected);
        assert!(plan(&per_node(&[M2, M2]), &inventory).is_err());
    }

    proptest::proptest! {
        /// Whatever is asked of whatever machine: a plan covers the wish, takes no page that
        /// isn't free and at most one page too much on each node; and there is one exactly if
        /// the pages suffice.
        #[test]
        fn plans_cover_the_wish_and_take_only_what_is_free(
            free in proptest::array::uniform6(0_u64..20),
            cpus in proptest::array::uniform2(0_u64..4),
            bytes in 1_u64..40 * (16 << 20),
            socket in proptest::bool::ANY,
        ) {
            let sizes = [16 << 20, M2, 64 << 10];
            let pools: Vec<Pool> = (0..6_usize)
                .map(|index| pool((index / 3) as u32, sizes[index % 3], free[index]))
                .collect();
            let inventory = machine(&pools);
            let wish = match socket {
                true => per_node(&[bytes / 2, bytes - bytes / 2]),
                false => total(bytes, &[(0, cpus[0]), (1, cpus[1])]),
            };
            let room = |node| capacity(&pools, Some(node));
            let fits = match socket {
                true => room(0) >= bytes / 2 && room(1) >= bytes - bytes / 2,
                false => room(0) + room(1) >= bytes,
            };
            let Ok(takes) = plan(&wish, &inventory) else {
                assert!(!fits, "refused although there is room");
                return Ok(());
            };
            assert!(fits, "planned without room");
            for take in &takes {
                let same = |pool: &&Pool| {
                    pool.node == take.node && pool.page_len_bytes == take.page_len_bytes
                };
                assert!(take.pages <= pools.iter().find(same).unwrap().free);
                assert!(take.pages > 0);
            }
            let sum: u64 = takes.iter().map(Take::len_bytes).sum();
            assert!(sum >= bytes);
            assert!(sum - bytes < 2 * (16 << 20), "{sum} bytes for {bytes}");
        }
    }
}
