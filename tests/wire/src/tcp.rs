//! A file over TCP, in one or several connections at once: what the namespaces exchange through the
//! guest. Each connection carries one slice of the file after a header of 16 bytes: offset and
//! length of the slice, big-endian.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Sends `path` to `to` over `streams` connections. Returns the number of bytes.
///
/// # Errors
/// What files and sockets report; `TimedOut` if a connection stands still for `patience`.
pub(crate) fn send(
    to: SocketAddr,
    path: &Path,
    streams: u64,
    patience: Duration,
) -> io::Result<u64> {
    let len_bytes = path.metadata()?.len();
    let share = len_bytes.div_ceil(streams.max(1));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..streams.max(1))
            .map(|index| {
                let offset = (index * share).min(len_bytes);
                let slice = share.min(len_bytes - offset);
                scope.spawn(move || send_slice(to, path, offset, slice, patience))
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| io::Error::other("a sender panicked"))??;
        }
        Ok(len_bytes)
    })
}

fn send_slice(
    to: SocketAddr,
    path: &Path,
    offset: u64,
    slice: u64,
    patience: Duration,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut stream = connect(to, patience)?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&offset.to_be_bytes())?;
    stream.write_all(&slice.to_be_bytes())?;
    copy_exactly(&mut file.take(slice), &mut stream, slice)?;
    // The receiver answers one byte when the slice is on its disk.
    stream.read_exact(&mut [0])
}

/// Connects, waiting up to `patience` for somebody to listen.
fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + patience;
    loop {
        match TcpStream::connect_timeout(&to, patience) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < end => {
                thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Takes `streams` connections on `at` and writes what they bring to `path`. Returns the bytes.
///
/// # Errors
/// What files and sockets report; `TimedOut` if nobody connects, or one stands still, for `patience`.
pub(crate) fn receive(
    at: SocketAddr,
    path: &Path,
    streams: u64,
    patience: Duration,
) -> io::Result<u64> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    File::create(path)?;
    thread::scope(|scope| {
        let mut workers = Vec::new();
        let mut end = Instant::now() + patience;
        while (workers.len() as u64) < streams.max(1) {
            match listener.accept() {
                Ok((stream, _)) => {
                    workers.push(scope.spawn(move || receive_slice(stream, path, patience)));
                    end = Instant::now() + patience;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > end {
                        let found = workers.len();
                        return Err(io::Error::new(
                            ErrorKind::TimedOut,
                            format!("wanted {streams} connections to {at}, found {found}"),
                        ));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
            }
        }
        let mut total = 0;
        for worker in workers {
            total += worker.join().map_err(|_| io::Error::other("a receiver panicked"))??;
        }
        Ok(total)
    })
}

fn receive_slice(mut stream: TcpStream, path: &Path, patience: Duration) -> io::Result<u64> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    let mut number = [0; 8];
    stream.read_exact(&mut number)?;
    let offset = u64::from_be_bytes(number);
    stream.read_exact(&mut number)?;
    let slice = u64::from_be_bytes(number);
    let mut file = File::options().write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    copy_exactly(&mut (&mut stream).take(slice), &mut file, slice)?;
    stream.write_all(&[1])?;
    Ok(slice)
}

fn copy_exactly(from: &mut impl Read, to: &mut impl Write, wanted: u64) -> io::Result<()> {
    let copied = io::copy(from, to)?;
    if copied == wanted {
        return Ok(());
    }
    let message = format!("wanted {wanted} bytes, found {copied} before the end");
    Err(io::Error::new(ErrorKind::UnexpectedEof, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn a_file_arrives_whole() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let bytes: Vec<u8> =
            (0..300_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(&from, &bytes).expect("write");
        for streams in [1, 3] {
            let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let at = SocketAddr::new(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                probe.local_addr().expect("address").port(),
            );
            drop(probe);
            let patience = Duration::from_secs(5);
            let target = to.clone();
            let receiver = thread::spawn(move || receive(at, &target, streams, patience));
            assert_eq!(send(at, &from, streams, patience).expect("sent"), 300_001);
            assert_eq!(receiver.join().expect("receiver").expect("received"), 300_001);
            assert!(std::fs::read(&to).expect("read") == bytes);
        }
    }
}
