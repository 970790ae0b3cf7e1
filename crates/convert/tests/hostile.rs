//! Files that mean harm, and files that are damaged: each gives an error, and takes no more memory than the file has.

use std::fs;

use kiln_convert::{ConvertError, Hints, Imported, open};
use kiln_model::{Architecture, ResNetConfig};
use tempfile::TempDir;

#[path = "../../../tests/weights/mod.rs"]
mod weights;

use weights::{Entry, Pickle, Weights, checkpoint, crc32, legacy, state_dict, wrapped, zip};

fn opened(bytes: &[u8]) -> Result<Imported, ConvertError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights");
    fs::write(&path, bytes).unwrap();
    open(&path, Hints::default())
}

fn refusal(bytes: &[u8]) -> String {
    opened(bytes).unwrap_err().to_string()
}

/// Names and shapes of the least residual network.
fn network() -> Vec<(String, Vec<usize>)> {
    Architecture::from(ResNetConfig { width: 1, ..ResNetConfig::new(18, 2) }).tensors()
}

fn borrowed(tensors: &[(String, Vec<usize>)]) -> Vec<Weights<'_>> {
    tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect()
}

#[test]
fn checkpoints_in_every_form_hold_the_same_network() {
    let tensors = network();
    let tensors = borrowed(&tensors);
    let expected = opened(&state_dict(&tensors)).unwrap();
    assert_eq!(expected.architecture.to_string(), "ResNet-18 of width 1 with CIFAR's stem and batch norm");
    assert_eq!(expected.state["fc.bias"].values, [weights::number(0), weights::number(1)]);
    for key in ["state_dict", "model_state_dict", "model", "net"] {
        let found = opened(&wrapped(key, &tensors)).unwrap();
        assert_eq!(found.state, expected.state, "{key}");
        assert!(found.notes.iter().any(|note| note.contains(key)), "{:?}", found.notes);
    }
    assert_eq!(opened(&legacy(&tensors)).unwrap().state, expected.state);
}

#[test]
fn a_pickle_that_calls_runs_nothing() {
    let folder = TempDir::new().unwrap();
    let marker = folder.path().join("was-here");
    let command = format!("touch {}", marker.display());
    for (module, name) in [("posix", "system"), ("os", "system"), ("builtins", "eval"), ("subprocess", "call")] {
        let call = |pickle: Pickle| pickle.global(module, name).op(b"(").text(&command).op(b"tR");
        // Alone, instead of a tensor, and beside a whole network.
        let alone = checkpoint(&call(Pickle::new()).op(b".").0, &[]);
        assert!(opened(&alone).is_err());
        let instead = call(Pickle::new().op(b"}(").text("conv1.weight")).op(b"u.");
        assert!(opened(&checkpoint(&instead.0, &[])).is_err());
        let tensors = network();
        let beside = call(Pickle::new().op(b"}(").text("args")).text("model").state_dict(&borrowed(&tensors)).op(b"u.");
        let storages =
            tensors.iter().map(|(_, shape)| vec![1; 4 * shape.iter().product::<usize>()]).collect::<Vec<_>>();
        assert!(opened(&checkpoint(&beside.0, &storages)).is_ok());
        assert!(!marker.exists(), "{module}.{name} was called");
    }
}

#[test]
fn a_pickle_that_nests_or_holds_itself_is_an_error() {
    let deep = Pickle::new().op(&vec![b']'; 1_000_000]).op(&vec![b'a'; 999_999]).op(b".");
    assert!(opened(&checkpoint(&deep.0, &[])).is_err());
    let itself = Pickle::new().op(b"]q\0h\0a.");
    assert!(opened(&checkpoint(&itself.0, &[])).is_err());
    // Each list holds the one before it twice: 2^40 lists in 200 bytes.
    let mut bomb = Pickle::new().op(b"]q\0");
    for level in 0..40 {
        bomb = bomb.op(&[b'0', b']', b'q', level + 1, b'(', b'h', level, b'h', level, b'e']);
    }
    assert!(opened(&checkpoint(&bomb.op(b".").0, &[])).is_err());
}

#[test]
fn a_hundred_gigabytes_claimed_are_refused_before_they_are_taken() {
    let mut tensors = network();
    let count = 25_i64 << 30;
    let one = |name: &str, pickle: Pickle| pickle.op(b"}(").text(name);
    let huge = one("conv1.weight", Pickle::new()).tensor("0", count, &[count], &[1]).op(b"u.");
    assert!(opened(&checkpoint(&huge.0, &[vec![0; 64]])).is_err());
    // A view that repeats one number 25 thousand million times.
    let repeated = one("conv1.weight", Pickle::new()).tensor("0", 1, &[count], &[0]).op(b"u.");
    assert!(opened(&checkpoint(&repeated.0, &[vec![0; 4]])).is_err());
    // A whole network, each tensor of which repeats one number.
    tensors
        .iter_mut()
        .for_each(|(_, shape)| shape.iter_mut().for_each(|side| *side *= if *side > 3 { 100 } else { 1 }));
    let pickle = tensors.iter().fold(Pickle::new().op(b"}("), |pickle, (name, shape)| {
        let shape: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        pickle.text(name).tensor("0", 1, &shape, &vec![0; shape.len()])
    });
    assert!(opened(&checkpoint(&pickle.op(b"u.").0, &[vec![0; 4]])).is_err());
}

