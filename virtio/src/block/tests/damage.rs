//! Images that somebody made to do harm: what a qcow2 image or a vmdk descriptor says is mostly true,
//! and now and then not. Whatever it is, there is an error or an answer, soon and with little memory,
//! and no file but the image is written to.
//!
//! `CARAWAY_DAMAGE_CASES` is how many are tried, some hundred if it is not set.

use std::sync::mpsc;
use std::time::Duration;

use super::qcow2_file::{COMPRESSED, Cluster, Damage, Draft, Place};
use super::*;

/// A case takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// What all cases together may add to this program's memory, in bytes.
const MOST_MEMORY: u64 = 64 << 20;
/// What is under an image.
const BACKING: u8 = 0x77;
/// Sectors of a request at most.
const LONGEST: u64 = 32;

fn cases(usual: u32) -> ProptestConfig {
    let wish = std::env::var("CARAWAY_DAMAGE_CASES").ok();
    ProptestConfig {
        cases: wish.and_then(|cases| cases.parse().ok()).unwrap_or(usual),
        // It is written down in the message, and takes only seconds to find again.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Something a guest asks for.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: u32,
    sector: u64,
    count: u64,
}

/// All kinds, twice those that are most usual.
const ALL: [u32; 7] = [IN, IN, OUT, OUT, FLUSH, DISCARD, WRITE_ZEROES];

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let kind = prop::sample::select(ALL.as_slice());
    let request =
        (kind, any::<prop::sample::Index>(), 1..=LONGEST).prop_map(|(kind, sector, count)| {
            Request {
                kind,
                sector: sector.index(2048) as u64,
                count,
            }
        });
    prop::collection::vec(request, 1..16)
}

fn cluster() -> impl Strategy<Value = Cluster> {
    prop::sample::select(vec![
        Cluster::None,
        Cluster::Data,
        Cluster::Data,
        Cluster::Zero,
        Cluster::Compressed,
    ])
}

fn draft() -> impl Strategy<Value = Draft> {
    (
        prop::sample::select(vec![9_u32, 12]),
        any::<bool>(),
        0..=6_u32,
        prop::collection::vec(cluster(), 1..150),
        any::<bool>(),
    )
        .prop_map(
            |(cluster_bits, old, refcount_order, clusters, backed)| Draft {
                cluster_bits,
                version: if old { 2 } else { 3 },
                // Version 2 knows one width.
                refcount_order: if old { 4 } else { refcount_order },
                // And no zero clusters.
                clusters: match old {
                    true => clusters
                        .into_iter()
                        .filter(|c| *c != Cluster::Zero)
                        .collect(),
                    false => clusters,
                },
                backed,
            },
        )
        .prop_filter("a disk has a sector", |draft| !draft.clusters.is_empty())
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = prop_oneof![
        3 => (0..14_usize).prop_map(Place::HeaderField),
        1 => any::<u8>().prop_map(Place::Header),
        2 => any::<u8>().prop_map(Place::RefTable),
        3 => any::<u16>().prop_map(Place::RefBlock),
        3 => any::<u8>().prop_map(Place::L1),
        6 => any::<u8>().prop_map(Place::L2),
        1 => any::<u16>().prop_map(Place::Anywhere),
        1 => any::<u16>().prop_map(Place::End),
    ];
    // Mostly places in the file, with flags or without.
    let cluster = (0..260_u64, 0..8_u64).prop_map(|(index, flags)| {
        let flag = |bit: u64, at: u32| (flags >> bit & 1) << at;
        (index, flag(0, 63) | flag(1, 62) | flag(2, 0))
    });
    let value = prop_oneof![
        6 => cluster.prop_map(|(index, flags)| (Some(index), flags)),
        1 => any::<u64>().prop_map(|value| (None, value)),
        1 => (0..64_u32).prop_map(|bit| (None, 1 << bit)),
        1 => (0..64_u32).prop_map(|bit| (None, u64::MAX >> bit)),
        1 => (0..16_u64).prop_map(|small| (None, small)),
    ];
    (place, value).prop_map(|(place, (cluster, bits))| Damage {
        place,
        cluster,
        bits,
    })
}

