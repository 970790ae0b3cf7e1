//! Memory that decoding a file takes at most, from its headers alone.
//!
//! The figures follow the source of the decoders behind the `image` crate (zune-jpeg 0.5, png 0.18,
//! gif 0.14, image-webp 0.2); `tests/hostile.rs` measures them on files made to be as bad as they can.

use image::ImageFormat;

/// Scans of a JPEG: an ordinary one has ten at most, and each can cost a walk over the whole picture.
const MAX_SCANS: usize = 500;

/// Most that text and profiles of a PNG may take when they are unpacked.
pub(super) const PNG_CHUNKS: u64 = 8 << 20;
/// Deflate makes no more of a byte.
const INFLATED: u64 = 1032;

/// Bytes for every byte of a lossless WebP stream: twelve of them can ask for a prefix code's table of
/// 1024 entries, and its header for 65,536 groups of five.
const WEBP_CODES: u64 = 350;
const MOST_WEBP_CODES: u64 = 65_536 * 5 * 4_200;

/// Bytes that decoding `file` takes beside the file itself, with `output` bytes of decoded pixels.
pub(super) fn of(file: &[u8], format: ImageFormat, [width, height]: [u32; 2], output: u64) -> u64 {
    let (pixels, len) = (u64::from(width) * u64::from(height), file.len() as u64);
    let working = match format {
        // The decoder copies the file, and its parts before the picture again and again.
        ImageFormat::Jpeg => match Jpeg::read(file) {
            Ok(jpeg) => jpeg.working_bytes() + len + 3 * jpeg.scan as u64,
            Err(_) => 8 * pixels + 4 * len,
        },
        ImageFormat::Png => PNG_CHUNKS.min(INFLATED * len),
        ImageFormat::WebP => WebP::read(file).working_bytes(pixels, len),
        // Indices into the palette.
        ImageFormat::Gif => pixels,
        _ => 0,
    };
    output + working
}

/// What matters of a JPEG's segments before its first scan.
struct Jpeg {
    width: u64,
    height: u64,
    /// Horizontal and vertical sampling factors of each component.
    sampling: Vec<[u64; 2]>,
    /// Coefficients of the whole picture are kept until the last scan.
    keeps_coefficients: bool,
    /// Where the first scan starts.
    scan: usize,
}

/// Why [`Jpeg::read`] finds no scan.
enum NoScan {
    /// The file ends before.
    Ends,
    /// The segments are not laid out as expected.
    Strange,
}

impl Jpeg {
    /// Walks from segment to segment up to the first scan.
    fn read(file: &[u8]) -> Result<Self, NoScan> {
        // Behind the start-of-image marker.
        let (mut at, mut frame) = (2, None);
        loop {
            let &[0xFF, marker, high, low] = file.get(at..at + 4).ok_or(NoScan::Ends)? else {
                return Err(NoScan::Strange);
            };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            match marker {
                // A marker may be preceded by any number of fill bytes 0xFF.
                0xFF => {
                    at += 1;
                    continue;
                }
                // Start of frame: baseline, extended, progressive.
                0xC0..=0xC2 => frame = Some((marker, file.get(at + 4..end).ok_or(NoScan::Ends)?)),
                0xDA => break,
                _ => {}
            }
            at = end;
        }
        let Some((marker, &[_, h1, h0, w1, w0, components, ref rest @ ..])) = frame else {
            return Err(NoScan::Strange);
        };
        let number = |bytes| u64::from(u16::from_be_bytes(bytes));
        let sampling = rest.chunks_exact(3).map(|part| [part[1] >> 4, part[1] & 15].map(u64::from)).collect();
        // Components that come in scans of their own are kept too.
        let keeps_coefficients = marker == 0xC2 || file.get(at + 4) != Some(&components);
        Ok(Self { width: number([w1, w0]), height: number([h1, h0]), sampling, keeps_coefficients, scan: at })
    }

