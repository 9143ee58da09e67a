//! The switch of `wye run`: datapath, bridge, and one thread per worker with its drivers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wye::datapath::{Datapath, Exchange, LocalPorts, PortCounters, Worker};
use wye::gateway::config::{GatewayConfig, PortConfig};
use wye::gateway::underlay::UnderlayConfig;
use wye::gateway::{Bridge, Underlay};
use wye::port::wait::{Doorbell, Waiter};
use wye::port::{Driver, PortEntry, open_queues};
use wye::time::Nanos;

use super::overlay;
use crate::flowfile::FlowFile;

/// Turns without a packet before a worker sleeps: enough to bridge the gaps of a busy link.
const IDLE_TURNS: u32 = 64;
/// The longest sleep: links and statistics are looked at meanwhile.
const SLEEP: Duration = Duration::from_millis(100);
/// The longest sleep if a driver has no descriptor to wait on.
const SLEEP_BLIND: Duration = Duration::from_millis(1);

/// A port as the control side sees it.
pub struct PortView {
    /// What it was made from.
    pub config: PortConfig,
    /// Its queues' counters.
    pub queues: Vec<Arc<PortCounters>>,
}

/// What can be asked of a running switch.
pub struct View {
    /// The datapath.
    pub datapath: Datapath,
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// The underlay, if ports have addresses.
    pub underlay: Option<Arc<Underlay>>,
    /// The ports.
    pub ports: Vec<PortView>,
    start: Instant,
}

impl View {
    /// The time of the datapath's clock, whose origin is the switch's start.
    pub fn now(&self) -> Nanos {
        now(self.start)
    }
}

fn now(start: Instant) -> Nanos {
    // 584 years fit.
    Nanos(start.elapsed().as_nanos() as u64)
}

/// A running switch.
pub struct Switch {
    view: Arc<View>,
    threads: Vec<JoinHandle<Option<LocalPorts>>>,
    bells: Vec<Arc<Doorbell>>,
    stop: Arc<AtomicBool>,
    exhausted: Arc<AtomicUsize>,
}

/// One worker before its thread runs.
struct Seat {
    worker: Worker,
    ports: LocalPorts,
    waiter: Waiter,
}

impl Switch {
    /// Opens the ports and starts the workers. On an error nothing is left: what was opened is closed again.
    pub fn start(config: GatewayConfig, flows: Option<&FlowFile>) -> Result<Switch, Box<dyn std::error::Error>> {
        let datapath = Datapath::new(config.datapath.clone()).map_err(|e| format!("datapath: {e}"))?;
        // All drivers before the first worker: a port that cannot be opened must not be found out by packets.
        let mut drivers: Vec<Vec<Box<dyn Driver>>> = Vec::new();
        for port in &config.ports {
            drivers.push(open_queues(&port.spec, datapath.pool())?);
        }
        let has_underlay = config.ports.iter().any(|port| port.interface.is_some());
        let underlay = has_underlay.then(|| Underlay::new(&datapath, UnderlayConfig::default()));
        let bridge = Bridge::attach_over(&datapath, config.bridge.clone(), underlay.clone())?;
        let mut seats = (0..config.workers.count)
            .map(|_| {
                let mut ports = LocalPorts::new(&datapath);
                ports.set_burst(config.workers.burst);
                Ok(Seat { worker: datapath.worker()?, ports, waiter: Waiter::new()? })
            })
            .collect::<Result<Vec<Seat>, Box<dyn std::error::Error>>>()?;

        let (mut views, mut homes) = (Vec::new(), Vec::new());
        for (at, (port, queues)) in config.ports.iter().cloned().zip(drivers).enumerate() {
            let (number, name) = (port.number, port.spec.name.as_str().into());
            let packet_len_max = queues.first().map_or(0, |driver| driver.packet_len_max()) as u32;
            datapath.port_add(PortEntry { number, name, packet_len_max, up: true })?;
            if let Some(vlans) = &port.vlans {
                bridge.set_port(number, vlans.clone())?;
            }
            let mut counters = Vec::new();
            for (queue, driver) in queues.into_iter().enumerate() {
                // Each port begins at another worker, so that ports of one queue are spread too.
                let seat = (at + queue) % seats.len();
                if queue == 0 {
                    homes.push((number, Some(Arc::clone(seats[seat].waiter.doorbell()))));
                }
                counters.push(seats[seat].ports.add(number, queue as u16, driver));
            }
            views.push(PortView { config: port, queues: counters });
        }
        if seats.len() > 1 {
            let exchange = Exchange::new(&datapath, config.workers.exchange, homes);
            seats.iter_mut().for_each(|seat| seat.ports.connect(&exchange));
        }

        if let Some(underlay) = &underlay {
            // Whatever is sent from here is sent by the first worker.
            let bell = Arc::clone(seats[0].waiter.doorbell());
            datapath.set_injected(Some(Arc::new(move || bell.ring())));
            overlay::set_up(underlay, &bridge, &config)?;
        }
        if let Some(flows) = flows {
            flows.install(&datapath, Nanos(0))?;
        }

        let start = Instant::now();
        let mut switch = Switch {
            view: Arc::new(View { datapath, bridge, underlay, ports: views, start }),
            threads: Vec::new(),
            bells: seats.iter().map(|seat| Arc::clone(seat.waiter.doorbell())).collect(),
            stop: Arc::default(),
            exhausted: Arc::default(),
        };
        for (at, seat) in seats.into_iter().enumerate() {
            let core = config.workers.cores.get(at).copied();
            if let Err(e) = switch.spawn(at, seat, core, config.workers.busy_poll) {
                switch.halt();
                return Err(format!("worker {at}: {e}").into());
            }
        }
        Ok(switch)
    }

