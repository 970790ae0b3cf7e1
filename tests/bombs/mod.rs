//! Picture files that are valid and as large as their headers say, though they have few bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// A black JPEG, for CMYK with four components. `sampling` is the first component's, the others' is 1 by 1.
pub fn jpeg([width, height]: [u16; 2], components: u8, sampling: [u8; 2], is_progressive: bool) -> Vec<u8> {
    let mut file = vec![0xFF, 0xD8];
    let mut segment = |marker: u8, contents: &[u8]| {
        file.extend([0xFF, marker]);
        file.extend((contents.len() as u16 + 2).to_be_bytes());
        file.extend(contents);
    };
    segment(0xDB, &[&[0][..], &[1; 64]].concat());
    let mut frame = vec![8];
    frame.extend(height.to_be_bytes());
    frame.extend(width.to_be_bytes());
    frame.push(components);
    for component in 1..=components {
        let [h, v] = if component == 1 { sampling } else { [1, 1] };
        frame.extend([component, h << 4 | v, 0]);
    }
    segment(if is_progressive { 0xC2 } else { 0xC0 }, &frame);
    // One code of one bit in each table: no difference, and end of block.
    for class in [0x00, 0x10] {
        segment(0xC4, &[&[class, 1][..], &[0; 15], &[0]].concat());
    }
    let mut scan = vec![components];
    scan.extend((1..=components).flat_map(|component| [component, 0]));
    scan.extend(if is_progressive { [0, 0, 0] } else { [0, 63, 0] });
    segment(0xDA, &scan);
    let [h, v] = sampling.map(usize::from);
    let units = usize::from(width).div_ceil(8 * h) * usize::from(height).div_ceil(8 * v);
    let blocks = units * (h * v + usize::from(components) - 1);
    file.resize(file.len() + (blocks * if is_progressive { 1 } else { 2 }).div_ceil(8), 0);
    file.extend([0xFF, 0xD9]);
    file
}

/// A black TIFF in RGB with one deflated strip.
pub fn tiff([width, height]: [u32; 2]) -> Vec<u8> {
    let row = vec![0; width as usize * 3];
    let mut pixels = ZlibEncoder::new(vec![], Compression::fast());
    (0..height).for_each(|_| pixels.write_all(&row).unwrap());
    let pixels = pixels.finish().unwrap();
    // Width, height, bits, compression, RGB, strip, samples, rows in the strip, its bytes; then the three depths.
    let (strip, depths) = (8 + 2 + 9 * 12 + 4 + 6, 8 + 2 + 9 * 12 + 4);
    let tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, depths),
        (259, 3, 1, 8),
        (262, 3, 1, 2),
        (273, 4, 1, strip),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, pixels.len() as u32),
    ];
    let mut file = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, count, value) in tags {
        file.extend([tag as u16, kind as u16].map(u16::to_le_bytes).concat());
        file.extend([count, value].map(u32::to_le_bytes).concat());
    }
    file.extend([0, 0, 0, 0, 8, 0, 8, 0, 8, 0]);
    file.extend(pixels);
    file
}

/// A black run-length encoded Targa file in RGBA.
pub fn tga([width, height]: [u16; 2]) -> Vec<u8> {
    let mut file = vec![0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([width, height].map(u16::to_le_bytes).concat());
    file.extend([32, 0]);
    let runs = (usize::from(width) * usize::from(height)).div_ceil(128);
    file.extend([0xFF, 0, 0, 0, 255].repeat(runs));
    file
}

/// A QOI file in RGBA of one color.
pub fn qoi([width, height]: [u32; 2]) -> Vec<u8> {
    let mut file = b"qoif".to_vec();
    file.extend([width, height].map(u32::to_be_bytes).concat());
    file.extend([4, 0]);
    file.extend(vec![0xFD; (width as usize * height as usize).div_ceil(62)]);
    file.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    file
}

/// A black PNG of a colour type (0 grey, 2 RGB, 6 RGBA) and 8 or 16 bits.
pub fn png([width, height]: [u32; 2], colour: u8, bits: u8) -> Vec<u8> {
    let channels = [1, 0, 3, 0, 0, 0, 4][usize::from(colour)];
    let row = vec![0; 1 + width as usize * channels * usize::from(bits / 8)];
    let mut pixels = ZlibEncoder::new(vec![], Compression::fast());
    (0..height).for_each(|_| pixels.write_all(&row).unwrap());
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[bits, colour, 0, 0, 0]].concat();
    png_of(&[(b"IHDR", &header), (b"IDAT", &pixels.finish().unwrap())])
}

