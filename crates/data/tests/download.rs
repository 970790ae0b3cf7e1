//! CIFAR-10 and CIFAR-100 from a server to a dataset, with a small local HTTP server that can interrupt connections or
//! misbehave, and with archives that are valid or hostile.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use flate2::{Compression, write::GzEncoder};
use kiln_data::{
    DataError, Digest, DownloadError, LoadOptions, LoadProgress, Mirror, Source,
    cifar::{CIFAR10, CIFAR100, CIFAR100_COARSE},
    download, load, unpack_cifar,
};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tempfile::TempDir;

const RECORD: usize = 3073;

// ---------------------------------------------------------------------------------------- server

/// What the server does with a request for the file.
#[derive(Clone, Copy)]
enum Answer {
    /// The file, or the requested part.
    Honest,
    /// The file from its start, whatever part is requested.
    IgnoreRange,
    /// As `Honest`, but closes the connection after this many bytes.
    CutAfter(usize),
    /// This status and nothing else.
    Status(&'static str),
    /// A redirect to this address.
    Redirect(&'static str),
    /// A header that announces this many bytes.
    Announce(u64),
}

/// A server for one file on its own port. It stops when the test's process ends.
struct Server {
    url: String,
    /// `Range` of each request, in order.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    /// Answers the first request with the first of `answers` and so on, and the rest with the last.
    fn start(file: Vec<u8>, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file.tar.gz", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (Arc::clone(&ranges), answers.to_vec());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let answer = answers[number.min(answers.len() - 1)];
                // In some tests the client hangs up early.
                let _ = serve(stream.unwrap(), &file, answer, &seen);
            }
        });
        Self { url, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, file: &[u8], answer: Answer, seen: &Mutex<Vec<Option<String>>>) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: ") {
            range = Some(value.to_string());
        }
        if line.is_empty() {
            break;
        }
    }
    seen.lock().unwrap().push(range.clone());
    let start = match (answer, &range) {
        (Answer::IgnoreRange, _) | (_, None) => None,
        (_, Some(range)) => range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok()),
    };
    let head = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n");
    match answer {
        Answer::Status(status) => {
            return stream.write_all(head(status, "Content-Length: 0\r\n").as_bytes());
        }
        Answer::Redirect(to) => {
            let more = format!("Location: {to}\r\nContent-Length: 0\r\n");
            return stream.write_all(head("302 Found", &more).as_bytes());
        }
        Answer::Announce(bytes) => {
            let more = format!("Content-Length: {bytes}\r\n");
            return stream.write_all(head("200 OK", &more).as_bytes());
        }
        Answer::Honest | Answer::IgnoreRange | Answer::CutAfter(_) => {}
    }
    let (status, rest, range) = match start {
        Some(start) if start >= file.len() => {
            return stream.write_all(head("416 Range Not Satisfiable", "Content-Length: 0\r\n").as_bytes());
        }
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len());
            ("206 Partial Content", &file[start..], range)
        }
        None => ("200 OK", file, String::new()),
    };
    let more = format!("{range}Content-Length: {}\r\n", rest.len());
    stream.write_all(head(status, &more).as_bytes())?;
    let sent = if let Answer::CutAfter(bytes) = answer { bytes.min(rest.len()) } else { rest.len() };
    stream.write_all(&rest[..sent])
}

// -------------------------------------------------------------------------------------- archives

/// A member of an archive: its name in the header, type and contents.
type Member = (String, EntryType, Vec<u8>);

fn records(label: u8, count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| [vec![label], vec![number as u8; RECORD - 1]].concat()).collect()
}

/// The members of the official archive, with 10 records per file instead of 10,000.
fn official() -> Vec<Member> {
    let mut members = vec![("cifar-10-batches-bin/".into(), EntryType::Directory, vec![])];
    let mut file = |name: &str, contents: Vec<u8>| {
        members.push((format!("cifar-10-batches-bin/{name}"), EntryType::Regular, contents));
    };
    for batch in 1..=5 {
        file(&format!("data_batch_{batch}.bin"), records(batch, 10));
    }
    file("batches.meta.txt", b"airplane\n".to_vec());
    file("readme.html", b"<html>".to_vec());
    file("test_batch.bin", records(9, 10));
    members
}

