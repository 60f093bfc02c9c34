//! The guest: a boot sector that writes a growing number to a disk for ever, and says each number on the serial
//! port once the disk has it.

/// What the guest does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// BIOS drive: 0x80 is `system0`, 0x81 `data0`.
    pub(crate) drive: u8,
    /// Odd numbers go to the drive after it.
    pub(crate) alternate: bool,
    /// Writes go to `2^spread` places in turn.
    pub(crate) spread: u8,
    /// Each place is `2^stride` sectors after the one before.
    pub(crate) stride: u8,
    /// Each number is read back, and what was read is what is said and counted on.
    pub(crate) reads: bool,
}

/// The first sector that is written.
pub(crate) const FIRST_SECTOR: u32 = 128;

impl Program {
    /// Writes to sixteen sectors of one block of `data0`.
    pub(crate) const QUIET: Program = Program {
        drive: 0x81,
        alternate: false,
        spread: 4,
        stride: 0,
        reads: false,
    };
    /// Writes to 256 blocks of `data0`: 16 MiB.
    pub(crate) const BUSY: Program = Program {
        drive: 0x81,
        alternate: false,
        spread: 8,
        stride: 7,
        reads: false,
    };
    /// Writes to sixteen blocks of `system0`.
    pub(crate) const SYSTEM: Program = Program {
        drive: 0x80,
        alternate: false,
        spread: 4,
        stride: 7,
        reads: false,
    };

    /// The 16-bit program.
    fn code(&self) -> Vec<u8> {
        let mask = (1u32 << self.spread) - 1;
        let mut code = Vec::new();
        code.extend([0x31, 0xc0]); // xor ax, ax
        code.extend([0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); // mov ds, es, ss from ax
        code.extend([0xbc, 0x00, 0x7c]); // mov sp, 0x7c00
        code.extend([0xfb, 0xfc]); // sti, cld
        code.extend([0x66, 0x31, 0xc0]); // xor eax, eax
        code.extend([0x66, 0xa3, 0x00, 0x80]); // mov [0x8000], eax: the number
        let again = code.len();
        code.extend([0x66, 0xff, 0x06, 0x00, 0x80]); // inc dword [0x8000]
        let write = code.len();
        code.extend([0x66, 0xa1, 0x00, 0x80]); // mov eax, [0x8000]
        code.extend([0x66, 0x25]); // and eax, mask
        code.extend(mask.to_le_bytes());
        code.extend([0x66, 0xc1, 0xe0, self.stride]); // shl eax, stride
        code.extend([0x66, 0x05]); // add eax, first sector
        code.extend(FIRST_SECTOR.to_le_bytes());
        code.extend([0x66, 0xa3, 0x88, 0x7c]); // mov [packet + 8], eax
        code.extend([0xbe, 0x80, 0x7c]); // mov si, packet
        if self.alternate {
            code.extend([0x8a, 0x16, 0x00, 0x80]); // mov dl, [0x8000]
            code.extend([0x80, 0xe2, 0x01]); // and dl, 1
            code.extend([0x80, 0xc2, self.drive]); // add dl, drive
        } else {
            code.extend([0xb2, self.drive]); // mov dl, drive
        }
        code.extend([0xb8, 0x00, 0x43]); // mov ax, 0x4300: extended write
        code.extend([0xcd, 0x13]); // int 0x13
        jump(&mut code, 0x72, write); // jc write: try the same number again
        if self.reads {
            let read = code.len();
            code.extend([0xb8, 0x00, 0x42]); // mov ax, 0x4200: extended read
            code.extend([0xcd, 0x13]); // int 0x13
            jump(&mut code, 0x72, read); // jc read
        }
        code.extend([0xbe, 0x00, 0x80]); // mov si, 0x8000
        code.extend([0xb9, 0x04, 0x00]); // mov cx, 4
        let byte = code.len();
        code.extend([0xba, 0xfd, 0x03]); // mov dx, 0x3fd
        let ready = code.len();
        code.extend([0xec, 0xa8, 0x20]); // in al, dx; test al, 0x20
        jump(&mut code, 0x74, ready); // jz ready
        code.extend([0xba, 0xf8, 0x03]); // mov dx, 0x3f8
        code.extend([0xac, 0xee]); // lodsb; out dx, al
        jump(&mut code, 0xe2, byte); // loop byte
        jump(&mut code, 0xeb, again); // jmp again
        code
    }

    /// A disk image with the program in its boot sector.
    pub(crate) fn image(&self, size: u64) -> Vec<u8> {
        let mut image = vec![0u8; usize::try_from(size).expect("fits")];
        let code = self.code();
        assert!(code.len() <= 0x80);
        image[..code.len()].copy_from_slice(&code);
        // The packet of int 0x13: 16 bytes, one sector, from 0000:8000, the sector number follows.
        image[0x80..0x88].copy_from_slice(&[0x10, 0, 1, 0, 0x00, 0x80, 0, 0]);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image
    }

    /// The number a disk holds in the place where `number` was written.
    pub(crate) fn stored(&self, disk: &[u8], number: u32) -> u32 {
        let place = number & ((1 << self.spread) - 1);
        let at = (FIRST_SECTOR + (place << self.stride)) as usize * 512;
        u32::from_le_bytes(disk[at..at + 4].try_into().expect("four"))
    }
}

/// A short jump backwards.
fn jump(code: &mut Vec<u8>, opcode: u8, to: usize) {
    let distance = i8::try_from(to as isize - (code.len() as isize + 2)).expect("short");
    code.extend([opcode, distance.cast_unsigned()]);
}
