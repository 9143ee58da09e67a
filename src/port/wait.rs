//! Sleeping until a port has packets, or until somebody rings.
//!
//! A worker that received nothing for a while need not spin: it waits on the descriptors of its drivers
//! ([`Driver::poll_fd`](super::Driver::poll_fd)) with a [`Waiter`]. Other threads wake it with the waiter's [`Doorbell`]. Ringing
//! costs a fence and a load unless the waiter is asleep, so that it may be done for every burst.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use super::sys;
use crate::sync::primitive::{AtomicBool, Ordering, fence};

/// Wakes one waiter.
///
/// *Thread-safety.* Any thread may ring. The flag is atomic; the pipe is the kernel's.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
    pipe: PipeWriter,
}

impl Doorbell {
    /// Wakes the waiter if it sleeps. What the caller wrote before is seen by the waiter's last look before it sleeps, or the
    /// waiter does not sleep.
    #[inline]
    pub fn ring(&self) {
        // Pairs with the fence in `Waiter::wait`: either this thread sees the flag, or the waiter sees what was written.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Only who clears the flag writes, so there is at most one byte in the pipe for each sleep.
        if self.asleep.swap(false, Ordering::Relaxed) {
            // It fails only when the waiter has gone.
            let _ = (&self.pipe).write(&[1]);
        }
    }
}

/// The sleeping side.
#[derive(Debug)]
pub struct Waiter {
    bell: Arc<Doorbell>,
    pipe: PipeReader,
    fds: Vec<libc::pollfd>,
}

/// How long a wait is at least when descriptors report only errors: an interface that has gone would make it return at once.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

impl Waiter {
    /// A waiter and its bell.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn new() -> io::Result<Waiter> {
        let (pipe, writer) = io::pipe()?;
        let bell = Arc::new(Doorbell { asleep: AtomicBool::new(false), pipe: writer });
        Ok(Waiter { bell, pipe, fds: Vec::new() })
    }

    /// The bell that wakes this waiter.
    pub fn doorbell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// Waits until one of `fds` can be read, the bell rings, or `timeout` is over. `is_idle` is asked last: false if there is work
    /// after all, then there is no wait.
    pub fn wait(&mut self, fds: impl IntoIterator<Item = i32>, timeout: Duration, is_idle: impl FnOnce() -> bool) {
        let read = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        self.fds.clear();
        self.fds.push(read(std::os::fd::AsRawFd::as_raw_fd(&self.pipe)));
        self.fds.extend(fds.into_iter().map(read));
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let ready = if is_idle() { sys::poll(&mut self.fds, timeout) } else { 0 };
        self.bell.asleep.store(false, Ordering::Relaxed);
        if self.fds[0].revents & libc::POLLIN != 0 {
            // A byte is there, so this does not block.
            let _ = self.pipe.read(&mut [0; 8]);
        }
        if ready > 0 && self.fds.iter().all(|fd| fd.revents & libc::POLLIN == 0) {
            self.fds.truncate(1);
            sys::poll(&mut self.fds, timeout.min(ERROR_PAUSE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_bell_wakes_the_waiter_and_an_unheard_one_costs_nothing() {
        let mut waiter = Waiter::new().unwrap();
        let bell = Arc::clone(waiter.doorbell());
        bell.ring();
        let start = Instant::now();
        waiter.wait([], Duration::from_millis(20), || true);
        assert!(start.elapsed() >= Duration::from_millis(15), "nobody was asleep when it rang");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                bell.ring();
            });
            waiter.wait([], LONG, || true);
        });
        assert!(start.elapsed() < LONG);
    }

    #[test]
    fn work_that_turns_up_before_the_sleep_is_not_slept_over() {
        let mut waiter = Waiter::new().unwrap();
        let start = Instant::now();
        waiter.wait([], LONG, || false);
        assert!(start.elapsed() < LONG);
    }

    #[test]
    fn a_readable_descriptor_ends_the_wait_and_a_broken_one_does_not_make_it_spin() {
        use std::os::fd::AsRawFd;
        let mut waiter = Waiter::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let start = Instant::now();
        writer.write_all(b"x").unwrap();
        waiter.wait([reader.as_raw_fd()], LONG, || true);
        assert!(start.elapsed() < LONG);
        (&reader).read_exact(&mut [0]).unwrap();
        drop(writer);
        let start = Instant::now();
        waiter.wait([reader.as_raw_fd()], Duration::from_millis(5), || true);
        assert!(start.elapsed() >= Duration::from_millis(4));
    }
}
