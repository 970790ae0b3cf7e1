//! What a JPEG's markers and codes say before it is decoded (ITU T.81): how much of the picture is there, and which
//! segments contradict each other. The decoder behind the `image` crate fills what is missing with anything and says nothing.

use std::borrow::Cow;

/// How much of a picture is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    /// Share of the picture's blocks whose codes are there, 0 to 1.
    pub share: f64,
    /// Where the picture's data ends.
    pub end: usize,
}

/// Walks through the codes of a sequential Huffman JPEG, or the scans of a progressive one, without decoding them. `None` for
/// other kinds, and for files that are not laid out as usual, which the decoder has to judge.
pub(super) fn extent(file: &[u8]) -> Option<Extent> {
    let mut walk = Walk::default();
    let mut at = 2;
    while let Some(Segment { marker, contents, end }) = Segment::read(file, at) {
        at = end;
        match marker {
            0xC4 => walk.define_tables(contents)?,
            0xDD => walk.interval = usize::from(u16::from_be_bytes([*contents.first()?, *contents.get(1)?])),
            // Baseline, extended sequential, progressive; 8 bits a sample.
            0xC0..=0xC2 => walk.frame = Some(Frame::read(contents, marker == 0xC2)?),
            // Other frames: lossless, hierarchical, arithmetic.
            0xC3 | 0xC5..=0xC7 | 0xC9..=0xCF => return None,
            0xDA => at = walk.scan(file, contents, end)?,
            0xD9 => break,
            _ => {}
        }
    }
    let frame = walk.frame.as_ref()?;
    if walk.expected == 0 {
        return None;
    }
    // Blocks of components whose scan is missing.
    let unseen = (0..frame.components.len()).filter(|index| !frame.components[*index].is_seen);
    let missing: usize = unseen.map(|index| frame.units(&[(index, [0; 2])]).0).sum();
    let share = match frame.is_progressive {
        true => frame.coverage(),
        false => walk.found as f64 / (walk.expected + missing) as f64,
    };
    Some(Extent { share, end: walk.end })
}

/// The file without the Adobe segment where that contradicts a JFIF segment. libjpeg, and so Pillow and browsers, believe JFIF,
/// whose colors are always YCbCr.
pub(super) fn without_contradiction(file: &[u8]) -> Cow<'_, [u8]> {
    let (mut at, mut is_jfif, mut adobe, mut components) = (2, false, None, 0);
    while let Some(Segment { marker, contents, end }) = Segment::read(file, at) {
        match marker {
            0xE0 => is_jfif |= contents.starts_with(b"JFIF\0"),
            // Version, flags of 2 bytes each, and the transform: 0 stands for RGB.
            0xEE if contents.starts_with(b"Adobe") && contents.get(11) == Some(&0) => adobe = Some(at..end),
            0xC0..=0xC2 => components = contents.get(5).copied().unwrap_or(0),
            0xDA => break,
            _ => {}
        }
        at = end;
    }
    match adobe {
        Some(range) if is_jfif && components == 3 => Cow::Owned([&file[..range.start], &file[range.end..]].concat()),
        _ => Cow::Borrowed(file),
    }
}

/// A marker with its contents.
struct Segment<'a> {
    marker: u8,
    contents: &'a [u8],
    /// Where it ends.
    end: usize,
}

impl<'a> Segment<'a> {
    /// The segment at a position; `None` where there is no marker, or not all of it.
    fn read(file: &'a [u8], mut at: usize) -> Option<Self> {
        if *file.get(at)? != 0xFF {
            return None;
        }
        // A marker may be preceded by any number of fill bytes.
        while *file.get(at + 1)? == 0xFF {
            at += 1;
        }
        let marker = file[at + 1];
        if marker == 0xD9 {
            return Some(Self { marker, contents: &[], end: at + 2 });
        }
        let length = usize::from(u16::from_be_bytes([*file.get(at + 2)?, *file.get(at + 3)?]));
        let end = at + 2 + length;
        Some(Self { marker, contents: file.get(at + 4..end)?, end })
    }
}

/// The frame header.
struct Frame {
    width: usize,
    height: usize,
    is_progressive: bool,
    components: Vec<Component>,
}

struct Component {
    id: u8,
    h: usize,
    v: usize,
    is_seen: bool,
    /// For each coefficient of a progressive picture, the bits that are still missing; 255 for all.
    missing_bits: [u8; 64],
}

impl Frame {
    fn read(contents: &[u8], is_progressive: bool) -> Option<Self> {
        let &[8, h1, h0, w1, w0, count, ref rest @ ..] = contents else { return None };
        let component = |part: &[u8]| Component {
            id: part[0],
            h: usize::from(part[1] >> 4),
            v: usize::from(part[1] & 15),
            is_seen: false,
            missing_bits: [255; 64],
        };
        let components: Vec<_> = rest.chunks_exact(3).map(component).collect();
        let are_factors = components.iter().all(|part| (1..=4).contains(&part.h) && (1..=4).contains(&part.v));
        let (width, height) = (u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into());
        let is_usual = are_factors && components.len() == usize::from(count) && (1..=4).contains(&count);
        (is_usual && width > 0 && height > 0).then_some(Self { width, height, is_progressive, components })
    }

