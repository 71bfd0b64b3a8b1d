//! As much of QEMU's machine protocol as the rig needs: one command, one answer.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stream::connect;

/// Sends `command` with `arguments` to the QEMU behind `socket` and returns what it answers. If
/// `event` is named, waits for that event after the answer and returns the event's data instead.
///
/// # Errors
/// What the socket reports, QEMU's own error text, `TimedOut` after `timeout`.
pub(crate) fn execute(
    socket: &Path,
    command: &str,
    arguments: Value,
    event: Option<&str>,
    timeout: Duration,
) -> io::Result<Value> {
    let end = Instant::now() + timeout;
    let mut stream = connect(socket, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let greeting = next(&mut lines, end)?;
    if greeting.get("QMP").is_none() {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("wanted QMP's greeting, found '{greeting}'"),
        ));
    }
    ask(&mut stream, &mut lines, json!({ "execute": "qmp_capabilities" }), end)?;
    let request = json!({ "execute": command, "arguments": arguments });
    let answer = ask(&mut stream, &mut lines, request, end)?;
    let Some(event) = event else { return Ok(answer) };
    loop {
        let message = next(&mut lines, end)?;
        if message["event"] == event {
            return Ok(message["data"].clone());
        }
    }
}

fn ask(
    stream: &mut impl Write,
    lines: &mut impl BufRead,
    request: Value,
    end: Instant,
) -> io::Result<Value> {
    writeln!(stream, "{request}")?;
    loop {
        let message = next(lines, end)?;
        if let Some(error) = message.get("error") {
            let text = error["desc"].as_str().unwrap_or("no description");
            return Err(io::Error::other(format!("QEMU refused {request}: {text}")));
        }
        if let Some(answer) = message.get("return") {
            return Ok(answer.clone());
        }
        // An event: not what was asked for.
    }
}

fn next(lines: &mut impl BufRead, end: Instant) -> io::Result<Value> {
    if Instant::now() > end {
        return Err(io::Error::new(ErrorKind::TimedOut, "QEMU sends no answer"));
    }
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "QEMU closed the connection"));
    }
    serde_json::from_str(&line).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// Serves one connection: greets, then answers each line by the next of `answers`.
    fn qemu(answers: Vec<&'static str>) -> (tempfile::TempDir, thread::JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let listener = UnixListener::bind(dir.path().join("qmp")).expect("bind");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            writeln!(stream, r#"{{"QMP": {{}}}}"#).expect("greet");
            let requests = BufReader::new(stream.try_clone().expect("clone")).lines();
            requests
                .zip(answers)
                .map(|(request, answer)| {
                    writeln!(stream, "{answer}").expect("answer");
                    request.expect("request")
                })
                .collect()
        });
        (dir, server)
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn an_answer_is_found_among_events() {
        let (dir, server) =
            qemu(vec![r#"{"return": {}}"#, "{\"event\": \"STOP\"}\n{\"return\": {\"x\": 1}}"]);
        let path = dir.path().join("qmp");
        let answer =
            execute(&path, "query-x", json!({ "id": "a" }), None, TIMEOUT).expect("answer");
        assert_eq!(answer, json!({ "x": 1 }));
        let requests = server.join().expect("server");
        assert!(requests[1].contains("query-x") && requests[1].contains(r#""id":"a""#));
    }

    #[test]
    fn an_event_can_be_waited_for() {
        let (dir, server) = qemu(vec![
            r#"{"return": {}}"#,
            "{\"return\": {}}\n{\"event\": \"A\"}\n{\"event\": \"B\", \"data\": {\"device\": \"n\"}}",
        ]);
        let path = dir.path().join("qmp");
        let data = execute(&path, "device_del", json!({}), Some("B"), TIMEOUT).expect("event");
        assert_eq!(data, json!({ "device": "n" }));
        server.join().expect("server");
    }

    #[test]
    fn a_refusal_carries_the_text() {
        let (dir, server) =
            qemu(vec![r#"{"return": {}}"#, r#"{"error": {"desc": "Device 'x' not found"}}"#]);
        let path = dir.path().join("qmp");
        let error = execute(&path, "device_del", json!({}), None, TIMEOUT).expect_err("refused");
        assert!(error.to_string().contains("Device 'x' not found"), "{error}");
        server.join().expect("server");
    }
}