/// A PNG of 1 pixel with a profile that unpacks to `bytes`.
pub fn png_profile(bytes: usize) -> Vec<u8> {
    let packed = |bytes: usize| {
        let mut profile = ZlibEncoder::new(vec![], Compression::fast());
        let zeros = vec![0; 1 << 20];
        (0..bytes.div_ceil(zeros.len()))
            .for_each(|at| profile.write_all(&zeros[..zeros.len().min(bytes - (at << 20))]).unwrap());
        profile.finish().unwrap()
    };
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0];
    png_of(&[(b"IHDR", &header), (b"iCCP", &[b"x\0\0", &packed(bytes)[..]].concat()), (b"IDAT", &packed(2))])
}

fn png_of(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, contents) in chunks.iter().copied().chain([(b"IEND", &[][..])]) {
        let mut checksum = flate2::Crc::new();
        checksum.update(kind);
        checksum.update(contents);
        file.extend((contents.len() as u32).to_be_bytes());
        file.extend([kind, contents, &checksum.sum().to_be_bytes()].concat());
    }
    file
}

/// A GIF of one colour, whose frame may be larger than its screen; `frames` of them.
pub fn gif(screen: [u16; 2], frame: [u16; 2], frames: usize) -> Vec<u8> {
    let size = |[width, height]: [u16; 2]| [width.to_le_bytes(), height.to_le_bytes()].concat();
    let mut file = [b"GIF89a", &size(screen)[..], &[0x80, 0, 0, 0, 0, 0, 9, 9, 9]].concat();
    let mut encoder = weezl::encode::Encoder::new(weezl::BitOrder::Lsb, 2);
    let pixels = encoder.encode(&vec![0; usize::from(frame[0]) * usize::from(frame[1])]).unwrap();
    for _ in 0..frames {
        file.extend([&[0x2C, 0, 0, 0, 0][..], &size(frame), &[0, 2]].concat());
        pixels.chunks(255).for_each(|block| file.extend([&[block.len() as u8][..], block].concat()));
        file.push(0);
    }
    file.push(0x3B);
    file
}

