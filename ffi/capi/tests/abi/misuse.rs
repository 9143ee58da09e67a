//! What a caller can do wrong is answered, not undefined.

use std::ffi::CStr;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};

use wye_capi::bond::*;
use wye_capi::datapath::*;
use wye_capi::flow::*;
use wye_capi::meter::*;
use wye_capi::packet::*;
use wye_capi::port::*;
use wye_capi::stats::*;
use wye_capi::status::*;
use wye_capi::upcall::*;
use wye_capi::worker::*;

use crate::switch::*;

#[test]
fn null_is_refused_everywhere_and_freed_silently() {
    let world = Fixture::new();
    // SAFETY: NULL is what is tested.
    unsafe {
        assert_eq!(wye_datapath_new(null(), None, None), WYE_E_INVALID);
        assert_eq!(wye_datapath_set_upcalls(None, 1, None), WYE_E_INVALID);
        assert_eq!(wye_datapath_quiesce(None, 1, None), WYE_E_INVALID);
        assert_eq!(wye_datapath_upkeep(None, 1, 0, None, null_mut(), None), WYE_E_INVALID);
        assert_eq!(wye_datapath_stats(world.dp(), None, None), WYE_E_INVALID);
        assert_eq!(wye_port_add(world.dp(), null(), None), WYE_E_INVALID);
        assert_eq!(wye_port_del(None, 1, None), WYE_E_INVALID);
        assert_eq!(wye_port_set_up(None, 1, 1, None), WYE_E_INVALID);
        assert_eq!(wye_flow_put(world.dp(), null(), None, None), WYE_E_INVALID);
        assert_eq!(wye_flow_del(world.dp(), null(), None, None), WYE_E_INVALID);
        assert_eq!(wye_flow_get(world.dp(), [0; 16].as_ptr(), null_mut(), None, None, None), WYE_E_INVALID);
        assert_eq!(wye_flow_match(world.dp(), null(), 8, null_mut(), None), WYE_E_INVALID);
        assert_eq!(wye_flow_count(None), 0);
        assert_eq!(wye_flow_dump_start(world.dp(), 0, None, None), WYE_E_INVALID);
        assert_eq!(wye_flow_dump_next(None, null_mut(), 0, null_mut(), None), WYE_E_INVALID);
        assert_eq!(wye_upcall_pop(world.dp(), None, None, None), WYE_E_INVALID);
        assert_eq!(wye_upcalls_waiting(None), 0);
        assert_eq!(wye_worker_new(world.dp(), null(), null_mut(), None, None), WYE_E_INVALID);
        assert_eq!(wye_worker_process(None, null(), 0, 1), WYE_E_INVALID);
        assert_eq!(wye_worker_process(world.w(), null(), 0, 1), WYE_OK);
        assert_eq!(wye_worker_process(world.w(), null(), 1, 1), WYE_E_INVALID);
        assert_eq!(wye_worker_process(world.w(), [null_mut()].as_ptr(), 1, 1), WYE_E_INVALID);
        assert_eq!(wye_worker_execute(world.w(), null_mut(), null(), 0, 0, 1, None), WYE_E_INVALID);
        assert_eq!(wye_worker_answer(world.w(), null_mut(), Some(&world.answer), 1, None), WYE_E_INVALID);
        assert_eq!(wye_worker_counters(world.w(), None), WYE_E_INVALID);
        assert_eq!(wye_meter_set(world.dp(), 1, null(), 1, None), WYE_E_INVALID);
        assert_eq!(wye_meter_get(world.dp(), 1, None, None), WYE_E_NOT_FOUND);
        assert_eq!(wye_bond_set(world.dp(), 1, null(), None), WYE_E_INVALID);
        assert_eq!(wye_bond_stats(world.dp(), 1, null_mut(), None), WYE_E_INVALID);
        wye_datapath_free(null_mut());
        wye_worker_free(null_mut());
        wye_flow_dump_free(null_mut());
        wye_queued_upcall_free(null_mut());
        wye_stats_free(null_mut());
        wye_error_free(null_mut());
        assert_eq!(wye_error_status(None), WYE_OK);
        assert_eq!(CStr::from_ptr(wye_error_message(None)), c"");
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let world = Fixture::new();
    let detail = |call: &dyn Fn(Option<&mut MaybeUninit<*mut wye_error>>) -> wye_status| {
        let mut error = MaybeUninit::uninit();
        let status = call(Some(&mut error));
        assert!(status < 0);
        // SAFETY: written, since the call failed.
        unsafe {
            let error = error.assume_init();
            assert_eq!(wye_error_status(error.as_ref()), status);
            let text = CStr::from_ptr(wye_error_message(error.as_ref())).to_str().unwrap().to_owned();
            wye_error_free(error);
            text
        }
    };
    // SAFETY: the structs are valid.
    unsafe {
        let mut config: wye_datapath_config = zeroed();
        let new = |config: wye_datapath_config| {
            detail(&|error| wye_datapath_new(&config, Some(&mut MaybeUninit::uninit()), error))
        };
        assert_eq!(new(config), "wye_datapath_config.size is 0: set it to sizeof(struct wye_datapath_config)");
        config.size = size_of::<wye_datapath_config>() as u32;
        config.vlan_limit = 3;
        assert_eq!(new(config), "vlan_limit: must be 1 or 2");
        config.vlan_limit = 0;
        config.pool_buffers = (1 << 24) + 1;
        assert_eq!(new(config), "pool_buffers: must be at most 16,777,216");
        let mut put: wye_flow_request = zeroed();
        put.size = size_of::<wye_flow_request>() as u32;
        put.flags = WYE_PUT_CREATE;
        let key = attribute(4, &[1; 11]);
        (put.key, put.key_len) = (key.as_ptr().cast(), key.len() as u32);
        let text = detail(&|error| wye_flow_put(world.dp(), &put, None, error));
        assert!(text.starts_with("key: OVS_KEY_ATTR_ETHERNET has 11 bytes"), "{text}");
        assert_eq!(detail(&|error| wye_port_del(world.dp(), 77, error)), "there is no port 77");
        assert_eq!(detail(&|error| wye_port_del(None, 77, error)), "wye_datapath is NULL");
    }
}

#[test]
fn structs_of_other_sizes_are_taken_as_far_as_they_are_known() {
    #[repr(C)]
    struct Newer {
        known: wye_port_config,
        unknown: u64,
    }
    let world = Fixture::new();
    // SAFETY: the structs are as long as they say.
    unsafe {
        let mut port = Newer { known: zeroed(), unknown: 0 };
        port.known.size = size_of::<Newer>() as u32;
        port.known.number = 20;
        assert_eq!(wye_port_add(world.dp(), &port.known, None), WYE_OK);
        port.known.number = 21;
        port.unknown = 1;
        assert_eq!(wye_port_add(world.dp(), &port.known, None), WYE_E_UNSUPPORTED);
        for size in [1, 4, size_of::<wye_port_config>() as u32 - 1, u32::MAX] {
            port.known.size = size;
            assert_eq!(wye_port_add(world.dp(), &port.known, None), WYE_E_INVALID);
        }
        // A request without the timeouts is one of the first header.
        let mut put: wye_flow_request = zeroed();
        put.size = std::mem::offset_of!(wye_flow_request, idle_timeout_ns) as u32;
        put.flags = WYE_PUT_CREATE;
        put.idle_timeout_ns = 1;
        let key = key(1);
        (put.key, put.key_len) = (key.as_ptr().cast(), key.len() as u32);
        assert_eq!(wye_flow_put(world.dp(), &put, None, None), WYE_OK);
        assert_eq!(wye_datapath_upkeep(world.dp(), u64::MAX, 0, None, null_mut(), None), WYE_OK);
        assert_eq!(wye_flow_count(world.dp()), 1);
    }
}

#[test]
fn a_handle_of_another_kind_is_noticed() {
    let world = Fixture::new();
    // SAFETY: deliberately wrong: both types carry a tag, and the place of this one's is read.
    let worker = world.worker.cast::<wye_flow_dump>();
    let _ = worker;
    let mut stats = MaybeUninit::uninit();
    assert_eq!(wye_datapath_stats(world.dp(), Some(&mut stats), None), WYE_OK);
    // SAFETY: written on success.
    unsafe {
        let stats = stats.assume_init();
        let mut value = MaybeUninit::uninit();
        assert_eq!(wye_stats_get(stats.as_ref(), c"no_such".as_ptr(), Some(&mut value)), WYE_E_NOT_FOUND);
        assert_eq!(wye_stats_get(stats.as_ref(), null(), Some(&mut value)), WYE_E_INVALID);
        wye_stats_free(stats);
    }
}

#[test]
fn using_the_worker_from_transmit_is_answered_busy() {
    let mut world = Fixture::new();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    world.on_transmit = Some(Box::new(|world| {
        assert_eq!(world.process(&mut [Owned::new(1)]), WYE_E_BUSY);
        assert_eq!(world.execute(&mut Owned::new(1), &output(3), 0), WYE_E_BUSY);
        // Freeing it is refused.
        // SAFETY: the worker lives.
        unsafe { wye_worker_free(world.worker) };
        // Control calls are fine.
        assert_eq!(world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &output(2)), WYE_OK);
    }));
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    world.on_transmit = None;
    assert_eq!(world.process(&mut [Owned::new(2)]), WYE_OK);
    assert_eq!(world.sent.len(), 2);
}

