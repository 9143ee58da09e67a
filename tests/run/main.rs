//! `wye run` between real interfaces, as a user runs it: hosts are network namespaces, the tools on them are the system's.
//!
//! Each test has a namespace of its own, see [`namespace`]; where that is not allowed it says `SKIP`.

mod ask;
mod counters;
mod geneve_gre;
mod guest;
mod hosts;
mod learning;
mod life;
// Of what the tests of the ports need, this one needs a part.
#[allow(dead_code)]
#[path = "../ports/namespace.rs"]
mod namespace;
mod queues;
mod srv6;
mod storm;
mod sweep;
mod switch;
mod vanish;
mod vlan;
mod vpc;
mod wires;

/// Makes a test of each function for every kind of port; the function is told the test's full name and the kind.
macro_rules! for_every_kind {
    ($($name:ident),* $(,)?) => {
        for_every_kind!(@ af_packet: $($name),*);
        for_every_kind!(@ af_xdp: $($name),*);
        for_every_kind!(@ tap: $($name),*);
    };
    (@ $kind:ident: $($name:ident),*) => {
        mod $kind {
            $(
                #[test]
                fn $name() {
                    let module = module_path!().split_once("::").expect("below the crate").1;
                    let test = format!("{module}::{}", stringify!($name));
                    crate::namespace::run(&test, || super::$name(&test, stringify!($kind)));
                }
            )*
        }
    };
}
pub(crate) use for_every_kind;
