//! Files of weights as other programs write them, and as somebody who means harm could: for tests and fuzz targets.

/// A tensor of f32: name, shape, and the value of each number by its place.
pub type Weights<'a> = (&'a str, &'a [usize]);

/// A number for each place, none of them zero.
pub fn number(at: usize) -> f32 {
    (at as f32 * 0.7).sin() * 0.2 + 0.5
}

fn numbers(shape: &[usize]) -> Vec<u8> {
    (0..shape.iter().product::<usize>()).flat_map(|at| number(at).to_le_bytes()).collect()
}

/// Opcodes of Python's pickle, protocol 2.
#[derive(Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn op(mut self, opcodes: &[u8]) -> Self {
        self.0.extend(opcodes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        let len = (text.len() as u32).to_le_bytes();
        self.op(b"X").op(&len).op(text.as_bytes())
    }

    /// A whole number of 64 bits.
    pub fn int(self, value: i64) -> Self {
        self.op(&[0x8A, 8]).op(&value.to_le_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    fn tuple(self, values: &[i64]) -> Self {
        values.iter().fold(self.op(b"("), |pickle, value| pickle.int(*value)).op(b"t")
    }

    /// A tensor of so many numbers in a storage, with its shape and strides.
    pub fn tensor(self, storage: &str, count: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global("torch", "FloatStorage")
            .text(storage)
            .text("cpu")
            .int(count)
            .op(b"tQ")
            .int(0)
            .tuple(shape)
            .tuple(strides)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }

    /// A state dict whose `n`th tensor is storage `n`.
    pub fn state_dict(self, weights: &[Weights]) -> Self {
        let pickle = weights.iter().enumerate().fold(self.op(b"}("), |pickle, (index, (name, shape))| {
            let shape: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
            let strides: Vec<i64> = (1..=shape.len()).map(|from| shape[from..].iter().product()).collect();
            pickle.text(name).tensor(&index.to_string(), shape.iter().product(), &shape, &strides)
        });
        pickle.op(b"u")
    }
}

/// A checkpoint of `torch.save`: a zip archive of a pickle and a storage for each tensor.
pub fn checkpoint(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let mut entries = vec![("a/data.pkl".to_owned(), pickle.to_vec()), ("a/byteorder".to_owned(), b"little".to_vec())];
    entries.extend(storages.iter().enumerate().map(|(index, bytes)| (format!("a/data/{index}"), bytes.clone())));
    entries.push(("a/version".to_owned(), b"3\n".to_vec()));
    zip(&entries.iter().map(|(name, bytes)| Entry::stored(name, bytes)).collect::<Vec<_>>())
}

/// A checkpoint of these weights.
pub fn state_dict(weights: &[Weights]) -> Vec<u8> {
    let storages: Vec<_> = weights.iter().map(|(_, shape)| numbers(shape)).collect();
    checkpoint(&Pickle::new().state_dict(weights).op(b".").0, &storages)
}

/// The same, under a key beside what a training loop keeps.
pub fn wrapped(key: &str, weights: &[Weights]) -> Vec<u8> {
    let storages: Vec<_> = weights.iter().map(|(_, shape)| numbers(shape)).collect();
    let pickle = Pickle::new().op(b"}(").text("epoch").int(3).text(key).state_dict(weights);
    checkpoint(&pickle.text("optimizer").op(b"}u.").0, &storages)
}

/// The form before zip archives: pickles one after the other, then the storages.
pub fn legacy(weights: &[Weights]) -> Vec<u8> {
    let magic = Pickle::new().op(&[0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19]).op(b".");
    let version = Pickle::new().op(b"M\xE9\x03.");
    let system = Pickle::new().op(b"}(").text("little_endian").op(b"\x88u.");
    let keys = (0..weights.len()).fold(Pickle::new().op(b"]("), |pickle, index| pickle.text(&index.to_string()));
    let mut file =
        [magic.0, version.0, system.0, Pickle::new().state_dict(weights).op(b".").0, keys.op(b"e.").0].concat();
    for (_, shape) in weights {
        file.extend((shape.iter().product::<usize>() as u64).to_le_bytes());
        file.extend(numbers(shape));
    }
    file
}

/// An entry of a zip archive. What it claims need not be so.
pub struct Entry<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
    /// 0 for stored, 8 for deflated.
    pub method: u16,
    /// Bytes after decompression, and their checksum.
    pub size: u32,
    pub crc: u32,
    /// Takes the bytes of this earlier entry instead of bytes of its own.
    pub shares: Option<usize>,
}

impl<'a> Entry<'a> {
    pub fn stored(name: &'a str, bytes: &'a [u8]) -> Self {
        Self { name, bytes, method: 0, size: bytes.len() as u32, crc: crc32(bytes), shares: None }
    }
}

/// A zip archive.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory, mut offsets) = (vec![], vec![], vec![]);
    for entry in entries {
        let mut fields = vec![];
        fields.extend([20_u16, 0, entry.method, 0, 0].map(u16::to_le_bytes).concat());
        fields.extend([entry.crc, entry.bytes.len() as u32, entry.size].map(u32::to_le_bytes).concat());
        fields.extend([entry.name.len() as u16, 0].map(u16::to_le_bytes).concat());
        let offset = match entry.shares {
            Some(index) => offsets[index],
            None => {
                let offset = file.len() as u32;
                file.extend([&b"PK\x03\x04"[..], &fields, entry.name.as_bytes(), entry.bytes].concat());
                offset
            }
        };
        offsets.push(offset);
        directory.extend(
            [&b"PK\x01\x02\x14\0"[..], &fields, &[0; 10], &offset.to_le_bytes(), entry.name.as_bytes()].concat(),
        );
    }
    let (start, count) = (file.len() as u32, (entries.len() as u16).to_le_bytes());
    let len = (directory.len() as u32).to_le_bytes();
    [
        file,
        directory,
        b"PK\x05\x06\0\0\0\0".to_vec(),
        [count, count].concat(),
        len.to_vec(),
        start.to_le_bytes().to_vec(),
        vec![0; 2],
    ]
    .concat()
}

/// The checksum of zip archives.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}
