//! Plays the draw commands of a file, the loader's module, and compares what the device draws with what
//! the file says that it must; `tests/canvas-model/src/stream.rs` describes the file. `sessions=` says how
//! many it must have.

use crate::cpu::{read, write};
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::qxl::Qxl;
use crate::say;
use crate::start_info::StartInfo;

const MAGIC: u64 = u64::from_le_bytes(*b"CANVAS 1");
const MOST_SURFACES: u64 = 8;
const CHECK: u64 = 0;

/// The file, from where it has not been read.
struct File {
    at: u64,
    end: u64,
}

impl File {
    fn word(&mut self) -> Result<u64, Why> {
        Ok(read(self.skip(8)?))
    }

    /// Passes bytes and what fills up their last word; where they were.
    fn skip(&mut self, bytes: u64) -> Result<u64, Why> {
        let (start, len) = (self.at, bytes.next_multiple_of(8));
        ensure!(len <= self.end - start, "the file ends at {start:#x}");
        self.at += len;
        Ok(start)
    }
}

/// A surface of the file's sessions.
#[derive(Clone, Copy, Default)]
struct Surface {
    id: u64,
    bar: u64,
    offset: u64,
    stride: u64,
    row_len: u64,
    width: u64,
    height: u64,
    /// Where the bits of a row are that are compared.
    visible: u64,
}

impl Surface {
    fn read(file: &mut File) -> Result<Self, Why> {
        let mut surface = Self {
            id: file.word()?,
            bar: file.word()?,
            offset: file.word()?,
            stride: file.word()?,
            row_len: file.word()?,
            width: file.word()?,
            height: file.word()?,
            visible: 0,
        };
        surface.visible = file.skip(surface.row_len)?;
        Ok(surface)
    }

    /// FNV-1a of what is visible of it.
    fn hash(&self, qxl: &Qxl) -> u64 {
        let base = qxl.bar(self.bar) + self.offset;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for y in 0..self.height {
            for x in 0..self.row_len {
                let byte: u8 = read(base + y * self.stride + x);
                let byte = byte & read::<u8>(self.visible + x);
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }
}

/// Plays every session; says how many commands and comparisons they had.
pub fn test(info: &StartInfo) -> Outcome {
    let (start, len) = info
        .module()
        .ok_or_else(|| why(format_args!("there is no module")))?;
    let mut file = File {
        at: start,
        end: start + len,
    };
    ensure!(
        file.word()? == MAGIC,
        "the module is not a file of commands"
    );
    let heap_address = file.word()?;
    let sessions = file.word()?;
    ensure!(
        sessions == info.number("sessions", 1),
        "the file has {sessions} sessions"
    );
    let count = file.word()?;
    ensure!(count <= MOST_SURFACES, "{count} surfaces are too many");
    let mut surfaces = [Surface::default(); MOST_SURFACES as usize];
    let surfaces = &mut surfaces[..count as usize];
    for surface in surfaces.iter_mut() {
        *surface = Surface::read(&mut file)?;
    }
    let (mut commands, mut comparisons) = (0, 0);
    for _ in 0..sessions {
        let (drawn, compared) = play(&mut file, surfaces, heap_address)?;
        commands += drawn;
        comparisons += compared;
    }
    say!("canvas drew {commands} commands, compared {comparisons} times");
    Ok(())
}

/// Plays the next session; how many commands and comparisons it had.
fn play(file: &mut File, surfaces: &[Surface], heap_address: u64) -> Result<(u64, u64), Why> {
    let (seed, heap_len, steps) = (file.word()?, file.word()?, file.word()?);
    let heap = file.skip(heap_len)?;
    let screen = surfaces[0];
    let mut qxl = Qxl::open(screen.width as u32, screen.height as u32)?;
    let place = qxl.allocate(heap_len);
    ensure!(
        qxl.address(place) == heap_address,
        "the commands would be at {:#x}, not {heap_address:#x}",
        qxl.address(place)
    );
    qxl.add_surfaces_slot();
    qxl.create_primary();
    qxl.set_monitors()?;
    for at in (0..heap_len).step_by(8) {
        write(place + at, read::<u64>(heap + at));
    }
    let (mut commands, mut comparisons) = (0, 0);
    for _ in 0..steps {
        let [kind, operand, hash, number] =
            [file.word()?, file.word()?, file.word()?, file.word()?];
        if kind != CHECK {
            qxl.give(kind as u32, operand)?;
            commands += 1;
            continue;
        }
        let surface = surfaces[operand as usize];
        qxl.update(
            surface.id as u32,
            surface.width as u32,
            surface.height as u32,
        );
        let found = surface.hash(&qxl);
        ensure!(
            found == hash,
            "seed {seed}, command {number}: surface {operand} has the hash {found:x}, not {hash:x}"
        );
        ensure!(!qxl.has_failed(), "seed {seed}, command {number}: an error");
        comparisons += 1;
    }
    for surface in &surfaces[1..] {
        qxl.destroy_surface(surface.id as u8);
    }
    let released = qxl.collect_all()?;
    ensure!(
        released == commands,
        "seed {seed}: {released} of {commands} commands come back"
    );
    Ok((commands, comparisons))
}