    fn spawn(&mut self, at: usize, seat: Seat, core: Option<usize>, busy_poll: bool) -> io::Result<()> {
        let (stop, exhausted, start) = (Arc::clone(&self.stop), Arc::clone(&self.exhausted), self.view.start);
        let (pinned, is_pinned) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("wye-worker-{at}")).spawn(move || {
            let result = core.map_or(Ok(()), pin);
            let failed = result.is_err();
            let _ = pinned.send(result);
            (!failed).then(|| work(seat, &stop, &exhausted, start, busy_poll))
        })?;
        self.threads.push(thread);
        is_pinned.recv().map_err(|_| io::Error::other("the thread ended"))?
    }

    /// What can be asked.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The work that packets do not do.
    pub fn upkeep(&self) {
        self.view.bridge.upkeep(self.view.now());
    }

    /// True if no port will ever receive again: all are traces that were played.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Acquire) == self.threads.len()
    }

    /// Why the switch cannot go on.
    pub fn failure(&self) -> Option<String> {
        let ended = self.threads.iter().find(|thread| thread.is_finished())?;
        Some(format!("{} ended by a panic", ended.thread().name().unwrap_or("a worker")))
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bells.iter().for_each(|bell| bell.ring());
        // A panic was already printed, and `failure` has told it.
        let ports: Vec<_> = self.threads.drain(..).filter_map(|thread| thread.join().ok().flatten()).collect();
        // No port is closed before every worker is done: one may have handed packets to another that had stopped already.
        for mut ports in ports {
            ports.finish(self.view.now());
        }
    }

    /// Stops the workers and closes the ports.
    pub fn stop(mut self) -> Arc<View> {
        self.halt();
        Arc::clone(&self.view)
    }
}

/// The loop of a worker. Returns the ports, still open.
fn work(seat: Seat, stop: &AtomicBool, exhausted: &AtomicUsize, start: Instant, busy_poll: bool) -> LocalPorts {
    let Seat { mut worker, mut ports, mut waiter } = seat;
    let datapath = worker.datapath().clone();
    let (mut idle, mut is_exhausted) = (0, false);
    ports.check(&datapath, now(start));
    while !stop.load(Ordering::Acquire) {
        let now = now(start);
        let carried = worker.poll(&mut ports, now);
        ports.check(&datapath, now);
        if carried > 0 {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < IDLE_TURNS {
            std::hint::spin_loop();
            continue;
        }
        // What came last is in the statistics before the worker sleeps over it.
        if idle == IDLE_TURNS {
            ports.read_stats(now);
            if !is_exhausted && ports.is_exhausted() {
                is_exhausted = true;
                exhausted.fetch_add(1, Ordering::AcqRel);
            }
        }
        if !busy_poll {
            let sleep = if ports.must_be_polled() { SLEEP_BLIND } else { SLEEP };
            waiter.wait(ports.poll_fds(), sleep, || ports.is_idle() && !stop.load(Ordering::Acquire));
        }
    }
    ports
}

/// Whether workers can run on these cores: threads that end at once try it.
pub fn try_cores(cores: &[usize]) -> io::Result<()> {
    cores.iter().try_for_each(|&core| {
        let tried = std::thread::Builder::new().spawn(move || pin(core))?;
        tried.join().map_err(|_| io::Error::other("the thread ended"))?
    })
}

/// Binds this thread to a core.
fn pin(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("there is no core {core}")));
    }
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|e| io::Error::other(format!("cannot run on core {core}: {}", io::Error::from(e))))
}