fn tar_gz(members: &[Member]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for (name, kind, contents) in members {
        let mut header = Header::new_gnu();
        // Without `set_path`, which would refuse the names of a hostile archive.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(contents.len() as u64);
        if *kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        gzip.write_all(header.as_bytes()).unwrap();
        gzip.write_all(contents).unwrap();
        gzip.write_all(&vec![0; contents.len().next_multiple_of(512) - contents.len()]).unwrap();
    }
    gzip.write_all(&[0; 1024]).unwrap();
    gzip.finish().unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

// -------------------------------------------------------------------------------------- download

/// Downloads `file` from a server with these answers to an empty folder.
fn fetch(file: &[u8], answers: &[Answer]) -> (Result<(), DownloadError>, Server, TempDir) {
    let server = Server::start(file.to_vec(), answers);
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("file");
    let result = download(&server.url, &sha256(file), &destination, &mut |_| {});
    (result, server, folder)
}

/// Bytes without a pattern, more than fit in a buffer.
fn large_file() -> Vec<u8> {
    (0u32..300_000).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn a_download_reports_its_progress_and_leaves_one_file() {
    let file = large_file();
    let server = Server::start(file.clone(), &[Answer::Honest]);
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("new/folder/file");
    let mut last = None;
    download(&server.url, &sha256(&file), &destination, &mut |progress| last = Some(progress)).unwrap();
    assert_eq!(fs::read(&destination).unwrap(), file);
    assert_eq!(files_in(destination.parent().unwrap()), ["file"]);
    let all = file.len() as u64;
    assert_eq!(last, Some(LoadProgress::Downloading { received: all, total: Some(all) }));
    // The second time there is nothing to do.
    download(&server.url, &sha256(&file), &destination, &mut |_| {}).unwrap();
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_cut_connection_is_resumed_where_it_was_cut() {
    let file = large_file();
    let answers = [Answer::CutAfter(100_000), Answer::CutAfter(50_000), Answer::Honest];
    let (result, server, folder) = fetch(&file, &answers);
    result.unwrap();
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), file);
    let expected = [None, Some("bytes=100000-".into()), Some("bytes=150000-".into())];
    assert_eq!(server.ranges(), expected);
}

#[test]
fn what_was_received_is_kept_for_the_next_call() {
    let file = large_file();
    let (result, _, folder) = fetch(&file, &[Answer::CutAfter(1000)]);
    let message = result.unwrap_err().to_string();
    assert!(message.contains("interrupted after 4000 bytes"), "{message}");
    assert!(message.contains("file.part") && message.contains("start again"), "{message}");
    assert_eq!(files_in(folder.path()), ["file.part"]);

    let server = Server::start(file.clone(), &[Answer::Honest]);
    let destination = folder.path().join("file");
    download(&server.url, &sha256(&file), &destination, &mut |_| {}).unwrap();
    assert_eq!(server.ranges(), [Some("bytes=4000-".into())]);
    assert_eq!(fs::read(&destination).unwrap(), file);
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let file = large_file();
    let (result, server, folder) = fetch(&file, &[Answer::CutAfter(1000), Answer::IgnoreRange]);
    result.unwrap();
    assert_eq!(server.ranges().len(), 2);
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), file);
}

#[test]
fn a_part_longer_than_the_file_starts_over() {
    let file = large_file();
    let server = Server::start(file.clone(), &[Answer::Honest]);
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("file");
    fs::write(folder.path().join("file.part"), vec![1; file.len() + 5]).unwrap();
    download(&server.url, &sha256(&file), &destination, &mut |_| {}).unwrap();
    assert_eq!(server.ranges(), [Some("bytes=300005-".into()), None]);
    assert_eq!(fs::read(&destination).unwrap(), file);
}

#[test]
fn the_wrong_file_is_removed_and_both_digests_are_named() {
    let server = Server::start(b"another file".to_vec(), &[Answer::Honest]);
    let folder = tempfile::tempdir().unwrap();
    let digest = Digest::Md5("0123456789abcdef0123456789abcdef".into());
    let error = download(&server.url, &digest, &folder.path().join("file"), &mut |_| {}).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("MD5 0123456789abcdef") && message.contains("it was deleted"), "{message}");
    assert!(files_in(folder.path()).is_empty());
}

#[test]
fn an_answer_other_than_the_file_is_an_error_with_its_status() {
    let (result, server, folder) = fetch(b"file", &[Answer::Status("404 Not Found")]);
    assert!(files_in(folder.path()).is_empty());
    let message = result.unwrap_err().to_string();
    assert!(message.contains("404 Not Found") && message.contains(&server.url), "{message}");
}

