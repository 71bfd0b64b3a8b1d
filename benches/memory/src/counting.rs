//! The second table: instructions per operation, counted by callgrind.
//!
//! A row runs N iterations, then 2N; the difference is N iterations without what a call costs
//! beside them. Only what happens inside `counted_part` is counted, on both sides.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::side::{Side, SideError};

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CountError {
    #[error(transparent)]
    Side(#[from] SideError),
    #[error("{path}: callgrind left no counts there: {source}. Is valgrind installed?")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path}: wanted {wanted} dumps of callgrind, found {found}: has the program been stripped \
         of the names of `counted_part` and `once_is_done`?"
    )]
    Dumps { path: PathBuf, wanted: usize, found: usize },
}

/// `program` under callgrind, which writes to `dumps`.
pub(crate) fn under_callgrind(program: &[String], dumps: &Path) -> Vec<String> {
    let mut command: Vec<String> = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--toggle-collect=*counted_part*",
        "--dump-after=*once_is_done*",
        "--combine-dumps=yes",
    ]
    .map(str::to_owned)
    .to_vec();
    command.push(format!("--callgrind-out-file={}", dumps.display()));
    command.extend_from_slice(program);
    command
}

/// Instructions per operation of each of `rows`, in their order. `iterations` says how many make a
/// count of a row.
pub(crate) fn count(
    program: &[String],
    dumps: &Path,
    rows: &[String],
    iterations: impl Fn(&str) -> u64,
) -> Result<Vec<f64>, CountError> {
    let mut side = Side::start(&under_callgrind(program, dumps))?;
    let mut operations = Vec::with_capacity(rows.len());
    for row in rows {
        let count = iterations(row);
        side.once(row, count)?; // caches fill, memory is touched for the first time
        let few = side.once(row, count)?;
        let many = side.once(row, 2 * count)?;
        operations.push((many - few) as f64);
    }
    side.end()?;
    let read = |source| CountError::Read { path: dumps.to_owned(), source };
    let totals = totals(&fs::read_to_string(dumps).map_err(read)?);
    let wanted = 3 * rows.len();
    if totals.len() < wanted {
        let (path, found) = (dumps.to_owned(), totals.len());
        return Err(CountError::Dumps { path, wanted, found });
    }
    let each = |(runs, operations): (&[u64], &f64)| match *runs {
        [_, few, many] => many.saturating_sub(few) as f64 / operations,
        _ => f64::NAN,
    };
    Ok(totals.chunks_exact(3).zip(&operations).map(each).collect())
}

/// What each dump has counted, in the order in which they were written.
fn totals(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix("totals:"))
        .filter_map(|number| number.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_in_order() {
        let text = "version: 1\n\npart: 1\nevents: Ir\nfn=(1) a\n12 3\n\ntotals: 30\n\n\
                    part: 2\nfn=(1)\n+4 5\n\ntotals: 55\n";
        assert_eq!(totals(text), [30, 55]);
        assert_eq!(totals(""), [0_u64; 0]);
    }
}
