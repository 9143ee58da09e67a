//! Notices that the process is a fork of the one that made a datapath, at the price of one load.

use core::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

/// A page that the kernel zeroes in a child (`MADV_WIPEONFORK`, Linux 4.14). Where it does not, the process id is compared.
pub(crate) struct ForkMark {
    page: Option<MmapMut>,
    pid: u32,
}

const PAGE: usize = 4096;

impl ForkMark {
    pub(crate) fn new() -> Self {
        ForkMark { page: Self::page(), pid: std::process::id() }
    }

    fn page() -> Option<MmapMut> {
        let mut page = MmapMut::map_anon(PAGE).ok()?;
        // SAFETY: the range is exactly the mapping that was just made, and the advice only acts at a fork.
        let refused = unsafe { libc::madvise(page.as_mut_ptr().cast(), page.len(), libc::MADV_WIPEONFORK) };
        if refused != 0 {
            return None;
        }
        page[..8].copy_from_slice(&1u64.to_ne_bytes());
        Some(page)
    }

    /// True in a child of the process that made it.
    pub(crate) fn is_forked(&self) -> bool {
        match &self.page {
            Some(page) => {
                // SAFETY: the page is mapped, aligned and at least 8 bytes long; this process only reads it from now on.
                let mark = unsafe { &*page.as_ptr().cast::<AtomicU64>() };
                mark.load(Ordering::Relaxed) == 0
            }
            None => std::process::id() != self.pid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_knows_that_it_is_one() {
        let by_page = ForkMark::new();
        let by_pid = ForkMark { page: None, pid: std::process::id() };
        assert!(!by_page.is_forked() && !by_pid.is_forked());
        // SAFETY: the child makes no call but `_exit`, beside what is tested, which is a load and `getpid`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(by_page.is_forked()) | i32::from(by_pid.is_forked()) << 1;
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 3);
    }
}
