//! Reads zip archives without trusting them: stored and deflated files, also beyond 4 GiB (APPNOTE.TXT 6.3.10).
//!
//! The central directory is read a member at a time, so that memory does not grow with it. The crate `zip` keeps every entry
//! before the first is read, and of two entries of one name only the last, which nobody would be told.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::ControlFlow,
    path::Path,
};

use flate2::{Crc, read::DeflateDecoder};

use crate::{
    archive::{MAX_NAME, Member, MemberKind},
    error::DataError,
    folder::text,
};

/// Bytes of the record at the end without its comment, and the longest comment.
const END: usize = 22;
const MAX_COMMENT: usize = 65_535;

/// A member as the central directory describes it.
struct Entry {
    name: Vec<u8>,
    kind: MemberKind,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Where its local header is.
    at: u64,
}

/// Calls `visit` with every member until it breaks.
pub(crate) fn visit(
    path: &Path,
    visit: &mut dyn FnMut(&mut Member) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let open = || File::open(path).map_err(DataError::io("open", path));
    let (mut directory, mut contents) = (open()?, BufReader::new(open()?));
    let (start, bytes) = find_directory(&mut directory).map_err(DataError::io("read", path))?;
    directory.seek(SeekFrom::Start(start)).map_err(DataError::io("read", path))?;
    let mut directory = BufReader::new(directory).take(bytes);
    while directory.limit() > 0 {
        let entry = read_entry(&mut directory).map_err(DataError::io("read", path))?;
        let Entry { name, kind, method, crc, packed, size, at } = entry;
        // Some programs of Windows write backslashes.
        let name = String::from_utf8(name).map_or_else(|error| text(error.as_bytes()), |name| name.replace('\\', "/"));
        let unpacked: &mut dyn Read = match kind {
            MemberKind::File => {
                go_to_contents(&mut contents, at).map_err(DataError::io("read", path))?;
                let packed = contents.by_ref().take(packed);
                let unpacked: Box<dyn Read> =
                    if method == 8 { Box::new(DeflateDecoder::new(packed)) } else { Box::new(packed) };
                &mut Checked { inner: unpacked, left: size, sum: Crc::new(), expected: crc }
            }
            _ => &mut io::empty(),
        };
        if visit(&mut Member { name, kind, size, contents: unpacked })?.is_break() {
            break;
        }
    }
    Ok(())
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the zip archive is damaged: {what}"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Start and length of the central directory.
fn find_directory(file: &mut File) -> io::Result<(u64, u64)> {
    let length = file.seek(SeekFrom::End(0))?;
    let tail = length.min((END + MAX_COMMENT) as u64);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = vec![];
    file.by_ref().take(tail).read_to_end(&mut bytes)?;
    let starts = bytes.windows(END).rposition(|window| window.starts_with(b"PK\x05\x06"));
    let at = starts.ok_or_else(|| damaged("its end is missing"))?;
    let end = &bytes[at..];
    let (mut size, mut start) = (u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    if size == 0xFFFF_FFFF || start == 0xFFFF_FFFF || u16_at(end, 10) == 0xFFFF {
        // The larger fields are in a record of their own, which a locator before this one points to.
        let locator = at.checked_sub(20).map(|at| &bytes[at..]).filter(|bytes| bytes.starts_with(b"PK\x06\x07"));
        if let Some(locator) = locator {
            let mut large = [0; 56];
            file.seek(SeekFrom::Start(u64_at(locator, 8)))?;
            file.read_exact(&mut large)?;
            if !large.starts_with(b"PK\x06\x06") {
                return Err(damaged("its end is not where it should be"));
            }
            (size, start) = (u64_at(&large, 40), u64_at(&large, 48));
        }
    }
    if start.checked_add(size).is_none_or(|end| end > length) {
        return Err(damaged("its list of files is cut off"));
    }
    Ok((start, size))
}

/// Reads the next member of the central directory.
fn read_entry(directory: &mut impl Read) -> io::Result<Entry> {
    let mut header = [0; 46];
    directory.read_exact(&mut header)?;
    if !header.starts_with(b"PK\x01\x02") {
        return Err(damaged("its list of files is not readable"));
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| u64::from(u16_at(&header, at)));
    if name > MAX_NAME {
        return Err(damaged("it has a name that is too long"));
    }
    let mut read = |length: u64| {
        let mut bytes = vec![0; length as usize];
        directory.read_exact(&mut bytes).map(|()| bytes)
    };
    let (name, extra) = (read(name)?, read(extra)?);
    read(comment)?;
    let mut fields = [24, 20, 42].map(|at| u64::from(u32_at(&header, at)));
    if fields.contains(&0xFFFF_FFFF) {
        enlarge(&mut fields, &extra);
    }
    let [size, packed, at] = fields;
    let (is_unix, mode) = (header[5] == 3, u32_at(&header, 38) >> 16);
    let method = u16_at(&header, 10);
    let kind = match () {
        () if name.ends_with(b"/") || name.ends_with(b"\\") => MemberKind::Folder,
        () if is_unix && mode & 0o170_000 == 0o120_000 => MemberKind::Link,
        () if u16_at(&header, 8) & 1 == 1 => MemberKind::Other("is encrypted".into()),
        () if ![0, 8].contains(&method) => MemberKind::Other(format!("is packed by method {method}")),
        () => MemberKind::File,
    };
    Ok(Entry { name, kind, method, crc: u32_at(&header, 16), packed, size, at })
}

/// Replaces those of the fields that are at their limit by those of the ZIP64 extra field, which has them in this order.
fn enlarge(fields: &mut [u64; 3], mut extra: &[u8]) {
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some((record, rest)) = extra[4..].split_at_checked(length) else { return };
        if id == 1 {
            let mut larger = record.chunks_exact(8).map(|value| u64_at(value, 0));
            for field in fields.iter_mut().filter(|field| **field == 0xFFFF_FFFF) {
                *field = larger.next().unwrap_or(*field);
            }
            return;
        }
        extra = rest;
    }
}

/// Goes to where a member's contents start, behind its local header.
fn go_to_contents(file: &mut BufReader<File>, at: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let mut header = [0; 30];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(damaged("a file is not where its list says"));
    }
    file.seek_relative(i64::from(u16_at(&header, 26)) + i64::from(u16_at(&header, 28)))
}

/// Contents that have to have the length and the checksum of the list.
struct Checked<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
    sum: Crc,
    expected: u32,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(damaged("a file ends early"));
        }
        self.sum.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 && self.sum.sum() != self.expected {
            return Err(damaged("a file does not have its checksum"));
        }
        Ok(read)
    }
}
