//! The control socket: requests and answers are JSON objects, one per line.
//!
//! A request is `{"request": "stats"}`; what can be asked is in [`Request`]. The answer is any number of lines, the last of which has
//! `"end"` or `"error"`. A connection may ask again and again.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::switch::View;
use crate::answer::{End, Fdb, Flow, Ports, Refusal, Request, Stats};

/// Connections at a time; further ones are closed at once.
const CLIENTS_MAX: usize = 16;
/// The longest request.
const REQUEST_LEN_MAX: u64 = 4096;
/// A client that neither asks nor reads for so long is let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket; it goes with this.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Makes the socket at `path`, for its owner only. One that nobody answers on is replaced.
    pub fn bind(path: &Path) -> io::Result<Control> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on this control socket"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot make the control socket: {e}")))?;
        let control = Control { listener, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(control)
    }

    /// Answers from now on, on threads of its own.
    pub fn serve(&self, view: Arc<View>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let clients = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new().name("wye-control".to_owned()).spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else {
                    // Out of descriptors, most likely; others are given back in time.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
                    clients.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let (view, served) = (Arc::clone(&view), Arc::clone(&clients));
                let name = "wye-client".to_owned();
                let thread = std::thread::Builder::new().name(name).spawn(move || {
                    // An error means that the client has gone.
                    let _ = converse(&client, &view);
                    served.fetch_sub(1, Ordering::AcqRel);
                });
                if thread.is_err() {
                    clients.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Gone already if somebody tidied up; nothing else to be done about it.
        let _ = fs::remove_file(&self.path);
    }
}

fn converse(client: &UnixStream, view: &View) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut requests = BufReader::new(client);
    let mut out = BufWriter::new(client);
    loop {
        let mut line = Vec::new();
        if requests.by_ref().take(REQUEST_LEN_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            say(&mut out, &Refusal { error: format!("no request of one line of at most {REQUEST_LEN_MAX} bytes") })?;
            return out.flush();
        }
        match serde_json::from_slice(&line) {
            Ok(request) => answer(&mut out, &request, view)?,
            Err(e) => say(&mut out, &Refusal { error: format!("not a request: {e}") })?,
        }
        out.flush()?;
    }
}

fn say(out: &mut impl Write, answer: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}

fn answer(out: &mut impl Write, request: &Request, view: &View) -> io::Result<()> {
    let count = match request {
        Request::Stats => {
            say(out, &Stats::of(view))?;
            1
        }
        Request::Ports => {
            let ports = Ports::of(view).ports;
            ports.iter().try_for_each(|port| say(out, port))?;
            ports.len()
        }
        Request::Flows => {
            // One at a time: neither the table's lock nor memory for a million flows is held while a client reads.
            let (mut cursor, mut count) = (0, 0);
            while let Some(flow) = view.datapath.flow_next(&mut cursor) {
                say(out, &Flow::of(&flow, view))?;
                count += 1;
            }
            count
        }
        Request::Fdb => {
            let stations = Fdb::of(view).stations;
            stations.iter().try_for_each(|station| say(out, station))?;
            stations.len()
        }
    };
    say(out, &End { end: count })
}