/// Every call that carries, waits or opens, as a second thread makes it; each must be refused with nothing done.
fn is_busy_for_another_thread(world: Test) {
    struct Elsewhere(Test);
    // SAFETY: the worker's own thread waits for this one.
    unsafe impl Send for Elsewhere {}
    impl Elsewhere {
        fn call(self) {
            let (world, mut packets) = (self.0, [Owned::new(1)]);
            let before = world.sent.len();
            assert_eq!(world.process(&mut packets), WYE_E_BUSY);
            assert_eq!(world.execute(&mut packets[0], &output(3), 0), WYE_E_BUSY);
            assert_eq!(wye_worker_poll(world.w(), 1, None), WYE_E_BUSY);
            assert_eq!(wye_worker_wait(world.w(), 1, None), WYE_E_BUSY);
            // SAFETY: the worker lives, and is not freed.
            unsafe { wye_worker_free(world.worker) };
            assert!(packets[0].is(wye_fate::WYE_FATE_NONE));
            assert_eq!((world.sent.len(), packets[0].descriptor.data_ofs), (before, 64));
        }
    }
    let elsewhere = Elsewhere(world);
    std::thread::scope(|scope| scope.spawn(move || elsewhere.call()).join().unwrap());
}

#[test]
fn a_second_thread_is_answered_busy_in_every_callback_of_the_first() {
    let mut world = Fixture::new();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    world.answer_with(output(9), 0);
    world.on_transmit = Some(Box::new(is_busy_for_another_thread));
    world.on_release = Some(Box::new(is_busy_for_another_thread));
    world.on_upcall = Some(Box::new(|world, _| is_busy_for_another_thread(world)));
    // More than a burst, so that there is one to come.
    let mut packets: Vec<_> = (0..300).map(|n| Owned::new(1 + n % 2)).collect();
    assert_eq!(world.process(&mut packets), WYE_OK);
    assert_eq!((world.sent.len(), world.released.len(), world.upcalls.len()), (150, 150, 150));
    assert_eq!((world.packets_in(), world.stat(c"dropped.invalid_port")), (300, 150));
    // Afterwards any thread may.
    (world.on_transmit, world.on_release, world.on_upcall) = (None, None, None);
    struct Elsewhere(Test);
    // SAFETY: this thread waits for that one.
    unsafe impl Send for Elsewhere {}
    impl Elsewhere {
        fn call(self) -> wye_status {
            self.0.process(&mut [Owned::new(1)])
        }
    }
    let elsewhere = Elsewhere(*world);
    let status = std::thread::scope(|scope| scope.spawn(move || elsewhere.call()).join().unwrap());
    assert_eq!((status, world.sent.len()), (WYE_OK, 151));
}

