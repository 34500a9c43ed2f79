//! The kernel's own type information, as far as finding members of its structures goes
//! (Documentation/bpf/btf.rst): rustc leaves no relocations for the loader to resolve, so offsets are looked up
//! here and handed to the programs.

use super::error::{Error, Result};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const DIR: &str = "/sys/kernel/btf";
const MAGIC: u16 = 0xeb9f;

/// Kinds of types that are looked at or through (`BTF_KIND_*`).
mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Types of the kernel and of one of its modules.
#[derive(Debug)]
pub struct Btf {
    parts: Vec<Part>,
    // Part and byte offset of each type, by its number; 0 is void.
    types: Vec<(usize, usize)>,
    structs: HashMap<String, usize>,
}

/// One file.
#[derive(Debug)]
struct Part {
    data: Vec<u8>,
    strings: usize,
    // Offset of its first string among all strings.
    first_string: usize,
}

impl Btf {
    /// Types of the running kernel, and of a part of it that may be a module here.
    pub fn of_kernel(module: &str) -> Result<Self> {
        let read = |name: &str| fs::read(Path::new(DIR).join(name));
        let kernel = read("vmlinux").map_err(Error::io(format!("reading {DIR}/vmlinux")))?;
        Self::parse([Some(kernel), read(module).ok()])
    }

    /// Reads files: the kernel's, and that of one module, which continues its numbers and strings.
    fn parse(files: [Option<Vec<u8>>; 2]) -> Result<Self> {
        let mut btf = Self { parts: Vec::new(), types: vec![(0, usize::MAX)], structs: HashMap::new() };
        for data in files.into_iter().flatten() {
            btf.add(data).ok_or_else(|| Error::Types("it is cut short or of another version".into()))?;
        }
        Ok(btf)
    }

    fn add(&mut self, data: Vec<u8>) -> Option<()> {
        // struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
        let word = |at: usize| u32_at(&data, at);
        if data.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let header = word(4)? as usize;
        let (types, types_len) = (header + word(8)? as usize, word(12)? as usize);
        let (strings, strings_len) = (header + word(16)? as usize, word(20)? as usize);
        data.get(strings..strings + strings_len)?;
        let (part, first) = (self.parts.len(), self.types.len());
        let mut at = types;
        while at < types + types_len {
            self.types.push((part, at));
            at += 12 + extra(word(at + 4)?);
        }
        let first_string = self.parts.first().map_or(0, |base| base.data.len() - base.strings);
        let mut data = data;
        data.truncate(strings + strings_len);
        self.parts.push(Part { data, strings, first_string });
        for id in first..self.types.len() {
            let info = self.word(id, 4)?;
            if kind_of(info) == kind::STRUCT {
                let name = self.name(self.word(id, 0)?)?;
                if !name.is_empty() {
                    let name = name.to_owned();
                    self.structs.entry(name).or_insert(id);
                }
            }
        }
        Some(())
    }

    fn word(&self, id: usize, offset: usize) -> Option<u32> {
        let (part, at) = *self.types.get(id)?;
        u32_at(&self.parts[part].data, at.checked_add(offset)?)
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let offset = offset as usize;
        let part = self.parts.iter().rev().find(|part| offset >= part.first_string)?;
        let bytes = part.data.get(part.strings + offset - part.first_string..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }

    /// Byte offset of a member of a structure, by its path: `offset("net", "ns.inum")`. Members of anonymous
    /// structures and unions count as the structure's own.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32> {
        let missing = || Error::Types(format!("this kernel has no {structure}.{path}"));
        let mut id = *self.structs.get(structure).ok_or_else(missing)?;
        let mut offset = 0;
        for member in path.split('.') {
            let (at, of) = self.member(id, member).ok_or_else(missing)?;
            offset += at;
            id = of;
        }
        Ok(offset)
    }

