use proptest::prelude::*;

use super::*;

const UUID: &str = "ec2be459-ebc3-7a28-6e24-d0be08311049";

fn identity() -> SmbiosIdentity {
    SmbiosIdentity { uuid: UUID.into(), product_name: "t3.micro".into(), board_asset_tag: "i-07367dc619f39a038".into() }
}

/// A structure as a reader sees it.
struct Structure {
    kind: u8,
    handle: u16,
    fields: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    /// The string whose number is at `offset`, counted from the start of the structure as the standard does.
    fn string(&self, offset: usize) -> &str {
        match self.fields[offset] {
            0 => "",
            n => &self.strings[usize::from(n) - 1],
        }
    }
}

/// Read all as a kernel does: find the entry point, check the sums, walk the table.
fn read(bytes: &[u8]) -> Vec<Structure> {
    let sum = |b: &[u8]| b.iter().fold(0u8, |a, b| a.wrapping_add(*b));
    assert_eq!(&bytes[..4], b"_SM_");
    assert_eq!(sum(&bytes[..usize::from(bytes[5])]), 0);
    assert_eq!(sum(&bytes[16..31]), 0);
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let address = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    let start = address as usize - layout::SMBIOS as usize;
    let table = &bytes[start..start + usize::from(word(22))];
    let (mut at, mut all) = (0, Vec::new());
    while at < table.len() {
        let length = usize::from(table[at + 1]);
        let mut strings = Vec::new();
        let mut end = at + length;
        while table[end] != 0 {
            let length = table[end..].iter().position(|b| *b == 0).unwrap();
            strings.push(String::from_utf8(table[end..end + length].to_vec()).unwrap());
            end += length + 1;
        }
        end += if strings.is_empty() { 2 } else { 1 };
        assert!(end - at <= usize::from(word(8)), "the largest structure is announced");
        let handle = u16::from_le_bytes([table[at + 2], table[at + 3]]);
        all.push(Structure { kind: table[at], handle, fields: table[at..at + length].to_vec(), strings });
        at = end;
    }
    assert_eq!(all.len(), usize::from(word(28)));
    all
}

/// How Linux prints the UUID of SMBIOS 2.6 and later (`%pUl`).
fn printed(b: &[u8]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let text: String = order.iter().map(|i| format!("{:02x}", b[*i])).collect();
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

#[test]
fn the_guest_reads_what_nitro_says() {
    let bytes = build(&identity(), 2, 1 << 30).unwrap();
    assert_eq!((bytes[6], bytes[7]), (2, 7));
    let all = read(&bytes);
    let kinds: Vec<u8> = all.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4, 16, 17, 19, 32, 127]);
    let bios = &all[0];
    assert_eq!((bios.string(4), bios.string(5), bios.string(8)), ("Amazon EC2", "1.0", "10/16/2017"));
    assert_eq!((bios.fields[0x14], bios.fields[0x15]), (1, 0), "release 1.0");
    let system = &all[1];
    assert_eq!(
        (system.string(4), system.string(5), system.string(6), system.string(7)),
        ("Amazon EC2", "t3.micro", "", UUID)
    );
    assert_eq!(printed(&system.fields[8..24]), UUID, "product_uuid is the serial number's text");
    let board = &all[2];
    assert_eq!((board.string(4), board.string(5), board.string(8)), ("Amazon EC2", "", "i-07367dc619f39a038"));
    let chassis = &all[3];
    assert_eq!((chassis.string(4), chassis.fields[5], chassis.string(8)), ("Amazon EC2", 1, "Amazon EC2"));
    assert_eq!(u16::from_le_bytes([board.fields[0xB], board.fields[0xC]]), chassis.handle);
}

#[test]
fn structures_have_the_lengths_of_version_2_7() {
    let all = read(&build(&identity(), 2, 1 << 30).unwrap());
    let lengths: Vec<(u8, usize)> = all.iter().map(|s| (s.kind, s.fields.len())).collect();
    let expected =
        [(0, 0x18), (1, 0x1B), (2, 0xF), (3, 0x16), (4, 0x2A), (16, 0x17), (17, 0x22), (19, 0x1F), (32, 0xB), (127, 4)];
    assert_eq!(lengths, expected);
}

#[test]
fn memory_sizes_are_told_in_every_width() {
    for memory in [1u64 << 30, 5 << 30, 64 << 30, 3 << 40] {
        let all = read(&build(&identity(), 2, memory).unwrap());
        let module = &all.iter().find(|s| s.kind == 17).unwrap().fields;
        let size = match u16::from_le_bytes([module[0xC], module[0xD]]) {
            0x7FFF => u32::from_le_bytes(module[0x1C..0x20].try_into().unwrap()).into(),
            mib => u64::from(mib),
        };
        assert_eq!(size << 20, memory);
        let mapped: u64 = all
            .iter()
            .filter(|s| s.kind == 19)
            .map(|s| {
                let wide = |at: usize| u64::from_le_bytes(s.fields[at..at + 8].try_into().unwrap());
                let narrow = |at: usize| u32::from_le_bytes(s.fields[at..at + 4].try_into().unwrap());
                if narrow(4) == u32::MAX {
                    wide(0x17) + 1 - wide(0xF)
                } else {
                    (u64::from(narrow(8)) + 1 - u64::from(narrow(4))) << 10
                }
            })
            .sum();
        assert_eq!(mapped, memory);
    }
}

#[test]
fn an_unusable_identity_is_refused() {
    for uuid in [
        "",
        "EC2BE459-ebc3-7a28-6e24-d0be08311049",
        "ec2be459ebc3-7a28-6e24-d0be08311049",
        "ec2be459-ebc3-7a28-6e24-d0be0831104g",
    ] {
        let identity = SmbiosIdentity { uuid: uuid.into(), ..identity() };
        assert_eq!(build(&identity, 1, 1 << 30), Err(SmbiosError::Uuid(uuid.into())));
    }
    let identity = SmbiosIdentity { board_asset_tag: "a\0b".into(), ..identity() };
    assert!(matches!(build(&identity, 1, 1 << 30), Err(SmbiosError::String(_))));
}

proptest! {
    #[test]
    fn any_uuid_is_printed_as_it_was_given(bytes in any::<[u8; 16]>()) {
        let h = hex::encode(bytes);
        let text = format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]);
        prop_assert_eq!(printed(&uuid_bytes(&text).unwrap()), text);
    }
}
