//! Writing cpio archives in the "newc" format that the kernel unpacks as initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHAR_DEVICE: u32 = 0o020_000;

/// An archive being written.
pub struct Cpio<W> {
    out: W,
    /// Bytes written: everything is aligned to four from the archive's start.
    written: usize,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    /// Adds a directory; its parent must have been added before.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, REGULAR | permissions, (0, 0), content)
    }

    /// Adds a character device.
    pub fn char_device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, CHAR_DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = u32::MAX; // becomes 0: the trailer has no inode
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode = self.inode.wrapping_add(1);
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let name_size = name.len() as u32 + 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut head = b"070701".to_vec();
        for field in fields {
            head.extend(format!("{field:08x}").bytes());
        }
        head.extend(name.bytes());
        head.push(0);
        self.put(&head)?;
        self.put(content)
    }

    /// Writes bytes and pads to four.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len();
        let pad = self.written.next_multiple_of(4) - self.written;
        self.out.write_all(&[0; 3][..pad])?;
        self.written += pad;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device and content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive back by the format's description.
    fn read(mut archive: &[u8]) -> Vec<Entry> {
        let mut out = Vec::new();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let field = |i: usize| {
                u32::from_str_radix(std::str::from_utf8(&archive[6 + 8 * i..14 + 8 * i]).unwrap(), 16)
                    .unwrap()
            };
            let (mode, size, names) = (field(1), field(6) as usize, field(11) as usize);
            let rdev = (field(9), field(10));
            let name = String::from_utf8(archive[110..110 + names - 1].to_vec()).unwrap();
            assert_eq!(archive[110 + names - 1], 0);
            let at = (110 + names).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return out;
            }
            out.push((name, mode, rdev, archive[at..at + size].to_vec()));
            archive = &archive[(at + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn archive_reads_back() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.directory("dev").unwrap();
        cpio.char_device("dev/console", 5, 1).unwrap();
        for n in 0..9 {
            cpio.file(&"x".repeat(n + 1), 0o755, &vec![7; n]).unwrap();
        }
        let got = read(&cpio.finish().unwrap());
        assert_eq!(got.len(), 11);
        assert_eq!(got[0], ("dev".into(), 0o040_755, (0, 0), vec![]));
        assert_eq!(got[1], ("dev/console".into(), 0o020_600, (5, 1), vec![]));
        assert_eq!(got[10], ("xxxxxxxxx".into(), 0o100_755, (0, 0), vec![7; 8]));
    }
}
