use caraway_arch::layout::{ACPI_START, GIB, MIB};
use caraway_arch::{Backing, GuestMemory, memory};
use vm_memory::{Bytes, GuestAddress};

use super::*;

const VMGENID: u64 = 0x1_2345_6000;

fn tables(cpus: u8) -> Tables {
    let layout = Layout::new(6 * GIB, 48).unwrap();
    build(&Machine {
        layout: &layout,
        cpus,
        pvpanic: Some(0x505),
        vmgenid: Some(VMGENID),
    })
}

fn guest_memory() -> GuestMemory {
    memory::create(&Layout::new(2 * MIB, 48).unwrap(), Backing::Anonymous).unwrap()
}

fn read(memory: &GuestMemory, address: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

fn table_at(memory: &GuestMemory, address: u64) -> Vec<u8> {
    let size = word(&read(memory, address, 8), 4);
    read(memory, address, size as usize)
}

/// All tables that the root pointer leads to, as a guest walks them.
fn walk(memory: &GuestMemory, rsdp: u64) -> Vec<Vec<u8>> {
    let xsdt = table_at(memory, word(&read(memory, rsdp, 36), 24));
    let mut found: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| table_at(memory, word(entry, 0)))
        .collect();
    let dsdt = word(&found[0], 40);
    found.push(table_at(memory, dsdt));
    found.push(xsdt);
    found
}

#[test]
fn placed_tables_are_found_from_the_root_pointer_with_right_checksums() {
    let memory = guest_memory();
    let rsdp = tables(4).place(&memory).unwrap();
    let names: Vec<_> = walk(&memory, rsdp)
        .iter()
        .map(|table| {
            assert_eq!(sum(table), 0, "{:?}", &table[..4]);
            String::from_utf8(table[..4].to_vec()).unwrap()
        })
        .collect();
    assert_eq!(names, ["FACP", "APIC", "MCFG", "WAET", "DSDT", "XSDT"]);
    let root = read(&memory, rsdp, 36);
    assert_eq!((rsdp, sum(&root[..20]), sum(&root)), (ACPI_START, 0, 0));
}

#[test]
fn the_old_root_table_leads_to_the_same_tables() {
    let memory = guest_memory();
    let rsdp = tables(1).place(&memory).unwrap();
    let root = read(&memory, rsdp, 36);
    let rsdt = table_at(&memory, word(&root, 16));
    let xsdt = table_at(&memory, word(&root, 24));
    let old: Vec<_> = rsdt[36..].chunks(4).map(|entry| word(entry, 0)).collect();
    let new: Vec<_> = xsdt[36..].chunks(8).map(|entry| word(entry, 0)).collect();
    assert_eq!((sum(&rsdt), old), (0, new));
}

#[test]
fn the_facs_is_aligned_and_found() {
    let memory = guest_memory();
    let rsdp = tables(1).place(&memory).unwrap();
    let facs = word(&walk(&memory, rsdp)[0], 36);
    assert_eq!((facs % 64, read(&memory, facs, 4)), (0, b"FACS".to_vec()));
}

#[test]
fn as_many_processors_as_apic_ids_allow_still_fit() {
    let memory = guest_memory();
    let rsdp = tables(255).place(&memory).unwrap();
    let madt = &walk(&memory, rsdp)[1];
    assert!(madt.windows(4).any(|entry| entry == [0, 8, 254, 254]));
}

/// What firmware does with the script, to compare with what [`Tables::place`] does.
fn run_script(tables: &Tables, address: u64) -> (Vec<u8>, Vec<u8>) {
    let [(_, script), (_, mut rsdp), (_, mut blob)] = tables.files();
    for entry in script.chunks(128) {
        let file = |at: usize| {
            let name: Vec<_> = entry[at..at + 56]
                .iter()
                .copied()
                .take_while(|&b| b != 0)
                .collect();
            String::from_utf8(name).unwrap()
        };
        let field = |at: usize| word(entry, at) as usize;
        let target = if file(4) == RSDP_FILE {
            &mut rsdp
        } else {
            &mut blob
        };
        match word(entry, 0) {
            1 => assert!([1, 2].contains(&entry[64]) && field(60) <= 64),
            2 => {
                assert_eq!(file(60), TABLES_FILE);
                let (at, size) = (field(116), usize::from(entry[120]));
                let mut value = [0; 8];
                value[..size].copy_from_slice(&target[at..at + size]);
                let value = u64::from_le_bytes(value) + address;
                target[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
            3 => {
                let (at, start, length) = (field(60), field(64), field(68));
                let sum = sum(&target[start..start + length]);
                target[at] = target[at].wrapping_sub(sum);
            }
            command => panic!("command {command}"),
        }
    }
    (rsdp, blob)
}

#[test]
fn firmware_and_direct_boot_get_the_same_tables() {
    let tables = tables(3);
    let resolved = tables.resolve(0x7fe_0000);
    assert_eq!(
        run_script(&tables, 0x7fe_0000),
        (resolved.rsdp, resolved.tables)
    );
}

#[test]
fn the_generation_id_is_found_by_its_name_in_two_halves() {
    let memory = guest_memory();
    let rsdp = tables(1).place(&memory).unwrap();
    let dsdt = &walk(&memory, rsdp)[4];

    let mut address = b"ADDR\x12\x08\x02\x0c".to_vec();
    address.extend(0x2345_6000_u32.to_le_bytes());
    address.push(1);
    for piece in [&address[..], b"VM_Gen_Counter", b"_E05"] {
        let found = dsdt.windows(piece.len()).filter(|at| *at == piece).count();
        assert!(found > 0, "{piece:x?} is not in {dsdt:x?}");
    }
}

/// Writes the tables where `CARAWAY_ACPI_DUMP` says, for `iasl -d`.
#[test]
fn tables_can_be_written_out_for_a_disassembler() {
    let Some(folder) = std::env::var_os("CARAWAY_ACPI_DUMP") else {
        return;
    };
    let memory = guest_memory();
    let rsdp = tables(2).place(&memory).unwrap();
    for table in walk(&memory, rsdp) {
        let name = String::from_utf8(table[..4].to_vec()).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(name + ".aml"), table).unwrap();
    }
}
