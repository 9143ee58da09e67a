//! What a replay writes: a trace per port, and the list of drops.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wye::datapath::Sink;
use wye::packet::DropReason;
use wye::port::TxBurst;
use wye::port::trace::TraceWriter;

/// What went out at a port.
#[derive(Debug, Default)]
pub struct Port {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// The file, once it is where it belongs.
    pub file: Option<PathBuf>,
    writer: Option<TraceWriter<BufWriter<File>>>,
}

/// The folder, or nothing at all, if none was asked for.
#[derive(Debug)]
pub struct Folder {
    /// Where everything is until it is complete, and where it then goes.
    places: Option<(PathBuf, PathBuf)>,
    ports: BTreeMap<u32, Port>,
    drops: Option<BufWriter<File>>,
    stamp: u64,
    is_recording: bool,
    /// The first thing that went wrong while the worker ran.
    failed: Option<String>,
}

impl Folder {
    /// Makes the folder in which things are until they are complete.
    ///
    /// # Errors
    /// `out` is there and not an empty folder, or the kernel's.
    pub fn new(out: Option<&Path>) -> Result<Self, String> {
        let mut folder =
            Folder { places: None, ports: BTreeMap::new(), drops: None, stamp: 0, is_recording: true, failed: None };
        if let Some(out) = out {
            let cannot = |e: io::Error| format!("{}: {e}", out.display());
            let mut mode = 0o777;
            match fs::read_dir(out) {
                Ok(entries) => {
                    if entries.count() > 0 {
                        return Err(format!("{}: is not empty", out.display()));
                    }
                    // It is replaced at the end, which must not open it to others, nor put a folder where a link is.
                    if fs::symlink_metadata(out).map_err(cannot)?.is_symlink() {
                        return Err(format!("{}: is a link, not a folder", out.display()));
                    }
                    mode = fs::metadata(out).map_err(cannot)?.permissions().mode() & 0o777;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if fs::symlink_metadata(out).is_ok() {
                        return Err(format!("{}: is a link, not a folder", out.display()));
                    }
                }
                Err(e) => return Err(cannot(e)),
            }
            let mut name = out.file_name().ok_or_else(|| format!("{}: has no name", out.display()))?.to_owned();
            name.push(format!(".partial-{}", std::process::id()));
            let partial = out.with_file_name(name);
            DirBuilder::new().mode(mode).create(&partial).map_err(cannot)?;
            folder.places = Some((partial.clone(), out.to_owned()));
            folder.drops = Some(BufWriter::new(File::create(partial.join(DROPS)).map_err(cannot)?));
        }
        Ok(folder)
    }

    /// Whether what follows is written, or only counted.
    pub fn record(&mut self, is_recording: bool) {
        self.is_recording = is_recording;
    }

    /// The time that what is sent now is recorded with.
    pub fn time(&mut self, stamp: u64) {
        self.stamp = stamp;
    }

    /// Writes a line about packet `number`.
    ///
    /// # Errors
    /// The kernel's, with the file's name.
    pub fn drop(&mut self, number: usize, reason: &str) -> Result<(), String> {
        match &mut self.drops {
            Some(drops) if self.is_recording => {
                writeln!(drops, "{number} {reason}").map_err(|e| self.cannot(DROPS, &e))
            }
            _ => Ok(()),
        }
    }

    /// The first error of the packet path, where nobody could be told.
    ///
    /// # Errors
    /// That one.
    pub fn check(&mut self) -> Result<(), String> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// What to say when `file` could not be written.
    fn cannot(&self, file: &str, error: &io::Error) -> String {
        let out = self.places.as_ref().map_or(Path::new(""), |(_, out)| out);
        format!("{}: {error}", out.join(file).display())
    }

    /// Puts everything where it was asked for.
    ///
    /// # Errors
    /// The kernel's, with the file's name; then nothing is left.
    pub fn finish(mut self) -> Result<BTreeMap<u32, Port>, String> {
        if let Some(mut drops) = self.drops.take() {
            drops.flush().map_err(|e| self.cannot(DROPS, &e))?;
        }
        let writers = self.ports.iter_mut().filter_map(|(number, port)| Some((*number, port.writer.take()?)));
        for (number, mut writer) in writers.collect::<Vec<_>>() {
            writer.flush().map_err(|e| self.cannot(&file_name(number), &e))?;
        }
        if let Some((partial, out)) = &self.places {
            // An empty folder gives way.
            fs::rename(partial, out).map_err(|e| format!("{}: {e}", out.display()))?;
            for (number, port) in &mut self.ports {
                port.file = Some(out.join(file_name(*number)));
            }
            self.places = None;
        }
        Ok(core::mem::take(&mut self.ports))
    }

    fn write(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        let port = self.ports.entry(number).or_default();
        port.packets += 1;
        port.bytes += bytes.len() as u64;
        let Some((partial, _)) = self.places.as_ref().filter(|_| self.is_recording) else { return Ok(()) };
        if port.writer.is_none() {
            let file = File::create(partial.join(file_name(number)))?;
            port.writer = Some(TraceWriter::new(BufWriter::with_capacity(1 << 16, file))?);
        }
        port.writer.as_mut().map_or(Ok(()), |writer| writer.write(self.stamp, bytes))
    }
}

/// The list of drops.
const DROPS: &str = "drops.txt";

fn file_name(port: u32) -> String {
    format!("port-{port}.pcap")
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.places {
            // Nobody is left who could do anything about a failure.
            let _ = fs::remove_dir_all(partial);
        }
    }
}

impl Sink for Folder {
    fn transmit(&mut self, port: u32, mut burst: TxBurst<'_>) -> (usize, DropReason) {
        for i in 0..burst.len() {
            // After an error nothing is kept: more would only make more errors.
            if self.failed.is_none()
                && let Err(error) = self.write(port, burst.get(i).data())
            {
                self.failed = Some(self.cannot(&file_name(port), &error));
            }
        }
        (burst.len(), DropReason::TxFull)
    }

    fn shares(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_empty_folder_is_not_opened_to_others_and_a_link_is_refused_at_once() {
        let scratch = std::env::temp_dir().join(format!("wye-replay-output-{}", std::process::id()));
        let (out, link, dangling) = (scratch.join("out"), scratch.join("link"), scratch.join("dangling"));
        fs::create_dir_all(&out).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&out, &link).unwrap();
        symlink(scratch.join("nothing"), &dangling).unwrap();
        for path in [&link, &dangling] {
            let error = Folder::new(Some(path)).unwrap_err();
            assert_eq!(error, format!("{}: is a link, not a folder", path.display()));
        }
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 3);
        Folder::new(Some(&out)).unwrap().finish().unwrap();
        let mode = fs::metadata(&out).unwrap().permissions().mode() & 0o777;
        let names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
        fs::remove_dir_all(&scratch).unwrap();
        assert_eq!((mode, names), (0o700, vec!["drops.txt".into()]));
    }
}