    /// Offset and type of a member.
    fn member(&self, id: usize, name: &str) -> Option<(u32, usize)> {
        let id = self.resolve(id)?;
        let info = self.word(id, 4)?;
        if !matches!(kind_of(info), kind::STRUCT | kind::UNION) {
            return None;
        }
        // kind_flag: the upper bits of an offset are then the size of a bit field.
        let mask = if info >> 31 != 0 { 0xff_ffff } else { u32::MAX };
        (0..(info & 0xffff) as usize).find_map(|n| {
            let at = 12 + 12 * n;
            let (of, bits) = (self.word(id, at + 4)? as usize, self.word(id, at + 8)? & mask);
            match self.name(self.word(id, at)?)? {
                found if found == name => Some((bits / 8, of)),
                "" => self.member(of, name).map(|(inner, of)| (bits / 8 + inner, of)),
                _ => None,
            }
        })
    }

    /// The type behind names and qualifiers.
    fn resolve(&self, mut id: usize) -> Option<usize> {
        // Chains are short; a cycle would be a broken file.
        for _ in 0..32 {
            match kind_of(self.word(id, 4)?) {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.word(id, 8)? as usize;
                }
                _ => return Some(id),
            }
        }
        None
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes that follow the common part of a type.
fn extra(info: u32) -> usize {
    let members = (info & 0xffff) as usize;
    match kind_of(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * members,
        kind::ENUM | kind::FUNC_PROTO => 8 * members,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a file: strings, and types of their words.
    struct Make {
        strings: Vec<u8>,
        first_string: usize,
        types: Vec<u8>,
    }

    impl Make {
        fn after(first_string: usize) -> Self {
            let strings = if first_string == 0 { vec![0] } else { Vec::new() };
            Self { strings, first_string, types: Vec::new() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.first_string + self.strings.len();
            self.strings.extend(name.bytes().chain([0]));
            at as u32
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }

        fn structure(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) {
            let head = [self.name(name), kind << 24 | members.len() as u32, 64];
            self.words(&head);
            for (name, of, bytes) in members {
                let words = [self.name(name), *of, bytes * 8];
                self.words(&words);
            }
        }

        fn file(self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut file = MAGIC.to_ne_bytes().to_vec();
            file.extend([1, 0]);
            for word in [24, 0, types, types, strings] {
                file.extend(u32::to_ne_bytes(word));
            }
            file.extend(self.types);
            file.extend(self.strings);
            file
        }
    }

    fn kernel() -> Make {
        let mut make = Make::after(0);
        let int = make.name("int");
        make.words(&[int, kind::INT << 24, 4, 32]); // 1
        make.structure(kind::STRUCT, "ns", &[("stashed", 1, 0), ("inum", 1, 4)]); // 2
        let name = make.name("ns_t");
        make.words(&[name, kind::TYPEDEF << 24, 2]); // 3
        make.structure(kind::UNION, "", &[("index", 1, 0), ("other", 1, 0)]); // 4
        make.structure(kind::STRUCT, "net", &[("first", 1, 0), ("", 4, 8), ("ns", 3, 16)]); // 5
        make
    }

    #[test]
    fn members_are_found_through_names_and_anonymous_unions() {
        let btf = Btf::parse([Some(kernel().file()), None]).unwrap();
        assert_eq!(btf.offset("net", "ns.inum").unwrap(), 20);
        assert_eq!(btf.offset("net", "index").unwrap(), 8);
        for (structure, member) in [("net", "queue"), ("tun", "queue"), ("net", "first.x"), ("int", "x")] {
            let error = btf.offset(structure, member).unwrap_err().to_string();
            assert!(error.contains(&format!("{structure}.{member}")), "{error}");
        }
    }

    #[test]
    fn a_module_continues_the_kernel() {
        let kernel = kernel();
        let mut module = Make::after(kernel.strings.len());
        module.structure(kind::STRUCT, "tun", &[("pad", 1, 0), ("net", 5, 32)]); // 6
        let btf = Btf::parse([Some(kernel.file()), Some(module.file())]).unwrap();
        assert_eq!(btf.offset("tun", "net.ns.inum").unwrap(), 52);
        assert_eq!(btf.offset("net", "ns.inum").unwrap(), 20);
    }

    #[test]
    fn nonsense_is_refused() {
        let file = kernel().file();
        for bad in [Vec::new(), vec![0; 64], file[..40].to_vec()] {
            assert!(matches!(Btf::parse([Some(bad), None]), Err(Error::Types(_))));
        }
    }
}
