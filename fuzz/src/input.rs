//! Structured input: numbers and byte strings off the front of a fuzzer's bytes, and the same
//! put together for seeds. Little-endian; past the end everything is zero or empty, so that
//! any bytes mean something and cutting some off changes little.

/// Takes values off the front.
#[derive(Debug, Clone)]
pub struct Take<'a> {
    rest: &'a [u8],
}

macro_rules! numbers {
    ($($name:ident: $kind:ty),*) => {
        $(
            /// The next number.
            pub fn $name(&mut self) -> $kind {
                let mut raw = [0; size_of::<$kind>()];
                let bytes = self.at_most(raw.len());
                raw[..bytes.len()].copy_from_slice(bytes);
                <$kind>::from_le_bytes(raw)
            }
        )*
    };
}

impl<'a> Take<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Take { rest: bytes }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    numbers!(u8: u8, u16: u16, u32: u32, u64: u64);

    /// The next `count` bytes, or what is left.
    pub fn at_most(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A byte string after 16 bits of length.
    pub fn short(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16());
        self.at_most(length)
    }

    /// A byte string after 32 bits of length.
    pub fn long(&mut self) -> &'a [u8] {
        let length = self.u32() as usize;
        self.at_most(length)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Puts together what [`Take`] takes apart.
#[derive(Debug, Clone, Default)]
pub struct Put(pub Vec<u8>);

impl Put {
    /// Appends bytes as they are: a number's, or the last byte string.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a byte string for [`Take::short`]; what is longer than it can be is cut.
    pub fn short(&mut self, bytes: &[u8]) -> &mut Self {
        let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        self.raw(&(bytes.len() as u16).to_le_bytes()).raw(bytes)
    }

    /// Appends a byte string for [`Take::long`].
    pub fn long(&mut self, bytes: &[u8]) -> &mut Self {
        self.raw(&(bytes.len() as u32).to_le_bytes()).raw(bytes)
    }
}
