//! From what the config says to what will run.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caraway_devices::pci::PciAddress;
use uuid::Uuid;

use super::boot::{Boot, Firmware};
use super::disk::{Disk, DiskFormat};
use super::display::{Display, DisplayDevice};
use super::endpoint::{Listen, SerialTo};
use super::input::{Input, InputDevice};
use super::path::{JsonPath, at};
use super::policy::{LostTicks, OnResume};
use super::problem::{Kind, Problem};
use super::slots::{DISPLAY, Slots};
use super::spec::{BootSpec, DiskSpec, DisplaySpec, InputSpec, MachineSpec, SpiceSpec};
use super::spice::{Auth, Secret, Spice};
use super::units::{GIB, MIB, Size};
use super::{Config, Document, Host};

const DEFAULT_MEMORY: u64 = 512 * MIB;
const LEAST_MEMORY: u64 = 4 * MIB;
const DEFAULT_VRAM: u64 = 64 * MIB;
const DEFAULT_LISTEN: &str = "127.0.0.1:5900";
/// `sockaddr_un` has room for 108 bytes with the final zero.
pub(crate) const SOCKET_PATH: usize = 107;
/// `SPICE_MAX_PASSWORD_LENGTH` of spice-protocol.
const PASSWORD: usize = 60;
/// `VIRTIO_BLK_ID_BYTES` of virtio 1.2, 5.2.6.
const DISK_SERIAL: usize = 20;
/// What a flat firmware image may measure.
const FIRMWARE_SIZES: std::ops::RangeInclusive<u64> = 4096..=16 * MIB;

/// The I/O ports of the platform, where `debug_exit` can't be.
const TAKEN_PORTS: [(u16, u16, &str); 12] = [
    (0x0000, 0x000f, "the DMA controller"),
    (0x0020, 0x0021, "the interrupt controller"),
    (0x0040, 0x0043, "the timer"),
    (0x0060, 0x0064, "the keyboard controller"),
    (0x0070, 0x0071, "the CMOS clock"),
    (0x00a0, 0x00a1, "the interrupt controller"),
    (0x03b0, 0x03df, "the VGA"),
    (0x03f8, 0x03ff, "the serial port"),
    (0x0402, 0x0402, "the firmware's debug port"),
    (0x0510, 0x051b, "fw_cfg"),
    (0x0600, 0x067f, "power management"),
    (0x0cf8, 0x0cff, "PCI configuration"),
];

pub(crate) fn check(
    document: &Document,
    config: &Config,
    host: &Host,
) -> Result<MachineSpec, Vec<Problem>> {
    let mut checker = Checker {
        document,
        host,
        problems: Vec::new(),
        ids: BTreeMap::new(),
        slots: Slots::new(),
    };
    let spec = checker.machine(config);
    match spec {
        Some(spec) if checker.problems.is_empty() => Ok(spec),
        _ => Err(checker.problems),
    }
}

struct Checker<'a> {
    document: &'a Document,
    host: &'a Host,
    problems: Vec<Problem>,
    ids: BTreeMap<String, JsonPath>,
    slots: Slots,
}