/// Does `work` in a thread of its own, so that one that never ends is noticed.
fn soon(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(work()));
    match told.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("not done after {PATIENCE:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("a panic".to_owned()),
    }
}

/// The most memory that this program ever had, in bytes.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// The folder of an image, with files that nothing may write to.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new(draft: &Draft, image: &[u8]) -> Self {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("a.qcow2", image);
        write("base.raw", &vec![BACKING; draft.size() as usize]);
        write("secret", b"secret");
        Self { folder }
    }

    fn config(&self, draft: &Draft) -> BlockConfig {
        let image = |name: &str, format| ImageConfig {
            path: self.folder.path().join(name),
            format,
        };
        let backing = draft.backed.then(|| image("base.raw", ImageFormat::Raw));
        BlockConfig {
            backing: backing.into_iter().collect(),
            ..BlockConfig::new(image("a.qcow2", ImageFormat::Qcow2))
        }
    }

    /// Nothing but the image has changed, and nothing was added.
    fn check(&self, draft: &Draft) -> Result<(), String> {
        let read = |name: &str| fs::read(self.folder.path().join(name)).unwrap();
        let base = read("base.raw");
        let is_whole = base.len() as u64 == draft.size() && base.iter().all(|b| *b == BACKING);
        ensure(is_whole, || "the backing file was written to".to_owned())?;
        ensure(read("secret") == b"secret", || {
            "another file was written to".to_owned()
        })?;
        let files = fs::read_dir(self.folder.path()).unwrap().count();
        ensure(files == 3, || format!("{files} files"))
    }
}

/// What a disk of a draft has, and what requests make of it; nobody knows what was discarded.
struct Model(Vec<Option<u8>>);

impl Model {
    /// Does a request; what a read must give.
    fn act(&mut self, request: Request, byte: u8) -> Option<&[Option<u8>]> {
        let from = (request.sector * SECTOR) as usize;
        let bytes = self
            .0
            .get_mut(from..from + (request.count * SECTOR) as usize)?;
        match request.kind {
            IN => return Some(bytes),
            OUT => bytes.fill(Some(byte)),
            WRITE_ZEROES => bytes.fill(Some(0)),
            DISCARD => bytes.fill(None),
            _ => {}
        }
        None
    }
}

/// Has a guest do all of `requests`. What is read is what `model` says, if there is one.
fn drive(block: Block, requests: &[Request], mut model: Option<&mut Model>) -> Result<(), String> {
    let sectors = block.size() / SECTOR;
    let mut rig = Rig {
        machine: Machine::ready(block),
        image: NamedTempFile::new().unwrap(),
    };
    for (number, request) in requests.iter().enumerate() {
        let sector = request.sector % sectors;
        let count = request.count.min(sectors - sector);
        let request = Request {
            sector,
            count,
            ..*request
        };
        let (byte, len) = (number as u8 | 0x80, (count * SECTOR) as usize);
        rig.machine.put(DATA, &vec![byte; len]);
        let status = match request.kind {
            IN => rig.request(IN, sector, &[writable(DATA, len as u32)]).0,
            OUT => rig.request(OUT, sector, &[readable(DATA, len as u32)]).0,
            FLUSH => rig.request(FLUSH, 0, &[]).0,
            kind => rig.range(kind, sector, count as u32, u32::from(kind == WRITE_ZEROES)),
        };
        let is_answer = [OK, IO_ERROR, UNSUPPORTED].contains(&status);
        ensure(is_answer, || format!("{request:?}: status {status:#x}"))?;
        if let Some(model) = model.as_deref_mut() {
            ensure(status == OK, || format!("{request:?}: status {status}"))?;
            if let Some(wanted) = model.act(request, byte) {
                let came = rig.machine.bytes(DATA, len);
                let mut both = came.iter().zip(wanted);
                let is_right = both.all(|(came, wanted)| wanted.is_none_or(|byte| byte == *came));
                ensure(is_right, || format!("{request:?} read something else"))?;
            }
        }
    }
    Ok(())
}

/// All of the disk is as `model` says.
fn compare(block: Block, model: &mut Model) -> Result<(), String> {
    let sectors = model.0.len() as u64 / SECTOR;
    let reads: Vec<_> = (0..sectors)
        .step_by(LONGEST as usize)
        .map(|sector| Request {
            kind: IN,
            sector,
            count: LONGEST,
        })
        .collect();
    drive(block, &reads, Some(model))
}

