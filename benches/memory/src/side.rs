//! One side's process, and the conversation with it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Why a side can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SideError {
    #[error("{program}: can't be started: {source}. Run it by hand: {command}")]
    Start { program: String, command: String, source: io::Error },
    #[error("{side}: ended in the middle of its work; what it said stands above. Run: {command}")]
    Ended { side: String, command: String },
    #[error("{side}: wanted {wanted}, found {found:?}. Run it by hand: {command}")]
    Answer { side: String, wanted: &'static str, found: String, command: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One round: what it took, and how good the canary was beside it (1 is good).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) cycles: f64,
    pub(crate) canary: f64,
}

/// A program that was started and has said who it is. Dropped, it ends.
pub(crate) struct Side {
    /// What it calls itself.
    pub(crate) title: String,
    command: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Side {
    /// Starts `program` with its arguments, the first of which is its path.
    pub(crate) fn start(program: &[String]) -> Result<Self, SideError> {
        let command = program.join(" ");
        let (path, arguments) = program.split_first().ok_or_else(|| SideError::Answer {
            side: "bench".to_owned(),
            wanted: "a program",
            found: String::new(),
            command: command.clone(),
        })?;
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| SideError::Start {
                program: path.clone(),
                command: command.clone(),
                source,
            })?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = BufReader::new(output.ok_or_else(|| io::Error::other("no pipe"))?);
        let mut side = Self { title: path.clone(), command, child, input, output };
        side.title = side.line()?;
        Ok(side)
    }

    /// The rows that it has: name and unit.
    pub(crate) fn list(&mut self) -> Result<Vec<(String, String)>, SideError> {
        self.say("list")?;
        let mut rows = Vec::new();
        loop {
            let line = self.line()?;
            if line == "." {
                return Ok(rows);
            }
            let Some((name, unit)) = line.split_once('\t') else {
                return Err(self.strange("NAME and UNIT", line));
            };
            rows.push((name.to_owned(), unit.to_owned()));
        }
    }

    pub(crate) fn run(&mut self, row: &str) -> Result<Round, SideError> {
        self.say(&format!("run\t{row}"))?;
        let line = self.line()?;
        let round = line.split_once('\t').and_then(|(cycles, canary)| {
            Some(Round { cycles: cycles.parse().ok()?, canary: canary.parse().ok()? })
        });
        round.ok_or_else(|| self.strange("CYCLES and CANARY", line))
    }

    /// Runs `count` iterations; returns how many operations that were.
    pub(crate) fn once(&mut self, row: &str, count: u64) -> Result<u64, SideError> {
        self.say(&format!("once\t{row}\t{count}"))?;
        let line = self.line()?;
        line.parse().map_err(|_| self.strange("OPERATIONS", line))
    }

    /// Ends it, and waits until it has cleaned up after itself.
    pub(crate) fn end(mut self) -> Result<(), SideError> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(self.ended()) }
    }

    fn say(&mut self, line: &str) -> Result<(), SideError> {
        let said = self.input.as_mut().map(|input| writeln!(input, "{line}"));
        // A broken pipe: why it ended is what it has said itself.
        said.and_then(Result::ok).ok_or_else(|| self.ended())
    }

    fn line(&mut self) -> Result<String, SideError> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(self.ended());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn ended(&self) -> SideError {
        SideError::Ended { side: self.title.clone(), command: self.command.clone() }
    }

    fn strange(&self, wanted: &'static str, found: String) -> SideError {
        let (side, command) = (self.title.clone(), self.command.clone());
        SideError::Answer { side, wanted, found, command }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It ends when its input does; a second wait returns what the first did.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