#[test]
fn a_server_that_is_down_for_a_while_costs_nothing_already_received() {
    let file = large_file();
    let (result, _, folder) = fetch(&file, &[Answer::CutAfter(1000), Answer::Status("503 Service Unavailable")]);
    assert!(matches!(result, Err(DownloadError::Status { .. })));
    assert_eq!(fs::read(folder.path().join("file.part")).unwrap(), file[..1000]);
}

#[test]
fn redirects_are_followed_on_this_machine_and_refused_to_plain_http_elsewhere() {
    let (result, _, folder) = fetch(b"file", &[Answer::Redirect("/elsewhere"), Answer::Honest]);
    result.unwrap();
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"file");

    let (result, _, _folder) = fetch(b"file", &[Answer::Redirect("http://example.invalid/file")]);
    assert!(matches!(result, Err(DownloadError::Insecure { url }) if url.contains("example.invalid")));

    let (result, _, _folder) = fetch(b"file", &[Answer::Redirect("/round")]);
    assert!(matches!(result, Err(DownloadError::Redirect { .. })));
}

#[test]
fn a_file_of_more_than_a_gibibyte_is_refused_before_it_is_received() {
    let (result, _, _folder) = fetch(b"file", &[Answer::Announce((1 << 30) + 1)]);
    assert!(matches!(result, Err(DownloadError::TooLarge { .. })));
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = "http://example.com/file";
    let error = download(url, &sha256(b""), &folder.path().join("file"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, DownloadError::Insecure { .. }), "{error}");
    assert!(files_in(folder.path()).is_empty());
}

// --------------------------------------------------------------------------------------- archive

/// Unpacks an archive of these members.
fn unpack(members: &[Member]) -> (Result<(), DataError>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive.tar.gz");
    fs::write(&archive, tar_gz(members)).unwrap();
    (unpack_cifar(&CIFAR10, &archive, folder.path()).map(drop), folder)
}

fn refusal(members: &[Member]) -> String {
    let (result, folder) = unpack(members);
    assert_eq!(files_in(folder.path()), ["archive.tar.gz"], "nothing is left behind");
    let message = result.unwrap_err().to_string();
    assert!(message.contains("archive.tar.gz"), "{message}");
    message
}

#[test]
fn an_honest_archive_gives_the_files_expected_and_no_others() {
    let (result, folder) = unpack(&official());
    result.unwrap();
    assert_eq!(files_in(folder.path()), ["archive.tar.gz", "cifar-10-batches-bin"]);
    let names = files_in(&folder.path().join("cifar-10-batches-bin"));
    assert_eq!(names.len(), 7);
    assert!(!names.contains(&"readme.html".into()));
}

#[test]
fn members_that_leave_the_folder_condemn_the_archive() {
    for name in ["../evil", "cifar-10-batches-bin/../../evil", "/tmp/kiln-evil"] {
        let mut members = official();
        members.push((name.into(), EntryType::Regular, b"evil".to_vec()));
        let message = refusal(&members);
        assert!(message.contains(name) && message.contains("outside"), "{message}");
    }
}

#[test]
fn links_and_devices_condemn_the_archive() {
    for (kind, word) in
        [(EntryType::Symlink, "link"), (EntryType::Link, "link"), (EntryType::Fifo, "not a regular file")]
    {
        let mut members = official();
        members[1] = ("cifar-10-batches-bin/data_batch_1.bin".into(), kind, vec![]);
        let message = refusal(&members);
        assert!(message.contains("data_batch_1.bin") && message.contains(word), "{message}");
    }
}

#[test]
fn a_member_larger_than_an_official_one_condemns_the_archive() {
    let mut members = official();
    members[1].2 = vec![0; 30_730_001];
    let message = refusal(&members);
    assert!(message.contains("30730001 bytes"), "{message}");
}

#[test]
fn a_member_that_comes_twice_condemns_the_archive() {
    let mut members = official();
    members.push(members[1].clone());
    assert!(refusal(&members).contains("appears twice"));
}

#[test]
fn a_missing_member_is_named() {
    let mut members = official();
    members.retain(|(name, ..)| !name.ends_with("data_batch_3.bin"));
    assert!(refusal(&members).contains("data_batch_3.bin is missing"));
}

