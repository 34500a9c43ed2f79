//! The lines of source that the kernel keeps with compiled BPF programs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya_obj::generated::{bpf_btf_info, bpf_line_info, bpf_prog_info};
use lbx_user::datapath;

/// Command of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const OBJ_GET_INFO_BY_FD: u32 = 15;
/// Offset of `str_off` in `struct btf_header` (include/uapi/linux/btf.h), and of `hdr_len`.
const STR_OFF: usize = 16;
const HDR_LEN: usize = 4;

/// Where each piece of machine code comes from: its first address, the address behind it, the file.
#[derive(Default)]
pub struct Lines(Vec<(u64, u64, String)>);

impl Lines {
    /// Of all loaded programs whose names begin like this.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn all_of(prefix: &str) -> Result<Self> {
        let mut all = Self::default();
        for loaded in aya::programs::loaded_programs() {
            let loaded = loaded.context("listing programs")?;
            if loaded.name_as_str().is_some_and(|name| name.starts_with(prefix)) {
                // One that is gone by now is none of ours.
                let Ok(program) = datapath::prog_by_id(loaded.id()) else { continue };
                all.add(&program)?;
            }
        }
        all.0.sort_unstable();
        Ok(all)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file an address comes from.
    pub fn place(&self, address: u64) -> Option<&str> {
        let after = self.0.partition_point(|(start, ..)| *start <= address);
        let (_, end, file) = self.0.get(after.checked_sub(1)?)?;
        (address < *end).then_some(file)
    }

    fn add(&mut self, program: &OwnedFd) -> Result<()> {
        // SAFETY: all zeroes are a value of this struct of integers and arrays of them.
        let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
        // SAFETY: the struct says of no array where to put it.
        unsafe { get_info(program, &mut info) }.context("program")?;
        let count = info.nr_line_info as usize;
        if count == 0 || info.nr_jited_line_info as usize != count {
            return Ok(());
        }
        let mut lines =
            vec![bpf_line_info { insn_off: 0, file_name_off: 0, line_off: 0, line_col: 0 }; count];
        let mut addresses = vec![0_u64; count];
        let functions = info.nr_jited_ksyms as usize;
        let (mut starts, mut lengths) = (vec![0_u64; functions], vec![0_u32; functions]);
        let btf = info.btf_id;
        // SAFETY: as above.
        info = unsafe { std::mem::zeroed() };
        (info.nr_line_info, info.line_info) = (count as u32, lines.as_mut_ptr() as u64);
        info.line_info_rec_size = size_of::<bpf_line_info>() as u32;
        (info.nr_jited_line_info, info.jited_line_info) = (count as u32, addresses.as_mut_ptr() as u64);
        info.jited_line_info_rec_size = size_of::<u64>() as u32;
        (info.nr_jited_ksyms, info.jited_ksyms) = (functions as u32, starts.as_mut_ptr() as u64);
        (info.nr_jited_func_lens, info.jited_func_lens) = (functions as u32, lengths.as_mut_ptr() as u64);
        // SAFETY: each pointer is to a vector of as many elements of the size said, which live through the call.
        unsafe { get_info(program, &mut info) }.context("lines")?;
        let strings = strings(btf)?;
        let name = |offset: u32| {
            let bytes = strings.get(offset as usize..).unwrap_or_default();
            let path = CStr::from_bytes_until_nul(bytes).map(CStr::to_string_lossy).unwrap_or_default();
            short(&path).to_owned()
        };
        for (start, length) in starts.iter().zip(&lengths) {
            let end = start + u64::from(*length);
            let mut at = *start;
            let mut file = "prologue".to_owned();
            // The kernel keeps them in the order of the instructions.
            for (line, address) in lines.iter().zip(&addresses).filter(|(_, one)| (*start..end).contains(one))
            {
                self.0.push((at, *address, file));
                (at, file) = (*address, name(line.file_name_off));
            }
            self.0.push((at, end, file));
        }
        Ok(())
    }
}

/// The part of a path that is about this workspace, or about a library.
fn short(path: &str) -> &str {
    let registry = path.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    if let Some((_, inside)) = registry {
        return inside;
    }
    let begins = |what: &str| {
        path.starts_with(what).then_some(0).or_else(|| path.find(&format!("/{what}")).map(|at| at + 1))
    };
    ["lbx-ebpf/", "lbx-common/", "library/"].into_iter().find_map(begins).map_or(path, |at| &path[at..])
}

/// The strings of a program's BTF.
fn strings(id: u32) -> Result<Vec<u8>> {
    let fd = datapath::btf_by_id(id).context("BTF")?;
    // SAFETY: all zeroes are a value of this struct of integers.
    let mut info: bpf_btf_info = unsafe { std::mem::zeroed() };
    // SAFETY: the struct says of nothing where to put it.
    unsafe { get_info(&fd, &mut info) }.context("size of BTF")?;
    let mut data = vec![0_u8; info.btf_size as usize];
    let size = info.btf_size;
    // SAFETY: as above.
    info = unsafe { std::mem::zeroed() };
    (info.btf, info.btf_size) = (data.as_mut_ptr() as u64, size);
    // SAFETY: the pointer is to as many bytes as the size beside it says, which live through the call.
    unsafe { get_info(&fd, &mut info) }.context("BTF")?;
    let word =
        |at: usize| data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let start = word(HDR_LEN).zip(word(STR_OFF)).map(|(header, offset)| (header + offset) as usize);
    Ok(start.and_then(|start| data.get(start..)).context("short BTF")?.to_vec())
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
///
/// # Safety
/// `T` is the struct the kernel fills for this kind of object; each pointer in it is 0 or to as many elements as the
/// count beside it says, which live through the call.
unsafe fn get_info<T>(fd: &OwnedFd, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let fd = fd.as_fd();
    let attr =
        Attr { fd: fd.as_raw_fd() as u32, len: size_of::<T>() as u32, info: std::ptr::from_mut(info) as u64 };
    // SAFETY: `attr` is initialised and of the size passed, and `info` as long as it says; the caller vouches for
    // what that points to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_short() {
        assert_eq!(short("/home/a/lbx/lbx-common/src/flow.rs"), "lbx-common/src/flow.rs");
        assert_eq!(short("lbx-ebpf/src/main.rs"), "lbx-ebpf/src/main.rs");
        assert_eq!(short("/rustc/0/library/core/src/ptr/mod.rs"), "library/core/src/ptr/mod.rs");
        assert_eq!(
            short("/root/.cargo/registry/src/index-0/aya-ebpf-0.2.1/src/lib.rs"),
            "aya-ebpf-0.2.1/src/lib.rs"
        );
        assert_eq!(short("other.c"), "other.c");
    }

    #[test]
    fn a_place_ends_where_the_next_begins() {
        let lines = Lines(vec![(10, 20, "a".into()), (20, 30, "b".into())]);
        assert_eq!(
            [9, 10, 19, 20, 29, 30].map(|at| lines.place(at)),
            [None, Some("a"), Some("a"), Some("b"), Some("b"), None]
        );
    }
}
