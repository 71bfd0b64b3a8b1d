//! What is to be reached against DPDK. Reported, never asserted: a busy machine is no bug.

/// The ratio of medians that a group of rows should stay below.
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) limit: f64,
    covers: fn(&str) -> bool,
}

/// Each row belongs to one at most; larger blocks and two cores to none.
pub(crate) const BARS: [Bar; 6] = [
    Bar { name: "mempool, cached", limit: 0.85, covers: |row| mempool(row) && !uncached(row) },
    Bar { name: "mempool, uncached", limit: 0.70, covers: |row| mempool(row) && uncached(row) },
    Bar { name: "ring", limit: 0.85, covers: |row| row.starts_with("ring ") },
    Bar { name: "mbuf", limit: 0.60, covers: |row| row.starts_with("mbuf ") },
    Bar {
        name: "malloc and free, 1024 live",
        limit: 0.50,
        covers: |row| row.starts_with("heap ") && row.contains(" keep=1024 "),
    },
    Bar {
        name: "malloc+free, nothing live",
        limit: 0.03,
        covers: |row| row.starts_with("heap alloc+free "),
    },
];

fn mempool(row: &str) -> bool {
    row.starts_with("mempool ")
}

fn uncached(row: &str) -> bool {
    row.contains(" cache=0 ")
}

/// How a group did.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) rows: usize,
    pub(crate) reached: usize,
    /// Rows whose control is beyond 5 %, and rows without a figure.
    pub(crate) unsure: usize,
    /// The row with the greatest ratio.
    pub(crate) worst: Option<(String, f64)>,
}

impl Bar {
    /// `rows`: name, ratio and control of each.
    pub(crate) fn outcome<'a>(
        &self,
        rows: impl Iterator<Item = (&'a str, Option<f64>, Option<f64>)>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        for (name, ratio, control) in rows.filter(|row| (self.covers)(row.0)) {
            outcome.rows += 1;
            let sure = control.is_some_and(|control| (control - 1.0).abs() <= 0.05);
            outcome.unsure += usize::from(!sure);
            let Some(ratio) = ratio else { continue };
            outcome.reached += usize::from(ratio <= self.limit);
            if outcome.worst.as_ref().is_none_or(|(_, worst)| *worst < ratio) {
                outcome.worst = Some((name.to_owned(), ratio));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_belongs_to_one_bar_at_most() {
        let bar = |row: &str| {
            let names: Vec<_> =
                BARS.iter().filter(|bar| (bar.covers)(row)).map(|bar| bar.name).collect();
            assert!(names.len() <= 1, "{row}: {names:?}");
            names.first().copied()
        };
        assert_eq!(bar("mempool cache=0 keep=32 bulk=1 get+put"), Some("mempool, uncached"));
        assert_eq!(bar("mempool cache=256 keep=32 bulk=1 get+put"), Some("mempool, cached"));
        assert_eq!(bar("mbuf cache=0 alloc+free keep=1"), Some("mbuf"));
        assert_eq!(bar("ring sp/sc bulk n=1 enqueue+dequeue"), Some("ring"));
        assert_eq!(bar("two cores: ring sp/sc burst n=1"), None);
        assert_eq!(bar("heap alloc+free 64 keep=1"), Some("malloc+free, nothing live"));
        assert_eq!(bar("heap free 1024 keep=1024 random"), Some("malloc and free, 1024 live"));
        assert_eq!(bar("heap free 65536 keep=256 random"), None);
    }

    #[test]
    fn outcomes_count_what_is_reached_and_what_is_unsure() {
        let rows = [
            ("ring a", Some(0.8), Some(1.01)),
            ("ring b", Some(0.9), Some(0.9)),
            ("ring c", None, None),
            ("mbuf d", Some(9.0), Some(1.0)),
        ];
        let outcome = BARS[2].outcome(rows.into_iter());
        let worst = Some(("ring b".to_owned(), 0.9));
        assert_eq!(outcome, Outcome { rows: 3, reached: 1, unsure: 2, worst });
    }
}
