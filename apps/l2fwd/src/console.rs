//! Standard output: a table redrawn in place for people, lines for everything else.
//!
//! Whoever reads it may go away (`| head`): what can't be written then is left unwritten, and
//! forwarding goes on.

use std::io::{IsTerminal as _, Stdout, Write as _, stdout};

use crate::lines::lines;
use crate::snapshot::Span;
use crate::table::table;

/// Standard output.
#[derive(Debug)]
pub(crate) struct Console {
    out: Stdout,
    terminal: bool,
    /// Lines of the table that stands last on the screen.
    drawn: usize,
}

impl Console {
    /// Looks what standard output is.
    pub(crate) fn new() -> Self {
        let out = stdout();
        let terminal = out.is_terminal();
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
