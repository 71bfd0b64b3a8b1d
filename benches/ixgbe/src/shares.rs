//! What a profile of `plugin/user_instructions.c` says of one program: user-mode instructions for each
//! frame, and the share of its parts.
//!
//! `bench-ixgbe-shares PROFILE MAPS [rx=ADDRESS] [tx=ADDRESS] ROOT…`
//!
//! MAPS is the program's `/proc/PID/maps`; its files are looked for below each ROOT. Names come from
//! `readelf`. Debian's libraries have no names for what they don't export: there, where a function
//! begins and ends stands in `.eh_frame`, `rx=` and `tx=` say which two a driver gave its bursts, and
//! whatever one of these calls belongs to it.
//!
//! Prints a line of tab-separated values, see [`Windows::line`]; then, for the log, each function.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("bench-ixgbe-shares: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<String, String> {
    let (mut bursts, mut files) = (Vec::new(), Vec::new());
    for argument in arguments {
        match argument.split_once('=') {
            Some(("rx", address)) => bursts.push((hexadecimal(address)?, Part::Receive)),
            Some(("tx", address)) => bursts.push((hexadecimal(address)?, Part::Transmit)),
            _ => files.push(argument),
        }
    }
    let [profile, maps, roots @ ..] = files.as_slice() else {
        return Err(format!("wanted PROFILE MAPS ROOT…, found {} of them", files.len()));
    };
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map_err(|error| format!("wanted to read {path}, found: {error}"))
    };
    let profile = Profile::parse(&read(profile)?)?;
    let mut functions = Vec::new();
    for object in objects(&read(maps)?) {
        // What is mapped and isn't a file, or not one that runs, has no names.
        let file = roots.iter().map(|root| below(root, &object.path)).find(|file| file.is_file());
        if let Some(file) = file {
            functions.extend(functions_of(&file, &object)?);
        }
    }
    let costs = costs(&profile, functions, &bursts);
    let mut text = profile.windows.line(&costs);
    for cost in costs.iter().filter(|cost| cost.per_frame(&profile.windows) >= 0.01) {
        let each = cost.per_frame(&profile.windows);
        text +=
            &format!("# {each:7.2} {:12} {} {}\n", cost.part.to_string(), cost.object, cost.name);
    }
    Ok(text)
}

fn below(root: &str, path: &str) -> PathBuf {
    Path::new(root).join(path.trim_start_matches('/'))
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("wanted an address, found '{text}'"))
}

/// What an instruction was executed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Receive,
    Transmit,
    Application,
    Pool,
    Other,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Receive => "receive",
            Self::Transmit => "transmit",
            Self::Application => "application",
            Self::Pool => "pool",
            Self::Other => "other",
        })
    }
}

// ---- the profile

/// What stands in a line `window` or `all`.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    instructions: u64,
    sent: u64,
    tdt_writes: u64,
    faults: u64,
}

impl Window {
    fn parse(numbers: &[&str]) -> Result<Self, String> {
        let numbers: Vec<u64> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [instructions, sent, _received, _rdt, tdt_writes, rx_faults, bad, _ms] => {
                Ok(Self { instructions, sent, tdt_writes, faults: rx_faults + bad })
            }
            _ => Err(format!("wanted the 8 numbers of a window, found {numbers:?}")),
        }
    }

    fn per_frame(&self) -> f64 {
        self.instructions as f64 / self.sent.max(1) as f64
    }
}

#[derive(Debug, Default)]
struct Windows {
    each: Vec<Window>,
    all: Window,
}

impl Windows {
    /// Instructions a frame; of these receive, transmit, application, pool, other; the windows' least
    /// and most; frames for each write of TDT; faults.
    fn line(&self, costs: &[Cost]) -> String {
        let mut parts: BTreeMap<Part, f64> = BTreeMap::new();
        for cost in costs {
            *parts.entry(cost.part).or_default() += cost.per_frame(self);
        }
        let part = |part| parts.get(&part).copied().unwrap_or(0.0);
        let known: f64 = parts.values().sum();
        let other = part(Part::Other) + (self.all.per_frame() - known).max(0.0);
        let each = self.each.iter().map(Window::per_frame);
        format!(
            "{:.1}\t{:.1}\t{:.1}\t{:.1}\t{:.1}\t{:.1}\t{:.1}\t{:.1}\t{:.4}\t{}\n",
            self.all.per_frame(),
            part(Part::Receive),
            part(Part::Transmit),
            part(Part::Application),
            part(Part::Pool),
            other,
            each.clone().fold(f64::INFINITY, f64::min),
            each.fold(0.0, f64::max),
            self.all.sent as f64 / self.all.tdt_writes.max(1) as f64,
            self.all.faults,
        )
    }
}