#[test]
fn an_upcall_whose_answer_comes_from_transmit_gives_its_buffer_back() {
    let mut world = Fixture::with(wye_worker_ops { upcall: None, ..ops() });
    world.put(WYE_PUT_CREATE, 1, &key(3), &port_mask(), &output(2));
    world.answer_with(output(3), 0);
    world.on_transmit = Some(Box::new(|world| {
        let (mut queued, mut upcall) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        assert_eq!(wye_upcall_pop(world.dp(), Some(&mut queued), Some(&mut upcall), None), WYE_OK);
        // SAFETY: written on success, and answered once.
        let status = unsafe { wye_worker_answer(world.w(), queued.assume_init(), Some(&world.answer), 2, None) };
        assert_eq!(status, WYE_E_BUSY);
    }));
    // More often than there are buffers.
    for _ in 0..1100 {
        assert_eq!(world.process(&mut [Owned::new(1), Owned::new(3)]), WYE_OK);
    }
    let counts = (world.stat(c"upcall"), world.stat(c"transmitted"), wye_upcalls_waiting(world.dp()));
    assert_eq!((world.packets_in(), counts), (2200, (1100, 1100, 0)));
}

#[test]
fn everything_may_be_freed_in_any_order() {
    let mut world = Fixture::new();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    let mut dump = MaybeUninit::uninit();
    assert_eq!(wye_flow_dump_start(world.dp(), 1, Some(&mut dump), None), WYE_OK);
    // SAFETY: each is freed once.
    unsafe { wye_datapath_free(std::mem::replace(&mut world.datapath, null_mut())) };
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_OK);
    assert_eq!(world.sent.len(), 1);
    // SAFETY: the dump lives.
    unsafe {
        let dump = dump.assume_init();
        let mut flows: [wye_flow; 1] = zeroed();
        assert_eq!(wye_flow_dump_next(dump.as_ref(), flows.as_mut_ptr(), 1, null_mut(), Some(&mut 0)), 1);
        assert_eq!(flows[0].stats.packets, 1);
        wye_flow_dump_free(dump);
    }
}