#[test]
fn views_that_repeat_one_number_claim_more_than_the_file_has() {
    let wide = Architecture::from(ResNetConfig { width: 64, ..ResNetConfig::new(18, 2) }).tensors();
    let pickle = wide.iter().fold(Pickle::new().op(b"}("), |pickle, (name, shape)| {
        let shape: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        pickle.text(name).tensor("0", 1, &shape, &vec![0; shape.len()])
    });
    let error = refusal(&checkpoint(&pickle.op(b"u.").0, &[vec![0; 4]]));
    assert!(error.contains("claims 44") && error.contains("bytes of weights"), "{error}");
}

#[test]
fn a_zip_bomb_is_refused_before_it_is_unpacked() {
    use std::io::Write;
    let wide = Architecture::from(ResNetConfig { width: 16, ..ResNetConfig::new(18, 2) }).tensors();
    let pickle = Pickle::new().state_dict(&borrowed(&wide)).op(b".");
    let packed: Vec<_> = wide
        .iter()
        .map(|(_, shape)| {
            let zeros = vec![0; 4 * shape.iter().product::<usize>()];
            let mut encoder = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
            encoder.write_all(&zeros).unwrap();
            (encoder.finish().unwrap(), zeros.len() as u32, crc32(&zeros))
        })
        .collect();
    let names: Vec<_> = (0..packed.len()).map(|index| format!("a/data/{index}")).collect();
    let mut entries = vec![Entry::stored("a/data.pkl", &pickle.0)];
    entries.extend(names.iter().zip(&packed).map(|(name, (bytes, size, crc))| Entry {
        name,
        bytes,
        method: 8,
        size: *size,
        crc: *crc,
        shares: None,
    }));
    let file = zip(&entries);
    assert!(file.len() < 60_000, "{} bytes for 2.8 MB", file.len());
    let error = refusal(&file);
    assert!(error.contains("bytes of weights and has"), "{error}");
    // A pickle that claims to be 4 GiB.
    let claims = Entry { method: 8, size: u32::MAX, ..Entry::stored("a/data.pkl", &packed[0].0) };
    assert!(opened(&zip(&[claims])).is_err());
}

#[test]
fn entries_that_overlap_make_no_network_of_nothing() {
    let tensors = network();
    let pickle = Pickle::new().state_dict(&borrowed(&tensors)).op(b".");
    let largest = vec![0x3F; 4 * tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).max().unwrap()];
    let names: Vec<_> = (0..tensors.len()).map(|index| format!("a/data/{index}")).collect();
    let mut entries = vec![Entry::stored("a/data.pkl", &pickle.0)];
    for (index, name) in names.iter().enumerate() {
        entries.push(Entry { shares: (index > 0).then_some(1), ..Entry::stored(name, &largest) });
    }
    assert!(refusal(&zip(&entries)).contains("overlap"));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let tensors = network();
    let tensors = borrowed(&tensors);
    for whole in [state_dict(&tensors), wrapped("model", &tensors), legacy(&tensors)] {
        for len in (0..whole.len()).step_by(997) {
            assert!(opened(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
        }
    }
}

#[test]
fn what_is_no_file_of_weights_is_said_to_be_none() {
    for bytes in [&b""[..], b"weights", b"\xFF\xD8\xFF\xE0 a picture", &[0; 1000]] {
        assert!(matches!(opened(bytes), Err(ConvertError::UnknownFormat)));
    }
    let folder = TempDir::new().unwrap();
    assert!(open(folder.path(), Hints::default()).unwrap_err().to_string().contains("not a regular file"));
    assert!(matches!(open(folder.path().join("none"), Hints::default()), Err(ConvertError::Io { .. })));
}

#[test]
fn a_safetensors_header_that_lies_is_an_error() {
    let header =
        |json: &str, data: usize| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat();
    let tensor = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{from},{to}]}}"#)
    };
    let gigabytes = 100_u64 << 30;
    for (file, words) in [
        (
            header(&format!("{{{}}}", tensor("conv1.weight", &(25_u64 << 30).to_string(), 0, gigabytes)), 16),
            "claims 107374182400",
        ),
        (header(&format!("{{{}}}", tensor("conv1.weight", "4", 0, 16)), 12), "claims 16 bytes of weights and has 12"),
        (header(&format!("{{{},{}}}", tensor("a", "2", 0, 8), tensor("b", "2", 4, 12)), 12), "header is"),
        (header("{", 16), "header is"),
        ([&50_000_000_u64.to_le_bytes()[..], b"{}"].concat(), "50000000 bytes long, in a file of 10"),
    ] {
        let error = refusal(&file);
        assert!(error.contains(words), "{error}");
    }
}
