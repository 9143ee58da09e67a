//! Large memory from the caller.

use std::alloc::{Layout, alloc, dealloc};
use std::mem::{MaybeUninit, zeroed};
use std::os::raw::c_void;
use std::ptr::{null_mut, write_bytes};

use wye_capi::datapath::*;
use wye_capi::status::*;
use wye_capi::worker::*;

use crate::switch::*;

/// An allocator that knows what is out and refuses beyond a number of pieces.
struct Heap {
    out: Vec<(*mut c_void, usize)>,
    pieces_max: usize,
}

unsafe extern "C-unwind" fn take(ctx: *mut c_void, size: usize, align: usize) -> *mut c_void {
    // SAFETY: the context is a heap, the size is not 0; what is written is what was given.
    unsafe {
        let heap = &mut *ctx.cast::<Heap>();
        if heap.out.len() == heap.pieces_max {
            return null_mut();
        }
        let at = alloc(Layout::from_size_align(size, align).unwrap());
        // The library must not expect zeros.
        write_bytes(at, 0xa5, size);
        heap.out.push((at.cast(), size));
        at.cast()
    }
}

unsafe extern "C-unwind" fn give(ctx: *mut c_void, at: *mut c_void, size: usize, align: usize) {
    // SAFETY: the context is a heap; the piece is one of its, with the size that it was asked for.
    unsafe {
        let heap = &mut *ctx.cast::<Heap>();
        let i = heap.out.iter().position(|piece| *piece == (at, size)).expect("a piece that is out");
        heap.out.remove(i);
        dealloc(at.cast(), Layout::from_size_align(size, align).unwrap());
    }
}

fn config(heap: &mut Heap) -> wye_datapath_config {
    // SAFETY: a config is integers and pointers.
    let mut config: wye_datapath_config = unsafe { zeroed() };
    config.size = size_of::<wye_datapath_config>() as u32;
    (config.flows_max, config.cache_entries, config.pool_buffers) = (64, 64, 64);
    config.alloc = Some(take);
    config.dealloc = Some(give);
    config.alloc_ctx = std::ptr::from_mut(heap).cast();
    config
}

#[test]
fn all_large_memory_is_the_callers_and_comes_back() {
    let mut heap = Heap { out: vec![], pieces_max: 4 };
    let config = config(&mut heap);
    // SAFETY: the structs are valid, the pointers written on success.
    unsafe {
        let (mut datapath, mut worker) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        assert_eq!(wye_datapath_new(&config, Some(&mut datapath), None), WYE_OK);
        let datapath = datapath.assume_init();
        // Buffers and flows.
        assert_eq!(heap.out.len(), 2);
        assert_eq!(wye_worker_new(datapath.as_ref(), &ops(), null_mut(), Some(&mut worker), None), WYE_OK);
        // Flow statistics and exact-match cache.
        assert_eq!(heap.out.len(), 4);
        let mut none = MaybeUninit::uninit();
        assert_eq!(wye_worker_new(datapath.as_ref(), &ops(), null_mut(), Some(&mut none), None), WYE_E_NO_MEMORY);
        assert_eq!(heap.out.len(), 4);
        wye_datapath_free(datapath);
        assert_eq!(heap.out.len(), 4);
        wye_worker_free(worker.assume_init());
    }
    assert!(heap.out.is_empty());
}

#[test]
fn a_caller_without_memory_gets_an_error_and_everything_back() {
    for pieces_max in 0..2 {
        let mut heap = Heap { out: vec![], pieces_max };
        let config = config(&mut heap);
        // SAFETY: the struct is valid.
        let status = unsafe { wye_datapath_new(&config, Some(&mut MaybeUninit::uninit()), None) };
        assert_eq!((status, heap.out.len()), (WYE_E_NO_MEMORY, 0));
    }
    let mut heap = Heap { out: vec![], pieces_max: 9 };
    let config = wye_datapath_config { dealloc: None, ..config(&mut heap) };
    // SAFETY: the struct is valid.
    let status = unsafe { wye_datapath_new(&config, Some(&mut MaybeUninit::uninit()), None) };
    assert_eq!((status, heap.out.len()), (WYE_E_INVALID, 0));
}
