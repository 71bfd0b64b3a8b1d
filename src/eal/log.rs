//! Log lines on standard error.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::time::Instant;

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// The option `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(Level);

impl Default for LogLevel {
    fn default() -> Self {
        Self(Level::INFO)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// The five levels by name; DPDK's other names and its numbers 1 to 8 are taken for the level
    /// that says as much.
    fn from_str(text: &str) -> Result<Self, String> {
        let level = match text.to_ascii_lowercase().as_str() {
            "error" | "emergency" | "alert" | "critical" | "1" | "2" | "3" | "4" => Level::ERROR,
            "warn" | "warning" | "5" => Level::WARN,
            "info" | "notice" | "6" | "7" => Level::INFO,
            "debug" | "8" => Level::DEBUG,
            "trace" => Level::TRACE,
            _ => return Err("wanted error, warn, info, debug or trace".to_owned()),
        };
        Ok(Self(level))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_str().to_ascii_lowercase())
    }
}

/// Writes log lines of `level` and above to standard error from now on, each with the seconds
/// since. The first call decides; later ones change nothing.
pub fn start_logging(level: LogLevel) {
    let _ = tracing_subscriber::fmt()
        .with_max_level(level.0)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(level.0 > Level::INFO)
        .with_timer(SinceStart(Instant::now()))
        .try_init();
}

/// Seconds since then, in milliseconds' steps.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        write!(line, "{:.3}", self.0.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_either_name() {
        for (text, shown) in
            [("debug", "debug"), ("8", "debug"), ("NOTICE", "info"), ("warning", "warn")]
        {
            assert_eq!(text.parse::<LogLevel>().unwrap().to_string(), shown);
        }
        assert!("loud".parse::<LogLevel>().unwrap_err().contains("warn"));
    }
}