/// An address that was executed, how often, and the instruction there.
#[derive(Debug)]
struct Executed {
    address: u64,
    count: u64,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Profile {
    windows: Windows,
    executed: Vec<Executed>,
}

impl Profile {
    fn parse(text: &str) -> Result<Self, String> {
        let mut profile = Self::default();
        let mut whole = false;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["window", _, ref numbers @ ..] => {
                    profile.windows.each.push(Window::parse(numbers)?);
                }
                ["all", ref numbers @ ..] => profile.windows.all = Window::parse(numbers)?,
                ["at", address, count, bytes] => profile.executed.push(Executed {
                    address: hexadecimal(address)?,
                    count: count.parse().map_err(|_| format!("wanted a count, found '{line}'"))?,
                    bytes: bytes.as_bytes().chunks(2).filter_map(byte).collect(),
                }),
                ["end", "0"] => whole = true,
                _ => return Err(format!("wanted a line of a profile, found '{line}'")),
            }
        }
        if !whole || profile.windows.all.sent == 0 {
            return Err("wanted a whole profile with frames in it, found less".to_owned());
        }
        Ok(profile)
    }
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

// ---- the program

/// A file that a program has mapped, and where.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    path: String,
    base: u64,
}

/// The files in `/proc/PID/maps`. Each is built to be placed anywhere, and begins at its first mapping.
fn objects(maps: &str) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [range, _, "00000000", _, _, path] = words[..] else { continue };
        let base = range.split_once('-').and_then(|(from, _)| hexadecimal(from).ok());
        if let Some(base) = base
            && path.starts_with('/')
            && !objects.iter().any(|object| object.path == path)
        {
            objects.push(Object { path: path.to_owned(), base });
        }
    }
    objects
}

/// A function where it stands in memory.
#[derive(Clone, Debug)]
struct Function {
    from: u64,
    to: u64,
    name: String,
    object: String,
}

/// The functions of a file: those with names, and those that only `.eh_frame` knows.
fn functions_of(file: &Path, object: &Object) -> Result<Vec<Function>, String> {
    let readelf = |option: &str| {
        let output = Command::new("readelf").arg(option).arg("-W").arg(file).output();
        let output = output.map_err(|error| {
            format!("wanted readelf, found: {error}. Run: apt-get install binutils")
        })?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let short = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let object_name = short.unwrap_or_default();
    let function = |from: u64, to: u64, name: String| Function {
        from: object.base + from,
        to: object.base + to,
        name,
        object: object_name.clone(),
    };
    let mut functions = Vec::new();
    for line in readelf("-s")?.lines() {
        // Num: Value Size Type Bind Vis Ndx Name
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, value, size, "FUNC", _, _, section, name, ..] = words[..] else { continue };
        if let (Ok(from), Ok(size)) = (hexadecimal(value), size.parse::<u64>())
            && section != "UND"
            && size > 0
        {
            functions.push(function(from, from + size, name.to_owned()));
        }
    }
    for line in readelf("--debug-dump=frames")?.lines() {
        let Some((_, range)) =
            line.split_once(" FDE ").and_then(|(_, rest)| rest.split_once("pc="))
        else {
            continue;
        };
        if let Some((from, to)) = range.trim().split_once("..")
            && let (Ok(from), Ok(to)) = (hexadecimal(from), hexadecimal(to))
        {
            functions.push(function(from, to, format!("at {from:#x}")));
        }
    }
    Ok(functions)
}

// ---- who did what

/// What one function cost in all.
#[derive(Debug)]
struct Cost {
    part: Part,
    name: String,
    object: String,
    instructions: u64,
}

impl Cost {
    fn per_frame(&self, windows: &Windows) -> f64 {
        self.instructions as f64 / windows.all.sent.max(1) as f64
    }
}

/// The cost of each function that ran, dearest first.
fn costs(profile: &Profile, mut functions: Vec<Function>, bursts: &[(u64, Part)]) -> Vec<Cost> {
    // Of two that begin at the same address the one with a name comes first, and stays.
    functions.sort_by_key(|function| (function.from, function.name.starts_with("at ")));
    functions.dedup_by_key(|function| function.from);
    let find = |address: u64| {
        let n = functions.partition_point(|function| function.from <= address).checked_sub(1)?;
        (address < functions[n].to).then_some(n)
    };
    let mut parts: Vec<Part> = functions.iter().map(part_by_name).collect();
    for (address, part) in bursts {
        if let Some(n) = find(*address) {
            parts[n] = *part;
        }
    }
    // Nameless helpers belong to who calls them; a helper may have helpers.
    for _ in 0..4 {
        for executed in &profile.executed {
            if let Some(target) = call_target(executed)
                && let (Some(caller), Some(callee)) = (find(executed.address), find(target))
                && parts[callee] == Part::Other
                && matches!(parts[caller], Part::Receive | Part::Transmit)
            {
                parts[callee] = parts[caller];
            }
        }
    }
    let mut costs: BTreeMap<Option<usize>, u64> = BTreeMap::new();
    for executed in &profile.executed {
        *costs.entry(find(executed.address)).or_default() += executed.count;
    }
    let mut costs: Vec<Cost> = costs
        .into_iter()
        .map(|(n, instructions)| match n {
            Some(n) => Cost {
                part: parts[n],
                name: functions[n].name.clone(),
                object: functions[n].object.clone(),
                instructions,
            },
            None => Cost {
                part: Part::Other,
                name: "in no function".to_owned(),
                object: String::new(),
                instructions,
            },
        })
        .collect();
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.instructions));
    costs
}

