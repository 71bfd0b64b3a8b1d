//! Too few hugepages: how many are missing, and the command that mends it.

use super::error::MemoryError;
use super::hugepages::{Inventory, Pool};
use super::plan::Wish;
use super::size::Size;
use std::fmt;

/// What is needed against what is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes needed.
    pub wanted: Size,
    /// Bytes free where they are needed.
    pub available: Size,
    /// The node they are needed on; `None` if any would do.
    pub node: Option<u32>,
    /// The pages that were counted.
    pub pools: Vec<Pool>,
    /// Whether any hugepage is reserved on this machine, free or not.
    pub any_reserved: bool,
    /// What mends it, as a shell command; `None` on a kernel without hugepages.
    pub command: Option<String>,
    /// Size of the pages that the command reserves.
    pub page: Size,
}

impl Shortage {
    pub(super) fn in_total(wanted: u64, wish: &Wish, inventory: &Inventory) -> Self {
        let busiest = wish.cpus_of_node.iter().max_by_key(|(node, cpus)| (*cpus, u32::MAX - node));
        let first = inventory.pools.iter().find_map(|pool| pool.node);
        Self::new(wanted, None, busiest.map(|(node, _)| *node).or(first), wish, inventory)
    }

    pub(super) fn on_node(
        node: Option<u32>,
        wanted: u64,
        wish: &Wish,
        inventory: &Inventory,
    ) -> Self {
        Self::new(wanted, node, node, wish, inventory)
    }

    /// `node` is where the memory has to be, `mend_on` where more pages shall be reserved.
    fn new(
        wanted: u64,
        node: Option<u32>,
        mend_on: Option<u32>,
        wish: &Wish,
        inventory: &Inventory,
    ) -> Self {
        let usable = |pool: &&Pool| {
            wish.page_len_bytes.is_none_or(|len| len == pool.page_len_bytes)
                && (node.is_none() || pool.node == node)
        };
        let pools: Vec<Pool> = inventory.pools.iter().filter(usable).cloned().collect();
        let bytes = |pool: &Pool| pool.free.saturating_mul(pool.page_len_bytes);
        let available = pools.iter().map(bytes).fold(0, u64::saturating_add);

        let page = wish.page_len_bytes.or(inventory.default_page_len_bytes);
        let page = page.or(inventory.page_sizes().last().copied()).unwrap_or(2 << 20);
        let mend = inventory.pools.iter().find(|pool| {
            pool.page_len_bytes == page && (pool.node == mend_on || pool.node.is_none())
        });
        let command = mend.map(|pool| {
            let missing = wanted.saturating_sub(available).div_ceil(page);
            let count = pool.total.saturating_sub(pool.surplus) + missing;
            format!("echo {count} > {}", Inventory::count_file(pool.node, page))
        });
        Self {
            wanted: Size(wanted),
            available: Size(available),
            node,
            pools,
            any_reserved: inventory.pools.iter().any(|pool| pool.total > 0),
            command,
            page: Size(page),
        }
    }

    pub(super) fn into_error(self) -> MemoryError {
        let shortage = Box::new(self);
        match (shortage.any_reserved, shortage.node) {
            (false, _) => MemoryError::NoHugepages(shortage),
            (true, None) => MemoryError::TooFewInTotal(shortage),
            (true, Some(_)) => MemoryError::TooFewOnNode(shortage),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of hugepages", self.wanted)?;
        if let Some(node) = self.node {
            write!(out, " on NUMA node {node}")?;
        }
        let Some(command) = &self.command else {
            return out.write_str(
                " are needed, this kernel has no hugepages of that kind \
                 (/sys/kernel/mm/hugepages; CONFIG_HUGETLBFS): use another kernel, or normal pages \
                 with --no-huge",
            );
        };
        if self.any_reserved {
            write!(out, " are needed, {} are free (", self.available)?;
            // Sizes of which the machine has no page say nothing here.
            let mut separator = "";
            for pool in self.pools.iter().filter(|pool| pool.total > 0) {
                out.write_str(separator)?;
                if let Some(node) = pool.node {
                    write!(out, "node {node}: ")?;
                }
                let page = Size(pool.page_len_bytes);
                write!(out, "{} of {} pages of {page}", pool.free, pool.total)?;
                separator = "; ";
            }
            if separator.is_empty() {
                out.write_str("no page is reserved there")?;
            }
            write!(out, "). Reserve more: `{command}`, or ask for less (-m, --mbufs)")?;
        } else {
            write!(
                out,
                " are needed, none are reserved on this machine. Reserve them: `{command}`, or use \
                 normal pages with --no-huge"
            )?;
        }
        if self.page.0 >= 1 << 30 {
            write!(
                out,
                ". Pages of {} are seldom to be had after boot: reserve them with the kernel \
                 parameters hugepagesz={}G hugepages=N",
                self.page,
                self.page.0 >> 30
            )?;
        }
        Ok(())
    }
}