    fn working_bytes(&self) -> u64 {
        let most = |axis: usize| self.sampling.iter().map(|factors| factors[axis]).max().unwrap_or(1).max(1);
        let (h, v) = (most(0), most(1));
        let units = self.width.div_ceil(8 * h) * self.height.div_ceil(8 * v);
        let blocks: u64 = self.sampling.iter().map(|[h, v]| h * v).sum();
        let coefficients = if self.keeps_coefficients { units * blocks * 64 * 2 } else { 0 };
        // Rows of blocks, and of what they are enlarged to.
        coefficients + self.width * h * v * 64 * self.sampling.len() as u64
    }
}

/// Whether a JPEG has an end-of-image marker behind the start of its picture data.
///
/// Segments are followed by their lengths, so that the end marker of a thumbnail within one doesn't
/// count. Data behind the marker is allowed; cameras put some there.
pub(super) fn jpeg_is_complete(file: &[u8]) -> bool {
    match Jpeg::read(file) {
        Ok(jpeg) => file[jpeg.scan..].windows(2).any(|pair| pair == [0xFF, 0xD9]),
        Err(NoScan::Ends) => false,
        // The verdict is the decoder's.
        Err(NoScan::Strange) => true,
    }
}

/// Whether a JPEG has more scans than any program writes.
pub(super) fn jpeg_has_too_many_scans(file: &[u8]) -> bool {
    file.windows(2).filter(|pair| *pair == [0xFF, 0xDA]).count() > MAX_SCANS
}

/// Whether every chunk of a WebP is there: the decoder takes memory by what their headers say.
pub(super) fn webp_is_complete(file: &[u8]) -> bool {
    WebP::read(file).is_complete
}

/// What matters of a WebP's chunks.
#[derive(Default)]
struct WebP {
    is_complete: bool,
    /// A picture of one chunk, without alpha or animation; else how it is stored.
    simple: Option<Storage>,
    /// Bytes of the lossless streams, those in an animation's first frame among them.
    lossless: u64,
    /// Of the largest lossy frame: it may say another size than the picture.
    lossy_pixels: u64,
}

#[derive(Clone, Copy)]
enum Storage {
    Lossy,
    Lossless,
}

impl WebP {
    fn read(file: &[u8]) -> Self {
        let simple = match file.get(12..16) {
            Some(b"VP8 ") => Some(Storage::Lossy),
            Some(b"VP8L") => Some(Storage::Lossless),
            _ => None,
        };
        let mut webp = Self { is_complete: file.len() >= 20, simple, ..Self::default() };
        if let Some(&[_, _, _, _, a, b, c, d, _, _, _, _, ref chunks @ ..]) = Some(file) {
            let length = (u32::from_le_bytes([a, b, c, d]) as usize).saturating_sub(4);
            webp.is_complete &= webp.walk(&chunks[..length.min(chunks.len())]);
        }
        webp
    }

    /// Whether no chunk is cut off.
    fn walk(&mut self, mut chunks: &[u8]) -> bool {
        while let Some((header, rest)) = chunks.split_at_checked(8) {
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let Some(contents) = rest.get(..length) else { return false };
            match (&header[..4], contents) {
                (b"VP8L" | b"ALPH", _) => self.lossless += contents.len() as u64,
                // Tag, start code, 14 bits each of width and height.
                (b"VP8 ", &[_, _, _, _, _, _, w0, w1, h0, h1, ..]) => {
                    let [width, height] = [[w0, w1], [h0, h1]].map(|side| u64::from(u16::from_le_bytes(side) & 0x3FFF));
                    self.lossy_pixels = self.lossy_pixels.max(width * height);
                }
                (b"ANMF", &[_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, ref frame @ ..]) if !self.walk(frame) => {
                    return false;
                }
                _ => {}
            }
            // Padded to an even length.
            chunks = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
        }
        true
    }

    fn working_bytes(&self, pixels: u64, len: u64) -> u64 {
        let tables = (self.lossless * WEBP_CODES).min(MOST_WEBP_CODES);
        // Y, U and V of whole blocks; the decoder copies the partitions.
        let lossy = 2 * self.lossy_pixels + len;
        match self.simple {
            Some(Storage::Lossy) => lossy,
            // RGBA, and the data of the transforms.
            Some(Storage::Lossless) => 5 * pixels + tables,
            // Alpha as a lossless picture of its own; canvas and frame of an animation.
            None => 10 * pixels + lossy + tables,
        }
    }
}
