//! Standard output: a table redrawn in place for people, lines for everything else.
//!
//! Whoever reads it may go away (`| head`): what can't be written then is left unwritten, and
//! forwarding goes on.

use std::fmt;
use std::io::{IsTerminal as _, Write, stdout};

use crate::lines::lines;
use crate::snapshot::Span;
use crate::table::table;

/// Standard output, or what stands for it.
pub(crate) struct Console {
    out: Box<dyn Write>,
    terminal: bool,
    /// Lines of the table that stands last on the screen.
    drawn: usize,
}

impl Console {
    /// Looks what standard output is; `table`: it shall count as a terminal.
    pub(crate) fn new(table: bool) -> Self {
        Self::to(Box::new(stdout()), table || stdout().is_terminal())
    }

    /// Writes to `out`, a terminal or not.
    pub(crate) fn to(out: Box<dyn Write>, terminal: bool) -> Self {
        Self { out, terminal, drawn: 0 }
    }

    /// Part of a line that shows that something goes on. Nobody needs it in a file.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.terminal {
            self.write(text);
        }
    }

    /// A line.
    pub(crate) fn line(&mut self, text: &str) {
        self.drawn = 0;
        self.write(&format!("{text}\n"));
    }

    /// Something else was written to the same screen: the next table stands below it.
    pub(crate) fn interrupted(&mut self) {
        self.drawn = 0;
    }

    /// The statistics of a span.
    pub(crate) fn statistics(&mut self, span: Span<'_>) {
        if !self.terminal {
            return self.write(&lines(span));
        }
        let table = table(span);
        // Up to where the last table began, and clear from there to the end of the screen
        // (ECMA-48, CUU and ED); where there is none, a blank line keeps what was before apart.
        let back = match self.drawn {
            0 => "\n".to_owned(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        self.write(&format!("{back}{table}"));
        self.drawn = table.lines().count();
    }

    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sample;
    use crate::testing::Paper;

    #[test]
    fn a_table_is_drawn_over_the_last_one_unless_something_came_between() {
        let paper = Paper::default();
        let mut console = Console::to(paper.writer(), true);
        let (first, second) = (sample(1), sample(2));
        console.progress(".");
        console.statistics(Span { from: None, to: &first });
        assert!(paper.take().starts_with(".\npacketboat l2fwd, forwarding for 0:00:01; "));
        console.statistics(Span { from: Some(&first), to: &second });
        let drawn = paper.take();
        assert!(drawn.starts_with("\x1b[10A\x1b[Jpacketboat l2fwd"), "{drawn:?}");
        assert_eq!(drawn.lines().count(), 10);
        console.interrupted();
        console.statistics(Span { from: Some(&first), to: &second });
        assert!(paper.take().starts_with("\npacketboat l2fwd"));
    }

    #[test]
    fn a_file_gets_lines_and_no_progress() {
        let paper = Paper::default();
        let mut console = Console::to(paper.writer(), false);
        console.progress("Waiting");
        console.line("Port 0 Link Up");
        let one = sample(1);
        console.statistics(Span { from: None, to: &one });
        let text = paper.take();
        assert!(text.starts_with("Port 0 Link Up\nuptime_s=1.0 port=0 "), "{text:?}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_reader_who_went_away_disturbs_nobody() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        Console::to(Box::new(Closed), false).line("anybody?");
    }
}