/// What a name says: `packetboat_ixgbe::rx`, `packetboat::mempool` and so on, mangled; DPDK's l2fwd and
/// the libraries whose functions it calls by name are the application, its pools' rings the pool.
fn part_by_name(function: &Function) -> Part {
    let name = function.name.as_str();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["packetboat_ixgbe"]) {
        if has(&["2rx", "..rx..", "RxQueue"]) {
            Part::Receive
        } else if has(&["2tx", "..tx..", "TxQueue"]) {
            Part::Transmit
        } else {
            Part::Other
        }
    } else if has(&["packetboat_l2fwd", "FnOnce9call_once", "FnOnce40call_once"]) {
        Part::Application // its loop is inlined into the closure that a thread begins with
    } else if has(&["7mempool", "4ring", "4mbuf", "..mempool..", "..ring..", "..mbuf.."]) {
        Part::Pool
    } else if ["l2fwd", "testpmd"].contains(&function.object.as_str()) {
        Part::Application
    } else if ["librte_mempool", "librte_ring"].iter().any(|lib| function.object.starts_with(lib)) {
        Part::Pool
    } else {
        Part::Other
    }
}

/// Where a direct call or jump to another function leads (E8 and E9 with 32 bits).
fn call_target(executed: &Executed) -> Option<u64> {
    match executed.bytes[..] {
        [0xe8 | 0xe9, a, b, c, d] => {
            let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
            Some(executed.address.wrapping_add(5).wrapping_add_signed(distance))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const PROFILE: &str = "\
window 0 1000 10 10 1 1 0 0 2000
window 1 1200 10 10 1 1 0 0 2000
all 2200 20 20 2 2 0 1 4000
at 1000 400 90
at 1010 600 e80b000000
at 1020 1000 90
at 1030 200 90
end 0
";

    fn function(from: u64, name: &str) -> Function {
        Function { from, to: from + 0x10, name: name.to_owned(), object: "lib".to_owned() }
    }

    #[test]
    fn parts_follow_names_bursts_and_calls() {
        let profile = Profile::parse(PROFILE).unwrap();
        let functions = vec![
            function(0x1000, "at 0x0"),
            function(0x1000, "_ZN16packetboat_l2fwd7forward"),
            function(0x1010, "at 0x10"),
            function(0x1020, "at 0x20"),
        ];
        let costs = costs(&profile, functions, &[(0x1010, Part::Transmit)]);
        let part = |name: &str| costs.iter().find(|cost| cost.name == name).unwrap().part;
        assert_eq!(part("_ZN16packetboat_l2fwd7forward"), Part::Application);
        assert_eq!(part("at 0x10"), Part::Transmit);
        assert_eq!(part("at 0x20"), Part::Transmit, "it is called from there");
        assert_eq!(part("in no function"), Part::Other);
        let line = profile.windows.line(&costs);
        assert_eq!(line, "110.0\t0.0\t80.0\t20.0\t0.0\t10.0\t100.0\t120.0\t10.0000\t1\n");
    }

    #[test]
    fn a_profile_that_is_cut_off_is_none() {
        let (cut, _) = PROFILE.split_once("end").unwrap();
        assert!(Profile::parse(cut).is_err());
        assert!(
            Profile::parse(&PROFILE.replace("end 0", "end 7")).is_err(),
            "addresses are missing"
        );
    }

    #[test]
    fn files_begin_at_their_first_mapping() {
        let maps = "\
555555554000-555555556000 r--p 00000000 00:01 5 /bin/l2fwd
555555556000-555555558000 r-xp 00002000 00:01 5 /bin/l2fwd
7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0 [vdso]
";
        let wanted = Object { path: "/bin/l2fwd".to_owned(), base: 0x5555_5555_4000 };
        assert_eq!(objects(maps), [wanted]);
    }
}