#[test]
fn a_panic_in_transmit_poisons_the_datapath_and_what_is_left_can_be_drained() {
    let mut world = Fixture::new();
    world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &output(2));
    world.on_transmit = Some(Box::new(|_| panic!("out of paper")));
    let mut packets = [Owned::new(1), Owned::new(2)];
    assert_eq!(world.process(&mut packets), WYE_E_PANIC);
    // The first one was transmit's, who knows where; the second is given back.
    assert_eq!(world.released, [(packets[1].at(), wye_fate::WYE_FATE_DROPPED as u16, 21)]);
    assert_eq!(wye_drop::WYE_DROP_SHUTDOWN as u16, 21);
    world.on_transmit = None;
    assert_eq!(world.process(&mut [Owned::new(1)]), WYE_E_PANIC);
    assert_eq!(world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &output(2)), WYE_E_PANIC);
    assert_eq!(wye_flow_flush(world.dp(), None, None), WYE_E_PANIC);
    // Reading goes on.
    assert_eq!(wye_flow_count(world.dp()), 1);
    assert!(world.stat(c"packets_in") >= 1);
}

#[test]
fn a_panic_in_upcall_gives_every_waiting_packet_back() {
    let mut world = Fixture::new();
    world.on_upcall = Some(Box::new(|_, _| panic!("no answer")));
    let mut packets = [Owned::new(1), Owned::new(2), Owned::new(3)];
    assert_eq!(world.process(&mut packets), WYE_E_PANIC);
    let shutdown = wye_drop::WYE_DROP_SHUTDOWN as u16;
    let released: Vec<_> = world.released.iter().map(|r| (r.0, r.2)).collect();
    assert_eq!(released, packets.iter_mut().map(|p| (p.at(), shutdown)).collect::<Vec<_>>());
    assert_eq!(wye_datapath_set_upcalls(world.dp(), 1, None), WYE_E_PANIC);
}