impl Checker<'_> {
    /// The machine; `None` only if a problem was noted.
    fn machine(&mut self, config: &Config) -> Option<MachineSpec> {
        self.refuse_what_is_not_built(config);
        self.claim_what_is_given(config);
        let name = self.name(config);
        let cpus = self.cpus(config.cpus.unwrap_or(1));
        let memory = self.memory(config.memory.map_or(DEFAULT_MEMORY, Size::bytes));
        let boot = self.boot(&config.boot);
        let display = self.display(config);
        let spice = config.spice.as_ref().and_then(|spice| self.spice(spice));
        let inputs = self.inputs(config);
        let disks = self.disks(&config.disks);
        let serial = self.serial(config);
        let debug_exit = config.debug_exit.and_then(|port| self.debug_exit(port));
        let clock = config.clock.unwrap_or_default();
        let on = config.on.unwrap_or_default();
        let uuid = config.uuid.unwrap_or_else(|| self.identity(&name));
        let lost_ticks = clock.lost_ticks.unwrap_or_default();
        let mut notes = Vec::new();
        if matches!(clock.lost_ticks, Some(LostTicks::Replay | LostTicks::Slew)) {
            notes.push("clock.lost_ticks: this build does not replay lost ticks yet".to_owned());
        }
        Some(MachineSpec {
            name,
            uuid,
            cpus,
            memory,
            boot: boot?,
            display,
            spice,
            inputs,
            disks,
            serial,
            clock_base: clock.base.unwrap_or_default(),
            lost_ticks,
            on_resume: clock.on_resume.unwrap_or_default(),
            debug_exit,
            on_poweroff: on.poweroff.unwrap_or_default(),
            on_reset: on.reset.unwrap_or_default(),
            on_panic: on.panic.unwrap_or_default(),
            notes,
            document: self.document.clone(),
        })
    }

    fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn bad(&mut self, path: JsonPath, message: impl Into<String>, hint: impl Into<String>) {
        self.note(Problem::new(Kind::BadValue, path, message).hint(hint));
    }

    fn unsupported(&mut self, path: JsonPath, what: &str) {
        let message = format!("{what}: not supported by this build yet");
        let hint = "remove it to run the machine without";
        self.note(Problem::new(Kind::Unsupported, path, message).hint(hint));
    }

    fn refuse_what_is_not_built(&mut self, config: &Config) {
        let clock = config.clock.unwrap_or_default();
        let missing = [
            (!config.nets.is_empty(), at!("nets"), "network cards"),
            (
                !config.channels.is_empty(),
                at!("channels"),
                "virtio console ports",
            ),
            (
                config.vsock.is_some(),
                at!("vsock"),
                "the virtio socket device",
            ),
            (
                config.balloon.is_some(),
                at!("balloon"),
                "the memory balloon",
            ),
            (
                config.rng.is_some(),
                at!("rng"),
                "the virtio source of random numbers",
            ),
            (
                clock.on_resume == Some(OnResume::Continue),
                at!("clock", "on_resume"),
                "a clock that goes on from where it stopped",
            ),
        ];
        for (asked, path, what) in missing {
            if asked {
                self.unsupported(path, what);
            }
        }
    }

    /// Takes every id and address that is written down, so that defaults go around them.
    fn claim_what_is_given(&mut self, config: &Config) {
        if let Some(display) = &config.display {
            self.claim(&display.id, display.address, at!("display"), "the display");
        }
        for (index, input) in config.inputs.iter().flatten().enumerate() {
            let who = format!("inputs[{index}]");
            self.claim(&input.id, input.address, at!("inputs", index), &who);
        }
        for (index, disk) in config.disks.iter().enumerate() {
            let who = format!("disks[{index}]");
            self.claim(&disk.id, disk.address, at!("disks", index), &who);
        }
    }

    fn claim(
        &mut self,
        id: &Option<String>,
        address: Option<PciAddress>,
        path: JsonPath,
        who: &str,
    ) {
        if let Some(id) = id {
            self.claim_id(id, path.then("id"));
        }
        if let Some(address) = address
            && let Err(problem) = self.slots.claim(address, who, path.then("address"))
        {
            self.note(*problem);
        }
    }

    fn claim_id(&mut self, id: &str, path: JsonPath) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            let message = format!("{id:?} is not an id");
            self.bad(
                path,
                message,
                "use 1 to 64 letters, digits, `-`, `_` or `.`",
            );
            return;
        }
        if let Some(other) = self.ids.get(id) {
            let free = self.free_id(id.trim_end_matches(|c: char| c.is_ascii_digit()));
            let message = format!("the id \"{id}\" is already that of {other}");
            let hint = format!("ids are unique among all devices; \"{free}\" is free");
            self.note(Problem::new(Kind::DuplicateId, path, message).hint(hint));
            return;
        }
        self.ids.insert(id.to_owned(), path);
    }

    fn free_id(&self, stem: &str) -> String {
        (0..=self.ids.len())
            .map(|n| format!("{stem}{n}"))
            .find(|id| !self.ids.contains_key(id))
            .unwrap_or_else(|| stem.to_owned())
    }

    /// The id of the device at `path`: the one given, or `default` or, if that is taken, the
    /// first free one of `stem` and a number.
    fn id(&mut self, given: &Option<String>, default: &str, stem: &str, path: &JsonPath) -> String {
        if let Some(id) = given {
            return id.clone();
        }
        let id = match self.ids.contains_key(default) {
            true => self.free_id(stem),
            false => default.to_owned(),
        };
        self.ids.insert(id.clone(), path.then("id"));
        id
    }

    /// The address of the device at `path`: the one given, or `wish`, or the next free one.
    fn address(
        &mut self,
        given: Option<PciAddress>,
        wish: Option<u8>,
        path: &JsonPath,
    ) -> Option<PciAddress> {
        if given.is_some() {
            return given;
        }
        match self.slots.assign(wish, &path.to_string(), path.clone()) {
            Ok(address) => Some(address),
            Err(problem) => {
                self.note(*problem);
                None
            }
        }
    }

    fn name(&mut self, config: &Config) -> String {
        let name = config
            .name
            .clone()
            .or_else(|| self.document.stem().map(String::from))
            .unwrap_or_else(|| "caraway".to_owned());
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            let message = format!("{name:?} is not a name");
            self.bad(
                at!("name"),
                message,
                "use 1 to 255 bytes without control characters",
            );
        }
        name
    }

    /// The same for every run of the same machine.
    fn identity(&self, name: &str) -> Uuid {
        let place = self.document.base().join(name);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, place.as_os_str().as_encoded_bytes())
    }

    fn cpus(&mut self, cpus: u32) -> u8 {
        match u8::try_from(cpus) {
            Ok(count @ 1..=254) => count,
            _ => {
                let message = format!("a machine can't have {cpus} CPUs");
                self.bad(at!("cpus"), message, "use 1 to 254");
                1
            }
        }
    }

    fn memory(&mut self, bytes: u64) -> u64 {
        let shown = Size(bytes);
        let path = at!("memory");
        if bytes < LEAST_MEMORY {
            let message = format!("{shown} of memory is too little");
            self.bad(
                path,
                message,
                format!("use at least {}", Size(LEAST_MEMORY)),
            );
        } else if self.host.memory != 0 && bytes > self.host.memory {
            let host = Size(self.host.memory / MIB * MIB);
            let message = format!("{shown} of memory is more than the host's {host}");
            self.bad(path, message, format!("use at most {host}"));
        } else if !bytes.is_multiple_of(MIB) {
            let near = Size(bytes / MIB * MIB);
            let message = format!("{shown} of memory is not a multiple of 1M");
            self.bad(path, message, format!("the nearest is {near}"));
        }
        bytes
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.document.base().join(path)
    }

    /// The absolute path of the file that the config at `place` names; a problem is noted if it
    /// can't be read.
    fn file(&mut self, path: &Path, place: JsonPath, what: &str) -> PathBuf {
        let full = self.absolute(path);
        let fault = match std::fs::metadata(&full) {
            Err(error) => Some(reason(&error)),
            Ok(about) if about.is_dir() => Some("it is a folder".to_owned()),
            Ok(_) => readable(&full).err().map(|error| reason(&error)),
        };
        if let Some(fault) = fault {
            let message = format!("cannot use the {what} \"{}\": {fault}", path.display());
            let hint = format!(
                "looked for {}; relative paths are relative to the config's folder",
                full.display()
            );
            self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
        }
        full
    }

    fn boot(&mut self, boot: &Boot) -> Option<BootSpec> {
        match (&boot.firmware, &boot.kernel) {
            (Some(firmware), None) => {
                for (given, key) in [
                    (boot.initrd.is_some(), "initrd"),
                    (boot.cmdline.is_some(), "cmdline"),
                ] {
                    if given {
                        let message = format!("`{key}` needs a `kernel`");
                        self.bad(at!("boot", key), message, "remove it, or boot a kernel");
                    }
                }
                self.firmware(firmware)
            }
            (None, Some(kernel)) => Some(BootSpec::Kernel {
                path: self.file(kernel, at!("boot", "kernel"), "kernel"),
                initrd: boot
                    .initrd
                    .as_ref()
                    .map(|path| self.file(path, at!("boot", "initrd"), "initrd")),
                cmdline: self.cmdline(boot.cmdline.as_deref().unwrap_or("")),
            }),
            (both, _) => {
                let message = match both {
                    Some(_) => "has both a `firmware` and a `kernel`",
                    None => "has neither a `firmware` nor a `kernel`",
                };
                let hint = "give one: {\"firmware\": \"seabios\"} or {\"kernel\": \"vmlinuz\"}";
                self.bad(at!("boot"), message, hint);
                None
            }
        }
    }

    fn cmdline(&mut self, cmdline: &str) -> String {
        // The x86 kernel's own limit is COMMAND_LINE_SIZE, 2048 with the final zero.
        if cmdline.len() > 2047 || cmdline.contains('\0') {
            let message = format!("a command line of {} bytes", cmdline.len());
            self.bad(
                at!("boot", "cmdline"),
                message,
                "use at most 2047 bytes, none of them zero",
            );
        }
        cmdline.to_owned()
    }

    fn firmware(&mut self, firmware: &Firmware) -> Option<BootSpec> {
        let place = at!("boot", "firmware");
        let path = match firmware {
            Firmware::SeaBios => match self.host.find_firmware("bios-256k.bin") {
                Some(path) => path,
                None => {
                    self.no_firmware(place, "bios-256k.bin");
                    return None;
                }
            },
            Firmware::Ovmf => {
                self.unsupported(place, "OVMF");
                return None;
            }
            Firmware::Path(path) => self.file(path, place.clone(), "firmware"),
        };
        let size = std::fs::metadata(&path).map_or(0, |about| about.len());
        let fits = FIRMWARE_SIZES.contains(&size) && size.is_multiple_of(4096);
        if !fits && self.problems.is_empty() {
            let message = format!(
                "\"{}\" has {size} bytes, which is no flat firmware image",
                path.display()
            );
            self.bad(
                place,
                message,
                "use \"seabios\", or an image of whole 4K pages up to 16M",
            );
        }
        Some(BootSpec::Firmware {
            name: firmware.clone(),
            path,
        })
    }

    fn no_firmware(&mut self, place: JsonPath, file: &str) {
        let folders: Vec<String> = self
            .host
            .firmware
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let message = format!(
            "SeaBIOS is not installed: no {file} in {}",
            folders.join(", ")
        );
        let hint = "apt install seabios; or name a folder that has it in CARAWAY_FIRMWARE";
        self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
    }

    fn display(&mut self, config: &Config) -> Option<DisplaySpec> {
        let wanted = Display::default();
        let display = match (&config.display, &config.spice) {
            (Some(display), _) => display,
            (None, Some(_)) => &wanted,
            (None, None) => return None,
        };
        let path = at!("display");
        let heads = display.heads.unwrap_or(1);
        if !(1..=16).contains(&heads) {
            let message = format!("a display can't have {heads} heads");
            self.bad(path.then("heads"), message, "use 1 to 16");
        }
        let vram = display.vram.map_or(DEFAULT_VRAM, Size::bytes);
        if !vram.is_power_of_two() || !(16 * MIB..=GIB / 2).contains(&vram) {
            let near = vram.clamp(16 * MIB, GIB / 2).next_power_of_two();
            let message = format!("{} of video memory can't be mapped", Size(vram));
            let hint = format!(
                "use a power of two from 16M to 512M, such as {}",
                Size(near)
            );
            self.bad(path.then("vram"), message, hint);
        }
        let option_rom = self.option_rom(config);
        Some(DisplaySpec {
            id: self.id(&display.id, "display", "display", &path),
            address: self.address(display.address, Some(DISPLAY), &path)?,
            device: display.device.unwrap_or(DisplayDevice::Qxl),
            heads,
            vram,
            option_rom,
        })
    }

    /// The display's own firmware: a must with SeaBIOS, which can't show anything without.
    fn option_rom(&mut self, config: &Config) -> Option<PathBuf> {
        const FILE: &str = "vgabios-qxl.bin";
        let found = self.host.find_firmware(FILE);
        if found.is_none() && config.boot.firmware == Some(Firmware::SeaBios) {
            self.no_firmware(at!("display"), FILE);
        }
        found
    }

    fn spice(&mut self, spice: &Spice) -> Option<SpiceSpec> {
        let listen = match &spice.listen {
            None => vec![DEFAULT_LISTEN.parse().ok()?],
            Some(listen) => listen.clone(),
        };
        if listen.is_empty() {
            let hint = format!("add one, such as \"{DEFAULT_LISTEN}\" or \"unix:desk.spice\"");
            self.bad(at!("spice", "listen"), "no listener", hint);
        }
        let listen = listen
            .into_iter()
            .enumerate()
            .map(|(index, listen)| self.listener(listen, at!("spice", "listen", index)))
            .collect();
        let (password, password_file) = self.password(spice);
        Some(SpiceSpec {
            listen,
            password,
            password_file,
        })
    }

    fn listener(&mut self, listen: Listen, place: JsonPath) -> Listen {
        match listen {
            Listen::Unix(path) => Listen::Unix(self.socket(&path, place)),
            tcp @ Listen::Tcp(_) => tcp,
        }
    }

    fn socket(&mut self, path: &Path, place: JsonPath) -> PathBuf {
        let full = self.absolute(path);
        let length = full.as_os_str().len();
        if length > SOCKET_PATH {
            let message = format!(
                "the socket path \"{}\" has {length} bytes; the kernel takes {SOCKET_PATH}",
                full.display()
            );
            self.bad(
                place,
                message,
                "use a shorter path, for example in /run or /tmp",
            );
        } else if !full.parent().is_some_and(Path::is_dir) {
            let message = format!("no folder for the socket \"{}\"", full.display());
            let hint = "make the folder first";
            self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
        }
        full
    }

    fn password(&mut self, spice: &Spice) -> (Option<Secret>, Option<PathBuf>) {
        let path = at!("spice");
        let (password, file) = match (&spice.password, &spice.password_file) {
            (Some(_), Some(_)) => {
                let hint = "keep one of `password` and `password_file`";
                self.bad(
                    path.then("password_file"),
                    "the password is given twice",
                    hint,
                );
                return (None, None);
            }
            (Some(password), None) => (Some(password.clone()), None),
            (None, Some(file)) => {
                let place = path.then("password_file");
                let full = self.file(file, place, "password file");
                let text = std::fs::read_to_string(&full).unwrap_or_default();
                (
                    Some(Secret::new(text.lines().next().unwrap_or(""))),
                    Some(full),
                )
            }
            (None, None) => (None, None),
        };
        match (spice.auth, &password) {
            (Some(Auth::Password), None) => {
                let hint = "add `password` or `password_file`";
                self.bad(path.then("auth"), "there is no password", hint);
            }
            (Some(Auth::None), Some(_)) => {
                let hint = "remove the password, or use \"auth\": \"password\"";
                self.bad(
                    path.then("auth"),
                    "a password is given, yet nobody is asked",
                    hint,
                );
            }
            (_, Some(password)) if !(1..=PASSWORD).contains(&password.reveal().len()) => {
                let key = if file.is_some() {
                    "password_file"
                } else {
                    "password"
                };
                let message = format!("the password has {} bytes", password.reveal().len());
                let mut problem = Problem::new(Kind::BadValue, path.then(key), message)
                    .hint(format!("use 1 to {PASSWORD} bytes"));
                problem.value = Some("***".to_owned());
                self.note(problem);
            }
            _ => {}
        }
        (password, file)
    }

    fn inputs(&mut self, config: &Config) -> Vec<InputSpec> {
        let tablet = [Input {
            device: InputDevice::Tablet,
            id: None,
            address: None,
        }];
        let headless = config.display.is_none() && config.spice.is_none();
        let inputs = match &config.inputs {
            Some(inputs) => inputs.as_slice(),
            None if headless => &[],
            None => &tablet,
        };
        let specs = inputs.iter().enumerate().filter_map(|(index, input)| {
            let path = at!("inputs", index);
            let word = input.device.word();
            Some(InputSpec {
                id: self.id(&input.id, word, word, &path),
                address: self.address(input.address, None, &path)?,
                device: input.device,
            })
        });
        specs.collect()
    }

    fn disks(&mut self, disks: &[Disk]) -> Vec<DiskSpec> {
        let specs = disks.iter().enumerate().filter_map(|(index, disk)| {
            let path = at!("disks", index);
            let id = self.id(&disk.id, &format!("disk{index}"), "disk", &path);
            let format = disk
                .format
                .unwrap_or_else(|| DiskFormat::of_path(&disk.path));
            if format != DiskFormat::Raw {
                self.unsupported(path.then("format"), &format!("{} images", format.word()));
            }
            let serial = disk
                .serial
                .clone()
                .unwrap_or_else(|| id.chars().take(DISK_SERIAL).collect());
            if serial.len() > DISK_SERIAL || !serial.is_ascii() {
                let message = format!("{serial:?} is not a disk's serial number");
                let hint = format!("use at most {DISK_SERIAL} ASCII characters");
                self.bad(path.then("serial"), message, hint);
            }
            Some(DiskSpec {
                id,
                address: self.address(disk.address, None, &path)?,
                path: self.file(&disk.path, path.then("path"), "disk"),
                format,
                readonly: disk.readonly.unwrap_or(false),
                serial,
            })
        });
        specs.collect()
    }

    fn serial(&mut self, config: &Config) -> SerialTo {
        let place = at!("serial", "to");
        match config.serial.as_ref().and_then(|serial| serial.to.clone()) {
            None => SerialTo::Stdio,
            Some(SerialTo::File(path)) => {
                let full = self.absolute(&path);
                if !full.parent().is_some_and(Path::is_dir) {
                    let message = format!("no folder for the file \"{}\"", full.display());
                    let problem = Problem::new(Kind::MissingFile, place, message);
                    self.note(problem.hint("make the folder first"));
                }
                SerialTo::File(full)
            }
            Some(SerialTo::Unix(path)) => {
                self.unsupported(place, "a serial port on a socket");
                SerialTo::Unix(self.absolute(&path))
            }
            Some(to) => to,
        }
    }

    fn debug_exit(&mut self, port: u16) -> Option<u16> {
        let owner = TAKEN_PORTS
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&port));
        if let Some((first, last, owner)) = owner {
            let message = format!("port {port} ({port:#x}) is {owner}'s ({first:#x} to {last:#x})");
            self.bad(
                at!("debug_exit"),
                message,
                "use a free port, such as 1281 (0x501)",
            );
            return None;
        }
        Some(port)
    }
}

/// Whether the file can be opened; a FIFO without a writer does not hold us up.
fn readable(path: &Path) -> std::io::Result<()> {
    let mut how = std::fs::OpenOptions::new();
    how.read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map(drop)
}

/// The reason without the number that std appends.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    }
}