    /// Largest factors of all components.
    fn factors(&self) -> [usize; 2] {
        let most = |of: fn(&Component) -> usize| self.components.iter().map(of).max().unwrap_or(1);
        [most(|part| part.h), most(|part| part.v)]
    }

    /// Units of a scan of these components, and blocks of each component in a unit.
    fn units(&self, scan: &[(usize, [usize; 2])]) -> (usize, Vec<(usize, [usize; 2])>) {
        let [h, v] = self.factors();
        if let [(component, tables)] = scan {
            // Alone, a component is as large as its part of the picture.
            let part = &self.components[*component];
            let across = (self.width * part.h).div_ceil(h).div_ceil(8);
            let down = (self.height * part.v).div_ceil(v).div_ceil(8);
            return (across * down, vec![(*component, *tables)]);
        }
        let of_each = scan.iter().flat_map(|(component, tables)| {
            let part = &self.components[*component];
            std::iter::repeat_n((*component, *tables), part.h * part.v)
        });
        (self.width.div_ceil(8 * h) * self.height.div_ceil(8 * v), of_each.collect())
    }

    /// Share of a progressive picture's coefficients that are there to the last bit.
    fn coverage(&self) -> f64 {
        let complete =
            self.components.iter().flat_map(|part| part.missing_bits).filter(|missing| *missing == 0).count();
        complete as f64 / (64 * self.components.len()) as f64
    }
}

#[derive(Default)]
struct Walk {
    /// Tables of DC and AC codes.
    tables: [[Option<Box<Codes>>; 4]; 2],
    frame: Option<Frame>,
    /// Units between restart markers; 0 for none.
    interval: usize,
    /// Blocks that the scans should have, and that they have.
    expected: usize,
    found: usize,
    end: usize,
}

impl Walk {
    fn define_tables(&mut self, mut contents: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = contents.split_first() {
            let (counts, rest) = rest.split_at_checked(16)?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let table = self.tables.get_mut(usize::from(kind >> 4))?.get_mut(usize::from(kind & 15))?;
            *table = Some(Box::new(Codes::new(counts, symbols)?));
            contents = rest;
        }
        Some(())
    }

    /// Walks through a scan, and returns where the next marker is.
    fn scan(&mut self, file: &[u8], header: &[u8], start: usize) -> Option<usize> {
        let frame = self.frame.as_mut()?;
        let (&count, rest) = header.split_first()?;
        let (parts, progression) = rest.split_at_checked(2 * usize::from(count))?;
        let mut scan = vec![];
        for part in parts.chunks_exact(2) {
            let component = frame.components.iter().position(|component| component.id == part[0])?;
            frame.components[component].is_seen = true;
            scan.push((component, [part[1] >> 4, part[1] & 15].map(usize::from)));
        }
        if frame.is_progressive {
            let &[first, last, bits, ..] = progression else { return None };
            for (component, _) in &scan {
                let missing = &mut frame.components[*component].missing_bits;
                missing.get_mut(usize::from(first)..=usize::from(last))?.fill(bits & 15);
            }
            self.expected += 1;
            let mut at = next_marker(file, start);
            while let Some(0xD0..=0xD7) = file.get(at + 1) {
                at = next_marker(file, at + 2);
            }
            self.end = at;
            return Some(at);
        }
        let (units, blocks) = frame.units(&scan);
        let mut codes = vec![];
        for (_, [dc, ac]) in blocks {
            let table = |class: usize, index: usize| self.tables[class].get(index)?.as_deref();
            codes.push((table(0, dc)?, table(1, ac)?));
        }
        self.expected += units * codes.len();
        let (mut at, mut left) = (start, units);
        while left > 0 {
            let run = if self.interval == 0 { left } else { self.interval.min(left) };
            let mut bits = Bits::new(file, at);
            let found = (0..run).take_while(|_| codes.iter().all(|(dc, ac)| bits.skip_block(dc, ac).is_some())).count();
            self.found += found * codes.len();
            left -= run;
            at = next_marker(file, bits.position());
            // The next run starts behind a restart marker.
            match file.get(at + 1) {
                Some(0xD0..=0xD7) if left > 0 => at += 2,
                _ => break,
            }
        }
        self.end = at;
        Some(at)
    }
}

/// The position of the next marker, or the end of the file.
fn next_marker(file: &[u8], from: usize) -> usize {
    let is_marker = |pair: &[u8]| pair[0] == 0xFF && pair[1] != 0 && pair[1] != 0xFF;
    let found = file.get(from..).unwrap_or_default().windows(2).position(is_marker);
    found.map_or(file.len(), |at| from + at)
}