#[test]
fn a_cut_archive_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive.tar.gz");
    let whole = tar_gz(&official());
    fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    assert!(unpack_cifar(&CIFAR10, &archive, folder.path()).is_err());
    assert_eq!(files_in(folder.path()), ["archive.tar.gz"]);
}

// ------------------------------------------------------------------------------------------ load

fn options(server: &Server, file: &[u8], data_dir: &Path, source: Source) -> LoadOptions {
    LoadOptions {
        source,
        data_dir: data_dir.into(),
        mirror: Some(Mirror { url: server.url.clone(), digest: sha256(file) }),
        ..LoadOptions::default()
    }
}

#[test]
fn cifar10_is_downloaded_once_and_read_from_disk_afterwards() {
    let archive = tar_gz(&official());
    let server = Server::start(archive.clone(), &[Answer::Honest]);
    let folder = tempfile::tempdir().unwrap();
    for source in [Source::Cifar(&CIFAR10), Source::Auto] {
        let options = options(&server, &archive, folder.path(), source);
        let loaded = load(&options, &mut |_| {}).unwrap();
        assert_eq!((loaded.note, loaded.dataset.name.as_str()), (None, "cifar10"));
        assert_eq!(loaded.dataset.train.len(), 50);
        assert_eq!(loaded.dataset.test.unwrap().labels, [9; 10]);
    }
    assert_eq!(server.ranges().len(), 1);
}

/// The members of CIFAR-100's official archive, with 6 and 4 records instead of 50,000 and 10,000.
fn official_cifar100() -> Vec<Member> {
    let records = |labels: [u8; 2], count| {
        (0..count).flat_map(|number| [labels.to_vec(), vec![number; RECORD - 1]].concat()).collect()
    };
    let file = |name: &str, contents| (format!("cifar-100-binary/{name}"), EntryType::Regular, contents);
    vec![
        ("cifar-100-binary/".into(), EntryType::Directory, vec![]),
        file("train.bin", records([4, 0], 6)),
        file("test.bin", records([19, 90], 4)),
        file("coarse_label_names.txt", b"aquatic_mammals\n".to_vec()),
        file("fine_label_names.txt", b"apple\n".to_vec()),
    ]
}

#[test]
fn cifar100_is_downloaded_once_for_its_fine_and_its_coarse_labels() {
    let archive = tar_gz(&official_cifar100());
    let server = Server::start(archive.clone(), &[Answer::Honest]);
    let folder = tempfile::tempdir().unwrap();
    let mut digests = vec![];
    for (set, name, classes, labels) in
        [(&CIFAR100, "cifar100", 100, [0, 90]), (&CIFAR100_COARSE, "cifar100-coarse", 20, [4, 19])]
    {
        let options = options(&server, &archive, folder.path(), Source::Cifar(set));
        let dataset = load(&options, &mut |_| {}).unwrap().dataset;
        assert_eq!((dataset.name.as_str(), dataset.classes.len()), (name, classes));
        assert_eq!(dataset.train.labels, [labels[0]; 6]);
        digests.push(dataset.digest());
        assert_eq!(dataset.test.unwrap().labels, [labels[1]; 4]);
    }
    assert_eq!(server.ranges().len(), 1);
    assert_ne!(digests[0], digests[1]);

    // A path alone means the fine labels.
    let path = folder.path().join("cifar-100-binary.tar.gz");
    let unpacked = folder.path().join("cifar-100-binary");
    for (path, expected) in [
        (folder.path(), Source::CifarFolder(&CIFAR100, unpacked.clone())),
        (&unpacked, Source::CifarFolder(&CIFAR100, unpacked.clone())),
        (&path, Source::Archive(path.clone())),
    ] {
        let source = Source::from_path(path).unwrap();
        assert_eq!(source, expected);
        let options = LoadOptions { source, ..LoadOptions::default() };
        assert_eq!(load(&options, &mut |_| {}).unwrap().dataset.digest(), digests[0]);
    }
}

#[test]
fn cifar100_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions {
        source: Source::Cifar(&CIFAR100),
        data_dir: folder.path().into(),
        offline: true,
        ..LoadOptions::default()
    };
    let message = load(&options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("CIFAR-100 is not in") && message.contains("cifar-100-binary.tar.gz"), "{message}");
}

