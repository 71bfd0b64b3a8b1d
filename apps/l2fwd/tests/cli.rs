//! The program as a user meets it: what it says, and its exit code, where it can't run.
//!
//! What takes a device is tested in the QEMU rig (`scripts/rig`).
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn l2fwd(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_packetboat-l2fwd"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), None, "{arguments:?}: ended by a signal");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// It must fail with `code`, and say each of `parts` on standard error, nothing on standard output.
#[track_caller]
fn refuses(arguments: &[&str], code: i32, parts: &[&str]) {
    let Outcome { code: found, stdout, stderr } = l2fwd(arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {stderr}");
    assert_eq!(stdout, "", "{arguments:?}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: {part:?} is not in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
}

/// A refusal of our own, told in one line.
#[track_caller]
fn refuses_in_a_line(arguments: &[&str], code: i32, parts: &[&str]) {
    refuses(arguments, code, parts);
    let stderr = l2fwd(arguments).stderr;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("packetboat-l2fwd: error: "), "{stderr}");
}

#[test]
fn help_and_version_are_there() {
    let help = l2fwd(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for part in ["Usage: packetboat-l2fwd", "EAL options:", "l2fwd options:", "Examples:"] {
        assert!(help.stdout.contains(part), "{part:?} is not in: {}", help.stdout);
    }
    let widest = help.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|width| width <= 100), "{widest:?}");
    let version = l2fwd(&["--version"]);
    assert_eq!(version.stdout, format!("packetboat-l2fwd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_command_lines_exit_with_2_and_name_the_option() {
    for (arguments, part) in [
        (&["--bogus"][..], "--bogus"),
        (&["-p", "0"], "no port is enabled"),
        (&["-p", "0x"], "--portmask"),
        (&["--portmap", "(0,1),(1,2)"], "port 1 is named twice"),
        (&["--portmap=(0;1)"], "--portmap"),
        (&["-l", "0,,1"], "--lcores"),
        (&["-l", "0,0"], "lcore 0 is given twice"),
        (&["-a", "eth0"], "PCI address"),
        (&["-q", "0"], "--queues-per-lcore"),
        (&["--burst", "129"], "--burst"),
        (&["-m", "64", "--socket-mem", "64"], "--socket-mem"),
        (&["--no-huge", "--huge-dir", "/x"], "--huge-dir"),
        (&["--no-pci", "-a", "01:00.0"], "--no-pci"),
        (&["--iova-mode", "x"], "--iova-mode"),
        (&["--base-virtaddr", "x"], "--base-virtaddr"),
        (&["--log-level", "x"], "--log-level"),
        (&["-l", "0", "--", "-T", "x"], "--period"),
    ] {
        refuses(arguments, 2, &[part]);
    }
}

#[test]
fn an_lcore_that_is_not_there_is_named_with_those_that_are() {
    refuses_in_a_line(&["-l", "9999"], 1, &["-l", "CPU 9999", "no such CPU", "lscpu"]);
    refuses_in_a_line(&["-l", "0@9999"], 1, &["lcore 0", "CPU 9999"]);
    refuses_in_a_line(&["--main-lcore", "127"], 1, &["--main-lcore 127"]);
}

#[test]
fn an_lcore_that_is_not_allowed_is_named_with_those_that_are() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let (first, last) =
        (allowed.trim().split(['-', ',']).next(), allowed.trim().rsplit(['-', ',']).next());
    let (Some(first), Some(last)) = (first, last) else { panic!("no CPUs in {allowed:?}") };
    if first == last {
        // One CPU: there is none that could be forbidden. The unit tests have a machine for it.
        return;
    }
    let output = Command::new("taskset")
        .args(["-c", first, env!("CARGO_BIN_EXE_packetboat-l2fwd"), "-l", last])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in [format!("CPU {last}"), format!("CPUs {first} only"), "taskset".to_owned()] {
        assert!(stderr.contains(&part), "{part:?} is not in: {stderr}");
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_says_what_is() {
    for option in ["-a", "-b"] {
        let address = "fffe:fe:1f.7";
        let parts = [option, address, "no such PCI function", "scripts/devbind.sh -s"];
        refuses_in_a_line(&[option, address], 1, &parts);
    }
}

#[test]
fn without_devices_there_are_no_ports() {
    let parts = ["no ports", "vfio-pci", "scripts/devbind.sh -b vfio-pci"];
    refuses_in_a_line(&["--no-pci", "-l", "0", "--", "-p", "3"], 1, &parts);
}

#[test]
fn a_stats_file_that_can_not_be_written_is_found_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/stats.json");
    let missing = missing.to_str().unwrap();
    refuses_in_a_line(&["--no-pci", "--stats-json", missing], 1, &["--stats-json", missing]);
    let itself = dir.path().to_str().unwrap();
    refuses_in_a_line(&["--no-pci", "--stats-json", itself], 1, &["--stats-json", "directory"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
