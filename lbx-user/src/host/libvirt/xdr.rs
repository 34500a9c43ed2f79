//! XDR (RFC 4506), as much of it as libvirt's messages need. Reading is bounded by what was received and by a limit
//! for every length, and never panics.

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends in the middle of something.
    #[error("it is cut short")]
    Short,
    /// A length is beyond what the protocol allows.
    #[error("a length of {length} where at most {limit} can be")]
    TooLong {
        /// What was said.
        length: u32,
        /// What is allowed.
        limit: u32,
    },
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotText,
    /// A boolean, or the tag of a union, has a value that means nothing.
    #[error("a choice of {0} that means nothing")]
    Choice(i32),
}

/// Takes one thing after the other from bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of them.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What nobody read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Error::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes of a fixed number; the padding behind them is passed over, whatever it is.
    pub fn opaque<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N)?.try_into().map_err(|_| Error::Short)?;
        self.take(padding(N))?;
        Ok(bytes)
    }

    /// `unsigned int`.
    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.opaque()?))
    }

    /// `int`, and an enumeration.
    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.opaque()?))
    }

    /// `unsigned hyper`; a `hyper` and a `double` have as many bytes.
    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.opaque()?))
    }

    /// How many elements of a list, or bytes of a string, follow: no more than `limit`, and no more than there are
    /// bytes.
    pub fn count(&mut self, limit: u32) -> Result<usize, Error> {
        let length = self.u32()?;
        if length > limit {
            return Err(Error::TooLong { length, limit });
        }
        if length as usize > self.rest.len() {
            return Err(Error::Short);
        }
        Ok(length as usize)
    }

    /// A string of at most `limit` bytes.
    pub fn string(&mut self, limit: u32) -> Result<&'a str, Error> {
        let length = self.count(limit)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Error::NotText)?;
        self.take(padding(length))?;
        Ok(text)
    }

    /// Whether what may be left out is there: XDR's pointer.
    pub fn is_there(&mut self) -> Result<bool, Error> {
        match self.i32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::Choice(other)),
        }
    }
}

/// Puts one thing behind the other.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// `unsigned int`; also a pointer that is there (1) or not (0).
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// `int`.
    #[must_use]
    pub fn i32(self, value: i32) -> Self {
        self.u32(value.cast_unsigned())
    }

    /// Bytes of a fixed number, with padding.
    #[must_use]
    pub fn opaque(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len() + padding(bytes.len()), 0);
        self
    }

    /// A string.
    #[must_use]
    pub fn string(self, text: &str) -> Self {
        self.u32(text.len() as u32).opaque(text.as_bytes())
    }

    /// All of it.
    pub fn done(self) -> Vec<u8> {
        self.bytes
    }
}

/// How many bytes fill the last word.
const fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_the_rfc_has_it() {
        let bytes = Writer::default().i32(-2).string("lv1ab").opaque(&[7; 6]).u32(1).done();
        assert_eq!(
            bytes,
            b"\xff\xff\xff\xfe\0\0\0\x05lv1ab\0\0\0\x07\x07\x07\x07\x07\x07\0\0\0\0\0\x01".as_slice()
        );
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.i32(), Ok(-2));
        assert_eq!(reader.string(5), Ok("lv1ab"));
        assert_eq!(reader.opaque::<6>(), Ok([7; 6]));
        assert_eq!((reader.is_there(), reader.rest()), (Ok(true), [].as_slice()));
        assert_eq!(reader.u32(), Err(Error::Short));
    }

    #[test]
    fn lengths_are_bounded() {
        let text = Writer::default().string("abcdef").done();
        assert_eq!(Reader::new(&text).string(5), Err(Error::TooLong { length: 6, limit: 5 }));
        assert_eq!(Reader::new(&text[..9]).string(9), Err(Error::Short));
        assert_eq!(Reader::new(&text[..10]).string(9), Err(Error::Short), "its padding is missing");
        assert_eq!(Reader::new(&[0xff; 4]).count(u32::MAX), Err(Error::Short));
        assert_eq!(Reader::new(b"\0\0\0\x01\xff\0\0\0").string(9), Err(Error::NotText));
        assert_eq!(Reader::new(b"\0\0\0\x02").is_there(), Err(Error::Choice(2)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in ".{0,40}", number: i32, bytes: [u8; 5]) {
            let written = Writer::default().string(&text).i32(number).opaque(&bytes).done();
            prop_assert_eq!(written.len() % 4, 0);
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.string(1000), Ok(text.as_str()));
            prop_assert_eq!(reader.i32(), Ok(number));
            prop_assert_eq!(reader.opaque::<5>(), Ok(bytes));
            prop_assert!(reader.rest().is_empty());
        }
    }
}
