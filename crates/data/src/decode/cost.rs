//! An upper bound of the memory for decoding a file, from its headers.
//!
//! The figures follow the source of the decoders behind the `image` crate (zune-jpeg 0.5, png 0.18, gif 0.14,
//! image-webp 0.2); `tests/hostile.rs` measures them on worst-case files.

use image::ImageFormat;

/// Maximum number of scans of a JPEG. An ordinary one has at most ten, and each can cost a pass over the picture.
const MAX_SCANS: usize = 500;

/// Maximum size of a PNG's text and profiles after decompression.
pub(super) const PNG_CHUNKS: u64 = 8 << 20;
/// Maximum size of what is unpacked from a TIFF at a time.
const TIFF_BUFFERS: u64 = 16 << 20;
/// Maximum number of bytes that deflate makes from one byte.
const INFLATED: u64 = 1032;

/// Memory per byte of a lossless WebP stream: twelve bytes can request a prefix code table of 1024 entries, and the
/// header can request 65,536 groups of five tables.
const WEBP_CODES: u64 = 350;
const MOST_WEBP_CODES: u64 = 65_536 * 5 * 4_200;

/// Bytes for decoding `file`, without the file itself and with `output` bytes of decoded pixels.
pub(super) fn of(file: &[u8], format: ImageFormat, [width, height]: [u32; 2], output: u64) -> u64 {
    let (pixels, len) = (u64::from(width) * u64::from(height), file.len() as u64);
    let working = match format {
        // The decoder copies the file once, and the parts before the picture several times.
        ImageFormat::Jpeg => match Jpeg::read(file) {
            Ok(jpeg) => jpeg.working_bytes() + len + 3 * jpeg.scan as u64,
            Err(_) => 8 * pixels + 4 * len,
        },
        ImageFormat::Png => PNG_CHUNKS.min(INFLATED * len),
        ImageFormat::WebP => WebP::read(file).working_bytes(pixels, len),
        // Palette indices.
        ImageFormat::Gif => pixels,
        ImageFormat::Tiff => tiff_buffers(output),
        // Text is read into a second buffer.
        ImageFormat::Pnm | ImageFormat::Tga | ImageFormat::Qoi | ImageFormat::Ico => output,
        _ => 0,
    };
    output + working
}

/// Bytes for the samples of a TIFF as they are stored, of which CMYK has more than the picture's `output`, and for what is
/// unpacked on the way.
pub(super) fn tiff_buffers(output: u64) -> u64 {
    output / 3 * 4 + TIFF_BUFFERS.min(output + (64 << 10))
}

/// The relevant parts of a JPEG's segments before its first scan.
struct Jpeg {
    width: u64,
    height: u64,
    /// Horizontal and vertical sampling factors of each component.
    sampling: Vec<[u64; 2]>,
    /// Whether the coefficients of the whole picture are kept until the last scan.
    keeps_coefficients: bool,
    /// Where the first scan starts.
    scan: usize,
}

/// Why [`Jpeg::read`] found no scan.
enum NoScan {
    /// The file ends before the scan.
    Ends,
    /// The layout of the segments is unexpected.
    Strange,
}

impl Jpeg {
    /// Walks from segment to segment up to the first scan.
    fn read(file: &[u8]) -> Result<Self, NoScan> {
        // After the start-of-image marker.
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
        // Components in separate scans are kept too.
        let keeps_coefficients = marker == 0xC2 || file.get(at + 4) != Some(&components);
        Ok(Self { width: number([w1, w0]), height: number([h1, h0]), sampling, keeps_coefficients, scan: at })
    }

    fn working_bytes(&self) -> u64 {
        let most = |axis: usize| self.sampling.iter().map(|factors| factors[axis]).max().unwrap_or(1).max(1);
        let (h, v) = (most(0), most(1));
        let units = self.width.div_ceil(8 * h) * self.height.div_ceil(8 * v);
        let blocks: u64 = self.sampling.iter().map(|[h, v]| h * v).sum();
        let coefficients = if self.keeps_coefficients { units * blocks * 64 * 2 } else { 0 };
        // Rows of blocks, before and after upsampling.
        coefficients + self.width * h * v * 64 * self.sampling.len() as u64
    }
}

/// Whether a JPEG has an end-of-image marker after the start of its picture data.
///
/// Segments are skipped by their length, so the end marker of an embedded thumbnail does not count. Data after
/// the marker is allowed, because cameras put some there.
pub(super) fn jpeg_is_complete(file: &[u8]) -> bool {
    match Jpeg::read(file) {
        Ok(jpeg) => file[jpeg.scan..].windows(2).any(|pair| pair == [0xFF, 0xD9]),
        Err(NoScan::Ends) => false,
        // The decoder decides.
        Err(NoScan::Strange) => true,
    }
}

/// Whether a JPEG has more than [`MAX_SCANS`] scans.
pub(super) fn jpeg_has_too_many_scans(file: &[u8]) -> bool {
    file.windows(2).filter(|pair| *pair == [0xFF, 0xDA]).count() > MAX_SCANS
}

/// Whether every chunk of a WebP is complete. The decoder allocates memory by the sizes in their headers.
pub(super) fn webp_is_complete(file: &[u8]) -> bool {
    WebP::read(file).is_complete
}

/// The relevant parts of a WebP's chunks.
#[derive(Default)]
struct WebP {
    is_complete: bool,
    /// How the picture is stored, if it is one chunk without alpha or animation.
    simple: Option<Storage>,
    /// Total bytes of the lossless streams, including those of an animation's first frame.
    lossless: u64,
    /// Pixels of the largest lossy frame, whose size can differ from the picture's.
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

    /// Returns whether all chunks are complete.
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
            // Chunks are padded to an even length.
            chunks = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
        }
        true
    }

    fn working_bytes(&self, pixels: u64, len: u64) -> u64 {
        let tables = (self.lossless * WEBP_CODES).min(MOST_WEBP_CODES);
        // Y, U and V in whole blocks; the decoder copies the partitions.
        let lossy = 2 * self.lossy_pixels + len;
        match self.simple {
            Some(Storage::Lossy) => lossy,
            // RGBA and the transforms' data.
            Some(Storage::Lossless) => 5 * pixels + tables,
            // Alpha is a separate lossless picture; an animation has a canvas and a frame.
            None => 10 * pixels + lossy + tables,
        }
    }
}
