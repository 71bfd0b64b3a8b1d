//! Runs a model under loom, and says how many interleavings there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Walks through all interleavings with at most `preemptions` forced switches (`None`: all there
/// are), and prints their number for `scripts/test.sh loom` to add up.
pub(crate) fn model(preemptions: Option<usize>, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    // Beyond loom's 1,000: a heap's operations touch more atomics than that.
    builder.max_branches = 20_000;
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        check();
    });
    assert!(runs.load(Ordering::Relaxed) > 1, "loom saw one interleaving only: nothing is shared");
    let bound = preemptions.map_or("no bound".to_owned(), |most| format!("{most} switches"));
    let name = std::thread::current().name().unwrap_or("a model").to_owned();
    // A line of its own: the harness doesn't end its own line before a test's output.
    println!("\nloom: {name}: {} interleavings, {bound}", runs.load(Ordering::Relaxed));
}
