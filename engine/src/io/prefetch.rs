//! Asking the processor for memory before it is needed.
//!
//! A hint and nothing else: it changes no outcome, waits for nothing, and any address may be named.

/// Lets the cache line at `place` come. The processor goes on meanwhile.
#[inline]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the processor looks at the address only where it may; otherwise nothing happens.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_may_be_named() {
        let here = 7_u64;
        prefetch(&raw const here);
        prefetch(std::ptr::null::<u64>());
        prefetch(std::ptr::without_provenance::<u64>(usize::MAX));
        assert_eq!(here, 7);
    }
}
