//! Instruction-set levels, chosen once at run time, and the prefetch hint.
//!
//! Packet code is written once as portable Rust over arrays of `u64`. [`Level::run`] compiles the closure it is given
//! for the level's instruction set, so a whole burst's pipeline is vectorised without intrinsics, and the dispatch
//! costs one branch per burst instead of one per packet.

use std::sync::OnceLock;

/// An instruction-set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every CPU of the target has (SSE2 on x86-64).
    Portable,
    /// AVX2 and BMI2.
    Avx2,
    /// AVX-512 F, BW, DQ and VL on top of [`Level::Avx2`].
    Avx512,
}

/// The environment variable that lowers the level: `portable`, `avx2` or `avx512`.
pub const LEVEL_VARIABLE: &str = "WYE_SIMD";

impl Level {
    /// The best level of this CPU, or a lower one that [`LEVEL_VARIABLE`] asks for. Read once per process.
    pub fn detected() -> Level {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let best = Level::of_cpu();
            match std::env::var(LEVEL_VARIABLE).as_deref() {
                Ok("portable") => Level::Portable,
                Ok("avx2") => best.min(Level::Avx2),
                _ => best,
            }
        })
    }

    /// The best level of this CPU.
    pub fn of_cpu() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        Level::Portable
    }

    /// The level's name, as [`LEVEL_VARIABLE`] takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Runs `f` compiled for this level. Everything that `f` inlines gets the level's instructions.
    ///
    /// # Panics
    /// If the CPU lacks the level.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        match self {
            Level::Portable => {}
            Level::Avx2 | Level::Avx512 => {
                // `of_cpu` caches its answer; a forged level must not reach the unsafe calls.
                assert!(self <= Level::detected() || self <= Level::of_cpu(), "CPU lacks {}", self.name());
                // SAFETY: the features that the callee is compiled for are present, as asserted.
                return unsafe { if self == Level::Avx2 { with_avx2(f) } else { with_avx512(f) } };
            }
        }
        f()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Asks the CPU to load the cache line at `at` into its first-level cache. Any address is legal.
#[allow(unsafe_code)]
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and has no architectural effect; SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The CPU's time stamp counter, after all earlier instructions have finished; 0 where there is none. For measuring code, not for
/// telling time.
#[allow(unsafe_code)]
#[inline(always)]
pub fn timestamp() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: both instructions exist on every x86-64 CPU and have no preconditions.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let now = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        now
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}