#[test]
fn meters_and_bonds_are_set_read_and_removed() {
    let mut world = Fixture::new();
    // SAFETY: the structs are valid.
    unsafe {
        let mut config: wye_meter_config = zeroed();
        config.size = size_of::<wye_meter_config>() as u32;
        config.unit = WYE_METER_PPS;
        config.n_bands = 1;
        config.bands[0] = wye_meter_band { rate: 1, burst: 2 };
        assert_eq!(wye_meter_set(world.dp(), 4, &config, 1_000_000, None), WYE_OK);
        config.n_bands = 9;
        assert_eq!(wye_meter_set(world.dp(), 4, &config, 1_000_000, None), WYE_E_INVALID);
        (config.n_bands, config.unit) = (1, 2);
        assert_eq!(wye_meter_set(world.dp(), 4, &config, 1_000_000, None), WYE_E_INVALID);
        config.unit = 0;
        assert_eq!(wye_meter_set(world.dp(), u32::MAX, &config, 1_000_000, None), WYE_E_RANGE);
        let metered = [attribute(19, &4u32.to_ne_bytes()), output(2)].concat();
        world.put(WYE_PUT_CREATE, 1, &key(1), &port_mask(), &metered);
        assert_eq!(world.process(&mut [Owned::new(1), Owned::new(1), Owned::new(1)]), WYE_OK);
        let mut stats = MaybeUninit::uninit();
        assert_eq!(wye_meter_get(world.dp(), 4, Some(&mut stats), None), WYE_OK);
        let stats = stats.assume_init();
        assert_eq!((stats.input.packets, stats.n_bands, stats.bands[0].packets, stats.bands[0].bytes), (3, 1, 1, 60));
        assert_eq!(wye_meter_del(world.dp(), 4, None, None), WYE_OK);
        assert_eq!(wye_meter_del(world.dp(), 4, None, None), WYE_E_NOT_FOUND);

        world.sent.clear();
        assert_eq!(wye_bond_set(world.dp(), 6, [3u32; WYE_BOND_BUCKETS].as_ptr(), None), WYE_OK);
        world.put(WYE_PUT_CREATE, 2, &key(2), &port_mask(), &attribute(0x1002, &6u32.to_ne_bytes()));
        assert_eq!(world.process(&mut [Owned::new(2)]), WYE_OK);
        assert_eq!(world.sent[0].port, 3);
        let mut bytes = [0u64; WYE_BOND_BUCKETS];
        assert_eq!(wye_bond_stats(world.dp(), 6, bytes.as_mut_ptr(), None), WYE_OK);
        assert_eq!(bytes.iter().sum::<u64>(), 60);
        assert_eq!(wye_bond_del(world.dp(), 6, None), WYE_OK);
        assert_eq!(wye_bond_del(world.dp(), 6, None), WYE_E_NOT_FOUND);
    }
    let mut counters = MaybeUninit::uninit();
    assert_eq!(wye_worker_counters(world.w(), Some(&mut counters)), WYE_OK);
    // SAFETY: written on success.
    let counters = unsafe { counters.assume_init() };
    assert_eq!((counters.hits, counters.drops_total, counters.drops[wye_drop::WYE_DROP_METER as usize]), (4, 1, 1));
}

#[test]
fn a_forked_child_gets_an_error() {
    let world = Fixture::new();
    // SAFETY: the child only makes calls that are refused before they take a lock, and leaves without running anything of the parent's.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut own = Owned::new(1);
            let list = [own.at()];
            let answers = [
                wye_flow_flush(world.dp(), None, None),
                wye_port_del(world.dp(), 1, None),
                wye_worker_process(world.w(), list.as_ptr(), 1, 1),
                wye_datapath_set_upcalls(world.dp(), 0, None),
            ];
            wye_worker_free(world.worker);
            libc::_exit(i32::from(answers != [WYE_E_FORKED; 4]));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
    }
}