fn sound(draft: &Draft, requests: &[Request]) -> Result<(), String> {
    let place = Folder::new(draft, &draft.file());
    let config = place.config(draft);
    let mut model = Model(draft.content(BACKING).into_iter().map(Some).collect());
    let open = || open(&config).map_err(|error| format!("{error}"));
    compare(open()?, &mut model)?;
    drive(open()?, requests, Some(&mut model))?;
    compare(open()?, &mut model)?;
    place.check(draft)
}

fn damaged(draft: &Draft, damage: &[Damage], requests: &[Request]) -> Result<(), String> {
    let mut image = draft.file();
    damage
        .iter()
        .for_each(|damage| draft.apply(damage, &mut image));
    let place = Folder::new(draft, &image);
    let mut config = place.config(draft);
    for read_only in [true, false] {
        config.read_only = read_only;
        match open(&config) {
            Ok(block) => drive(block, requests, None)?,
            Err(error) => {
                let said = error.to_string();
                ensure(said.contains("a.qcow2"), || {
                    format!("{said:?} names no file")
                })?;
                if !read_only {
                    let now = fs::read(&config.image.path).unwrap();
                    // Nobody was let write to it before.
                    ensure(now == image, || "it was refused and written to".to_owned())?;
                }
            }
        }
    }
    place.check(draft)
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn a_sound_image_has_what_it_says_and_what_is_written(
        draft in draft(),
        requests in requests(),
    ) {
        let done = soon(move || sound(&draft, &requests));

        prop_assert_eq!(done, Ok(()));
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn using_what_is_damaged_gives_errors_and_nothing_worse(
        draft in draft(),
        damage in prop::collection::vec(damage(), 1..6),
        requests in requests(),
    ) {
        let before = most_memory();

        let done = soon(move || damaged(&draft, &damage, &requests));

        prop_assert_eq!(done, Ok(()));
        let more = most_memory().saturating_sub(before);
        prop_assert!(more < MOST_MEMORY, "{} bytes", more);
    }
}

#[test]
fn an_image_whose_tables_can_not_be_trusted_is_not_written() {
    let draft = Draft::of(vec![Cluster::Data, Cluster::None, Cluster::Compressed]);
    let at = |cluster| (Some(cluster), 0);
    for (place, (cluster, bits), words) in [
        // The refcounts of the file's first four clusters are in these bytes.
        (Place::RefBlock(1), (None, 0), "header at byte 0 "),
        (Place::RefBlock(3), (None, 0), "refcount table at byte 512 "),
        (Place::RefBlock(15), (None, 0), "L2 table at byte 3584 "),
        (
            Place::RefBlock(17),
            (None, 0),
            "data at byte 4096 of the file is in use",
        ),
        (Place::RefTable(0), (None, 0), "in use and counted as free"),
        (Place::RefTable(1), at(2), "is where another table is"),
        (Place::RefTable(1), at(1 << 20), "lies past its end"),
        (Place::L1(0), at(6), "is where another table is"),
        (Place::L1(0), at(1 << 20), "lies past its end"),
        (Place::L2(0), at(7), "is where a table is"),
        (Place::L2(0), at(100), "in use and counted as free"),
        (Place::L2(1), (Some(2), COMPRESSED), "is where a table is"),
    ] {
        let mut image = draft.file();
        let damage = Damage {
            place,
            cluster,
            bits,
        };
        draft.apply(&damage, &mut image);
        let folder = Folder::new(&draft, &image);
        let mut config = folder.config(&draft);

        let said = open(&config).err().unwrap().to_string();

        assert!(said.contains(words), "{damage:?}: {said}");
        assert!(said.contains("qemu-img check"), "{said}");
        config.read_only = true;
        open(&config).unwrap();
    }
}

/// A line of a vmdk descriptor, mostly one that a disk may have.
fn line() -> impl Strategy<Value = String> {
    let word = |words: &[&'static str]| prop::sample::select(words.to_vec());
    let number = || {
        prop_oneof![
            4 => (0..64_u64).prop_map(|n| n.to_string()),
            1 => any::<u64>().prop_map(|n| n.to_string()),
            1 => "[0-9a-fA-F-]{0,24}",
        ]
    };
    let extent = (
        word(&["RW", "RW", "RDONLY", "NOACCESS", "rw"]),
        number(),
        word(&["FLAT", "FLAT", "FLAT", "ZERO", "VMFS", "SPARSE", "FLOT"]),
        word(&[
            "a-flat.vmdk",
            "a-flat.vmdk",
            "b-flat.vmdk",
            "a.vmdk",
            "none.vmdk",
            "../secret",
            "/etc/hostname",
            ".",
            "",
        ]),
        number(),
    );
    let extent = extent.prop_map(|(access, sectors, kind, name, offset)| {
        format!("{access} {sectors} {kind} \"{name}\" {offset}")
    });
    prop_oneof![
        6 => extent,
        1 => number().prop_map(|n| format!("version={n}")),
        1 => number().prop_map(|n| format!("CID={n}")),
        1 => Just("createType=\"monolithicFlat\"".to_owned()),
        1 => Just("parentCID=ffffffff".to_owned()),
        1 => ".{0,40}",
    ]
}

fn descriptor(lines: &[String], requests: &[Request]) -> Result<(), String> {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("images");
    fs::create_dir(&folder).unwrap();
    let text = format!("# Disk DescriptorFile\n{}\n", lines.join("\n"));
    let files = [
        (parent.path().join("secret"), b"secret".to_vec()),
        (folder.join("a.vmdk"), text.into_bytes()),
        (folder.join("a-flat.vmdk"), vec![1; 16 << 10]),
        (folder.join("b-flat.vmdk"), vec![2; 5000]),
    ];
    for (path, bytes) in &files {
        fs::write(path, bytes).unwrap();
    }
    let config = BlockConfig {
        read_only: true,
        ..BlockConfig::new(ImageConfig {
            path: files[1].0.clone(),
            format: ImageFormat::Vmdk,
        })
    };
    match open(&config) {
        Ok(block) => drive(block, requests, None)?,
        Err(error) => {
            let said = error.to_string();
            ensure(said.contains(".vmdk") || said.contains("images"), || {
                said.clone()
            })?;
        }
    }
    for (path, bytes) in &files {
        ensure(fs::read(path).unwrap() == *bytes, || {
            format!("{path:?} was written to")
        })?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_descriptor_of_no_good_will_opens_what_is_beside_it_or_nothing(
        lines in prop::collection::vec(line(), 0..6),
        requests in requests(),
    ) {
        let before = most_memory();

        let done = soon(move || descriptor(&lines, &requests));

        prop_assert_eq!(done, Ok(()));
        let more = most_memory().saturating_sub(before);
        prop_assert!(more < MOST_MEMORY, "{} bytes", more);
    }
}

/// A chain of three images whose last is the first by another name.
fn chain_to_itself(alias: impl FnOnce(&Path, &Path)) -> Result<Block, BlockError> {
    let folder = TempDir::new().unwrap();
    let draft = Draft {
        backed: true,
        ..Draft::of(vec![Cluster::Data, Cluster::None])
    };
    let image = |name: &str| ImageConfig {
        path: folder.path().join(name),
        format: ImageFormat::Qcow2,
    };
    let [top, middle, again] = ["top.qcow2", "middle.qcow2", "again.qcow2"].map(image);
    for one in [&top, &middle] {
        fs::write(&one.path, draft.file()).unwrap();
    }
    alias(&top.path, &again.path);
    let config = BlockConfig {
        backing: vec![middle.clone(), again],
        ..BlockConfig::new(top.clone())
    };

    let opened = open(&config);

    for one in [top, middle] {
        assert!(
            fs::read(one.path).unwrap() == draft.file(),
            "something was written"
        );
    }
    opened
}

#[test]
fn an_image_that_is_under_itself_is_refused_whatever_it_is_called() {
    for alias in [
        |from: &Path, to: &Path| fs::hard_link(from, to).unwrap(),
        |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to).unwrap(),
    ] {
        let error = chain_to_itself(alias).err().unwrap();

        assert!(matches!(error, BlockError::Twice { .. }), "{error}");
        assert!(error.to_string().contains("again.qcow2"), "{error}");
    }
}
