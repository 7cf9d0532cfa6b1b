//! Gives memory that is no longer needed back to the system.

use std::fs;
use std::ops::Range;

/// Makes glibc's malloc return freed blocks. By default its threshold for mapping a block by itself grows with the size of the blocks
/// that are freed (mallopt(3), M_MMAP_THRESHOLD), so it keeps large ones. Setting a threshold stops that. jemalloc needs no such call.
#[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
pub fn return_freed() {
    // SAFETY: mallopt only sets parameters of the allocator, before this process has a second thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
    }
}

/// Nothing to do: only glibc's malloc needs this.
#[cfg(not(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc"))))]
pub fn return_freed() {}

/// Unmaps the pages of programs and libraries from this process. Pages that are used again come back from the page cache, one fault at
/// a time. Pages that only the start used (the command line, TOML, certificates), and those that the kernel mapped around them, stay
/// out: half of the memory that a node takes before its first session. Returns the bytes of the mappings that were unmapped.
pub fn unmap_used_code() -> usize {
    let mappings = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut bytes = 0;
    for range in unwritten_files(&mappings) {
        // SAFETY: the mapping is private, of a file, not writable, and has no page of its own, so each page has the same content when
        // it is touched again (madvise(2), MADV_DONTNEED).
        if unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) } == 0 {
            bytes += range.len();
        }
    }
    bytes
}

/// Mappings of files that this process cannot have written to (proc_pid_smaps(5)).
fn unwritten_files(smaps: &str) -> Vec<Range<usize>> {
    let (mut found, mut candidate) = (Vec::new(), None);
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some(range) = words.first().and_then(|word| addresses(word)) {
            let is_private_file = words.get(5).is_some_and(|path| path.starts_with('/'));
            let is_fixed = words.get(1).is_some_and(|access| ["r--p", "r-xp"].contains(access));
            candidate = (is_private_file && is_fixed).then_some(range);
        } else if words[..] == ["Anonymous:", "0", "kB"] {
            found.extend(candidate.take());
        }
    }
    found
}

/// Parses `7f00-7f80`, in hexadecimal digits.
fn addresses(word: &str) -> Option<Range<usize>> {
    let (start, end) = word.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_files_without_pages_of_ones_own_are_unmapped() {
        let mapping = |range: &str, access: &str, path: &str, anonymous: usize| {
            format!(
                "{range} {access} 00000000 fe:00 12 {path}\nSize: 4 kB\nAnonymous:             {anonymous} kB\nVmFlags: rd\n"
            )
        };
        let smaps = [
            mapping("1000-3000", "r-xp", "/usr/bin/longwire", 0),
            mapping("3000-4000", "r--p", "/usr/bin/longwire", 4),
            mapping("4000-5000", "rw-p", "/usr/bin/longwire", 0),
            mapping("5000-6000", "r--p", "/usr/lib/libc.so.6", 0),
            mapping("6000-7000", "r-xp", "[vdso]", 0),
            mapping("7000-8000", "r--s", "/usr/lib/cache", 0),
            mapping("8000-9000", "r--p", "", 0),
        ];
        assert_eq!(unwritten_files(&smaps.concat()), [0x1000..0x3000, 0x5000..0x6000]);
        assert!(unwritten_files("").is_empty());
    }

    #[test]
    fn a_process_goes_on_after_its_code_was_unmapped() {
        let here = unmap_used_code as fn() -> usize as usize;
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(unwritten_files(&smaps).iter().any(|range| range.contains(&here)), "{smaps}");
        assert!(unmap_used_code() > 100_000);
    }
}