/// Bits by which [`Codes::short`] is indexed.
const SHORT: usize = 10;

/// A Huffman table.
struct Codes {
    /// What the code that starts with these bits stands for; a length of 0 where it is longer than they are.
    short: [Symbol; 1 << SHORT],
    /// For each length, the first code that is longer, aligned to 16 bits, and what to add to a code for its symbol's index.
    longer: [(u32, i32); 17],
    symbols: Vec<Symbol>,
}

/// A code and the value behind it.
#[derive(Clone, Copy)]
struct Symbol {
    /// Bits of the code and of the value.
    length: u8,
    /// Coefficients that they stand for in a table of AC codes; 64 for the rest of the block.
    coefficients: u8,
}

impl Symbol {
    /// Without the length of its code.
    fn new(symbol: u8) -> Self {
        let (run, size) = (symbol >> 4, symbol & 15);
        let coefficients = if size == 0 && run != 15 { 64 } else { run + 1 };
        Self { length: size, coefficients }
    }

    fn with_code(self, length: usize) -> Self {
        Self { length: self.length + length as u8, ..self }
    }
}

impl Codes {
    fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let none = Symbol { length: 0, coefficients: 0 };
        let symbols: Vec<_> = symbols.iter().map(|symbol| Symbol::new(*symbol)).collect();
        let mut codes = Self { short: [none; 1 << SHORT], longer: [(0, 0); 17], symbols };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, count) in (1_usize..).zip(counts) {
            codes.longer[length].1 = index as i32 - code as i32;
            for _ in 0..*count {
                if length <= SHORT {
                    let start = (code << (SHORT - length)) as usize;
                    let symbol = codes.symbols[index].with_code(length);
                    codes.short.get_mut(start..start + (1 << (SHORT - length)))?.fill(symbol);
                }
                (code, index) = (code + 1, index + 1);
            }
            codes.longer[length].0 = code << (16 - length);
            code <<= 1;
        }
        Some(codes)
    }

    /// The symbol of a code longer than [`SHORT`] bits.
    #[cold]
    fn long(&self, next: u32) -> Option<Symbol> {
        let length = (SHORT + 1..=16).find(|length| next < self.longer[*length].0)?;
        let index = (next >> (16 - length)) as i32 + self.longer[length].1;
        Some(self.symbols.get(usize::try_from(index).ok()?)?.with_code(length))
    }
}

/// The bits of a run of codes, up to the next marker.
struct Bits<'a> {
    file: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    bits: u64,
    count: u32,
    is_at_end: bool,
}

impl<'a> Bits<'a> {
    fn new(file: &'a [u8], at: usize) -> Self {
        Self { file, at, bits: 0, count: 0, is_at_end: false }
    }

    /// Behind the last byte that was taken, which may be a few ahead of the codes, but not of a marker.
    fn position(&self) -> usize {
        self.at
    }

    /// Takes bytes until there are as many bits as a code and its value can have, 31, or no more.
    #[inline]
    fn fill(&mut self) {
        if let Some(&[a, b, c, d]) = self.file.get(self.at..self.at + 4)
            && ![a, b, c, d].contains(&0xFF)
        {
            self.bits |= u64::from(u32::from_be_bytes([a, b, c, d])) << (32 - self.count);
            self.count += 32;
            self.at += 4;
        } else {
            self.fill_slowly();
        }
    }

    fn fill_slowly(&mut self) {
        while self.count <= 56 && !self.is_at_end {
            match self.file.get(self.at..) {
                Some([0xFF, 0, ..]) => self.push(0xFF, 2),
                Some([0xFF, ..]) | Some([]) | None => self.is_at_end = true,
                Some([byte, ..]) => self.push(*byte, 1),
            }
        }
    }

    fn push(&mut self, byte: u8, length: usize) {
        self.bits |= u64::from(byte) << (56 - self.count);
        self.count += 8;
        self.at += length;
    }

    /// Passes over a code and its value.
    #[inline]
    fn symbol(&mut self, codes: &Codes) -> Option<Symbol> {
        if self.count < 32 {
            self.fill();
        }
        let mut symbol = codes.short[(self.bits >> (64 - SHORT)) as usize];
        if symbol.length == 0 {
            symbol = codes.long((self.bits >> 48) as u32)?;
        }
        self.count = self.count.checked_sub(symbol.length.into())?;
        self.bits <<= symbol.length;
        Some(symbol)
    }

    /// Passes over a block's codes; `None` if they are not there, or are no codes.
    fn skip_block(&mut self, dc: &Codes, ac: &Codes) -> Option<()> {
        self.symbol(dc)?;
        let mut coefficient = 1;
        while coefficient < 64 {
            coefficient += usize::from(self.symbol(ac)?.coefficients);
        }
        Some(())
    }
}
