//! The kernel's symbols.

use anyhow::{Context, Result};

/// Addresses and names, sorted.
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Out of `/proc/kallsyms`.
    ///
    /// # Errors
    /// When it cannot be read, or hides the addresses.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let mut symbols: Vec<_> = text.lines().filter_map(parse).collect();
        symbols.sort_unstable();
        anyhow::ensure!(!symbols.is_empty(), "/proc/kallsyms hides the addresses: kernel.kptr_restrict is 2");
        Ok(Self(symbols))
    }

    /// The symbol an address lies in.
    pub fn name(&self, address: u64) -> &str {
        let after = self.0.partition_point(|(start, _)| *start <= address);
        after.checked_sub(1).map_or("unknown", |at| self.0[at].1.as_str())
    }
}

/// A line such as `ffffffff81000000 T _stext` or `ffffffffc0201000 t bpf_prog_6deef7357e7b4530_name [bpf]`.
fn parse(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address != 0)?;
    let name = words.nth(1)?;
    // Programs are known by their names; the hash before it changes with every build.
    let name = match name.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_')) {
        Some((_, program)) => format!("program {program}"),
        None => name.to_owned(),
    };
    Some((address, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_the_symbol_before_it() {
        let lines = "ffffffff81000000 T _stext\nffffffffc0201000 t bpf_prog_6deef7357e7b4530_bench_xdp\t[bpf]\n0000 A x";
        let symbols = Symbols(lines.lines().filter_map(parse).collect());
        assert_eq!(symbols.name(0xffff_ffff_8100_0010), "_stext");
        assert_eq!(symbols.name(0xffff_ffff_c020_1000), "program bench_xdp");
        assert_eq!(symbols.name(1), "unknown");
    }
}