/// A black BMP of 24 bits.
pub fn bmp([width, height]: [u32; 2]) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    for number in [54 + row * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    file.resize(54 + (row * height) as usize, 0);
    file
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, contents) in chunks {
        body.extend(*kind);
        body.extend((contents.len() as u32).to_le_bytes());
        body.extend(*contents);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// A lossy frame, whose entropy-coded parts are zeros.
fn vp8([width, height]: [u16; 2]) -> Vec<u8> {
    let parts = usize::from(width.div_ceil(16)) * usize::from(height.div_ceil(16)) * 5;
    let tag = (parts as u32 / 2) << 5 | 1 << 4;
    let mut frame = tag.to_le_bytes()[..3].to_vec();
    frame.extend([0x9D, 0x01, 0x2A]);
    frame.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    frame.resize(10 + parts, 0);
    frame
}

pub fn webp_lossy(size: [u16; 2]) -> Vec<u8> {
    riff(&[(b"VP8 ", &vp8(size))])
}

/// What a WebP of several chunks says first: its canvas, and whether it is animated.
fn webp_header([width, height]: [u32; 2], flags: u8) -> Vec<u8> {
    let three = |number: u32| number.to_le_bytes()[..3].to_vec();
    [&[flags, 0, 0, 0][..], &three(width - 1), &three(height - 1)].concat()
}

/// A canvas of 32 by 32 pixels with a lossy frame of another size.
pub fn webp_that_lies(frame: [u16; 2]) -> Vec<u8> {
    riff(&[(b"VP8X", &webp_header([32, 32], 0)), (b"VP8 ", &vp8(frame))])
}

/// A canvas of 32 by 32 pixels, and an EXIF block that claims four gigabytes.
pub fn webp_with_a_claim() -> Vec<u8> {
    let mut file = riff(&[(b"VP8X", &webp_header([32, 32], 8)), (b"EXIF", b"II")]);
    let at = file.len() - 6;
    file[at..at + 4].copy_from_slice(&0xFFFF_FFF0_u32.to_le_bytes());
    file[4..8].copy_from_slice(&0x7FFF_FFFF_u32.to_le_bytes());
    file
}

/// An animation of lossless frames as large as its canvas.
pub fn webp_animation(size: [u32; 2], frames: usize) -> Vec<u8> {
    let header = webp_header(size, 2);
    let frame = [&[0; 6][..], &header[4..], &[0; 4], &riff(&[(b"VP8L", &vp8l(size, 0))])[12..]].concat();
    let mut chunks = vec![(b"VP8X", &header[..]), (b"ANIM", &[0; 6])];
    chunks.extend((0..frames).map(|_| (b"ANMF", &frame[..])));
    riff(&chunks)
}

pub fn webp_lossless(size: [u32; 2]) -> Vec<u8> {
    riff(&[(b"VP8L", &vp8l(size, 0))])
}

/// 16 by 16 pixels with so many groups of five prefix codes, each of which asks for a table of 1024 entries.
pub fn webp_codes(groups: u32) -> Vec<u8> {
    riff(&[(b"VP8L", &vp8l([16, 16], groups))])
}

/// A lossless stream in which every code has one symbol; or `groups` of codes with ten lengths each.
fn vp8l([width, height]: [u32; 2], groups: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0x2F, 8);
    bits.put(width - 1, 14);
    bits.put(height - 1, 14);
    // No alpha; version 0; no transform; no colour cache.
    bits.put(0, 1 + 3 + 1 + 1);
    if groups == 0 {
        bits.put(0, 1);
        (0..5).for_each(|_| bits.symbol(0));
    } else {
        // An entropy image of blocks of 4 by 4 pixels, all of the last group, without a colour cache.
        bits.put(1, 1);
        bits.put(0, 3 + 1);
        for symbol in [(groups - 1) & 255, (groups - 1) >> 8, 0, 0, 0] {
            bits.symbol(symbol);
        }
        (0..5 * groups).for_each(|_| bits.code());
    }
    bits.put(0, 32);
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.pending |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// A code of that symbol alone.
    fn symbol(&mut self, symbol: u32) {
        self.put(0b101, 3);
        self.put(symbol, 8);
    }

    /// A code for eleven symbols of the lengths 1 to 10 and 10.
    fn code(&mut self) {
        const ORDER: [u32; 14] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10];
        // The lengths' own code: three bits for 1 to 6, four for 7 to 10.
        let length = |symbol: u32| if (1..=6).contains(&symbol) { 3 } else { 4 };
        self.put(0, 1);
        self.put(ORDER.len() as u32 - 4, 4);
        for symbol in ORDER {
            self.put(if (1..=10).contains(&symbol) { length(symbol) } else { 0 }, 3);
        }
        // Eleven lengths follow, a number of four bits.
        self.put(1, 1);
        self.put(1, 3);
        self.put(11 - 2, 4);
        for symbol in (1..=10).chain([10]) {
            let code = if symbol <= 6 { symbol - 1 } else { 12 + symbol - 7 };
            (0..length(symbol)).rev().for_each(|bit| self.put(code >> bit & 1, 1));
        }
    }
}
