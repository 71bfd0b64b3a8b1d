//! Runs a command in the guest: the other end of scripts/rig/guest/agent.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stream::connect;

/// Exit code and output (both streams) of a command in the guest.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit code, 0–255.
    pub(crate) code: u8,
    /// What it printed.
    pub(crate) output: Vec<u8>,
}

/// Sends `script` to the agent behind `socket` and waits up to `timeout` for its end.
///
/// # Errors
/// What the socket reports, `TimedOut` if no answer came in time.
pub(crate) fn run(socket: &Path, script: &str, timeout: Duration) -> io::Result<Outcome> {
    let end = Instant::now() + timeout;
    let late = || {
        let message = format!("wanted an answer within {} s, found none", timeout.as_secs());
        io::Error::new(ErrorKind::TimedOut, message)
    };
    let mut stream = connect(socket, timeout)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    // Answers to a caller that gave up earlier carry another number.
    let id = format!("{}.{}", std::process::id(), crate::unix_now().subsec_nanos());
    writeln!(stream, "{id} {}", base64_encode(script.as_bytes()))?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        match lines.read_line(&mut line) {
            Ok(0) => {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "QEMU closed the connection"));
            }
            Ok(_) if line.ends_with('\n') => {
                if let Some(answer) = line.trim_end().strip_prefix(&id) {
                    return parse(answer.trim_start());
                }
                line.clear();
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if Instant::now() > end {
                    return Err(late());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn parse(answer: &str) -> io::Result<Outcome> {
    let bad = || io::Error::new(ErrorKind::InvalidData, format!("not an answer: '{answer}'"));
    let (code, output) = answer.split_once(' ').unwrap_or((answer, ""));
    Ok(Outcome {
        code: code.parse().map_err(|_| bad())?,
        output: base64_decode(output).ok_or_else(bad)?,
    })
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 section 4, with padding.
fn base64_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let symbol = ALPHABET[(group >> (18 - 6 * digit)) as usize & 63];
            text.push(if digit > chunk.len() { '=' } else { char::from(symbol) });
        }
    }
    text
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut group = 0u32;
        for digit in 0..4 {
            let value = match chunk.get(digit) {
                Some(symbol) => ALPHABET.iter().position(|known| known == symbol)? as u32,
                None => 0,
            };
            group = group << 6 | value;
        }
        bytes.extend_from_slice(&group.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        // Section 10 of the RFC.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64_encode(plain.as_bytes()), coded);
            assert_eq!(base64_decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64_decode("Zm!v"), None);
    }

    #[test]
    fn an_answer_has_code_and_output() {
        let outcome = parse("17 Zm9v").expect("valid");
        assert_eq!((outcome.code, outcome.output.as_slice()), (17, &b"foo"[..]));
        assert_eq!(parse("0").expect("no output").output, b"");
        assert!(parse("x Zm9v").is_err());
    }
}