#[test]
fn an_archive_in_place_is_used_without_the_network() {
    let archive = tar_gz(&official());
    let server = Server::start(vec![], &[Answer::Status("500 No")]);
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&server, &archive, folder.path(), Source::Cifar(&CIFAR10));
    options.offline = true;
    let message = load(&options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("downloads are disabled"), "{message}");

    fs::write(folder.path().join("cifar-10-binary.tar.gz"), b"something else").unwrap();
    let message = load(&options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("is not the expected file"), "{message}");

    fs::write(folder.path().join("cifar-10-binary.tar.gz"), &archive).unwrap();
    assert_eq!(load(&options, &mut |_| {}).unwrap().dataset.train.len(), 50);
    assert!(server.ranges().is_empty());
}

#[test]
fn auto_falls_back_with_one_line_and_a_named_dataset_does_not() {
    let server = Server::start(vec![], &[Answer::Status("503 Service Unavailable")]);
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&server, b"", folder.path(), Source::Auto);
    let loaded = load(&options, &mut |_| {}).unwrap();
    let note = loaded.note.unwrap();
    assert!(note.starts_with("CIFAR-10 is neither in ") && note.contains("503"), "{note}");
    assert!(note.ends_with("): using the procedural synthetic set") && !note.contains('\n'), "{note}");
    assert_eq!(loaded.dataset.name, "synthetic");
    assert_eq!((loaded.dataset.train.len(), loaded.dataset.test.unwrap().len()), (4000, 1000));

    options.source = Source::Cifar(&CIFAR10);
    assert!(matches!(load(&options, &mut |_| {}), Err(DataError::Download(_))));
}

#[test]
fn auto_does_not_hide_that_files_in_place_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let batches = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&batches).unwrap();
    fs::write(batches.join("data_batch_1.bin"), records(0, 1)).unwrap();
    let options = LoadOptions { data_dir: folder.path().into(), ..LoadOptions::default() };
    let message = load(&options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("data_batch_2.bin is missing"), "{message}");
}

#[test]
fn a_path_is_taken_for_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let archive = root.path().join("cifar.TAR.GZ");
    fs::write(&archive, tar_gz(&official())).unwrap();
    unpack_cifar(&CIFAR10, &archive, root.path()).unwrap();
    let batches = root.path().join("cifar-10-batches-bin");
    let mut digests = Vec::new();
    for (path, expected) in [
        (root.path(), Source::CifarFolder(&CIFAR10, batches.clone())),
        (&batches, Source::CifarFolder(&CIFAR10, batches.clone())),
        (&archive, Source::Archive(archive.clone())),
    ] {
        let source = Source::from_path(path).unwrap();
        assert_eq!(source, expected);
        let options = LoadOptions { source, ..LoadOptions::default() };
        digests.push(load(&options, &mut |_| {}).unwrap().dataset.digest());
    }
    assert!(digests.iter().all(|digest| digest == &digests[0]));

    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(Source::from_path(&empty).unwrap(), Source::Folder(empty));
    let text = root.path().join("notes.txt");
    fs::write(&text, "").unwrap();
    assert!(matches!(Source::from_path(&text), Err(DataError::UnknownKind { .. })));
    assert!(matches!(Source::from_path(Path::new("/no/such/path")), Err(DataError::Io { .. })));
}

#[test]
fn an_archive_of_neither_kind_is_explained() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("other.tar.gz");
    fs::write(&path, tar_gz(&[("notes/a.txt".into(), EntryType::Regular, vec![1])])).unwrap();
    let options = LoadOptions { source: Source::Archive(path.clone()), ..LoadOptions::default() };
    assert!(matches!(load(&options, &mut |_| {}), Err(DataError::NoImages { .. })));
    fs::write(&path, "no archive at all").unwrap();
    let message = load(&options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("other.tar.gz"), "{message}");
}

#[test]
fn a_limit_applies_to_every_source_and_cannot_be_zero() {
    let mut options = LoadOptions { source: Source::Synthetic, limit: Some(100), ..LoadOptions::default() };
    let dataset = load(&options, &mut |_| {}).unwrap().dataset;
    assert_eq!((dataset.train.len(), dataset.test.unwrap().len()), (100, 20));
    options.limit = Some(0);
    assert!(matches!(load(&options, &mut |_| {}), Err(DataError::ZeroLimit)));
}
