//! The C ABI of Wye: what `include/wye.h` declares. One file per section of the header.
//!
//! `boundary` holds what makes C safe to talk to; the exported functions see references. Names are C's names.
#![allow(non_camel_case_types)]
// cbindgen's annotations (`ptrs-as-arrays=[[name;length]]`) look like links to rustdoc.
#![allow(rustdoc::broken_intra_doc_links)]

mod boundary;
mod fork;
mod sink;
mod turn;

// In the order of the header.
pub mod version;

pub mod status;

pub mod log;

pub mod allocator;

pub mod datapath;

pub mod port;

pub mod packet;

pub mod flow;

pub mod text;

pub mod upcall;

pub mod worker;

pub mod meter;

pub mod bond;

pub mod tunnel;

pub mod gateway;

pub mod underlay;

pub mod vpc;

pub mod inject;

pub mod stats;
