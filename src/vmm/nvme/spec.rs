//! The wire format: registers, opcodes, status codes, commands and completions (NVM Express Base 1.4).
#![forbid(unsafe_code)]

/// Controller registers (§3.1): offsets in BAR 0.
pub mod register {
    /// Controller Capabilities, 64 bits.
    pub const CAP: u64 = 0x00;
    /// Version.
    pub const VS: u64 = 0x08;
    /// Controller Configuration.
    pub const CC: u64 = 0x14;
    /// Controller Status.
    pub const CSTS: u64 = 0x1c;
    /// Admin Queue Attributes.
    pub const AQA: u64 = 0x24;
    /// Admin Submission Queue Base Address, 64 bits.
    pub const ASQ: u64 = 0x28;
    /// Admin Completion Queue Base Address, 64 bits.
    pub const ACQ: u64 = 0x30;
    /// The first doorbell: submission queue 0's tail.
    pub const DOORBELLS: u64 = 0x1000;
}

/// Version 1.4 as VS and Identify report it.
pub const VERSION: u32 = 0x0001_0400;
/// The memory page size, in bytes: CAP.MPSMIN and MPSMAX allow no other.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes of a submission queue entry.
pub const COMMAND_SIZE: usize = 64;
/// Bytes of a completion queue entry.
pub const COMPLETION_SIZE: u64 = 16;
/// The most entries of an I/O queue: CAP.MQES plus one.
pub const MAX_QUEUE_ENTRIES: u32 = 1024;
/// The most entries of an admin queue (§3.1.8).
pub const MAX_ADMIN_ENTRIES: u32 = 4096;
/// MDTS: the largest transfer is 2^8 pages, 1 MiB.
pub const MDTS: u8 = 8;
/// The largest transfer in bytes.
pub const MAX_TRANSFER: u64 = PAGE_SIZE << MDTS;
/// The one namespace.
pub const NAMESPACE: u32 = 1;
/// "All namespaces".
pub const ALL_NAMESPACES: u32 = 0xffff_ffff;

/// Admin opcodes (§5).
pub mod admin_opcode {
    #![allow(missing_docs)]
    pub const DELETE_IO_SQ: u8 = 0x00;
    pub const CREATE_IO_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_IO_CQ: u8 = 0x04;
    pub const CREATE_IO_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
    pub const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;
}

/// NVM command set opcodes (§6).
pub mod io_opcode {
    #![allow(missing_docs)]
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// A completion's status (§4.6.1): status code in bits 7:0, its type in 10:8, Do Not Retry in bit 14. The phase tag is
/// the completion queue's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    const DO_NOT_RETRY: u16 = 1 << 14;
    const fn generic(code: u16) -> Self {
        Status(code | Self::DO_NOT_RETRY)
    }
    const fn specific(code: u16) -> Self {
        Status(1 << 8 | code | Self::DO_NOT_RETRY)
    }

    /// Success.
    pub const SUCCESS: Status = Status(0);
    /// Invalid Command Opcode.
    pub const INVALID_OPCODE: Status = Status::generic(0x01);
    /// Invalid Field in Command.
    pub const INVALID_FIELD: Status = Status::generic(0x02);
    /// Data Transfer Error: memory that the command names is not there.
    pub const DATA_TRANSFER_ERROR: Status = Status::generic(0x04);
    /// Internal Error.
    pub const INTERNAL_ERROR: Status = Status::generic(0x06);
    /// Invalid Namespace or Format.
    pub const INVALID_NAMESPACE: Status = Status::generic(0x0b);
    /// Command Sequence Error.
    pub const COMMAND_SEQUENCE_ERROR: Status = Status::generic(0x0c);
    /// PRP Offset Invalid.
    pub const PRP_OFFSET_INVALID: Status = Status::generic(0x13);
    /// LBA Out of Range.
    pub const LBA_OUT_OF_RANGE: Status = Status::generic(0x80);
    /// Capacity Exceeded: the host's disk is full.
    pub const CAPACITY_EXCEEDED: Status = Status::generic(0x81);
    /// Completion Queue Invalid.
    pub const COMPLETION_QUEUE_INVALID: Status = Status::specific(0x00);
    /// Invalid Queue Identifier.
    pub const INVALID_QUEUE_ID: Status = Status::specific(0x01);
    /// Invalid Queue Size.
    pub const INVALID_QUEUE_SIZE: Status = Status::specific(0x02);
    /// Asynchronous Event Request Limit Exceeded.
    pub const ASYNC_EVENT_LIMIT: Status = Status::specific(0x05);
    /// Invalid Interrupt Vector.
    pub const INVALID_INTERRUPT_VECTOR: Status = Status::specific(0x08);
    /// Invalid Log Page.
    pub const INVALID_LOG_PAGE: Status = Status::specific(0x09);
    /// Invalid Queue Deletion.
    pub const INVALID_QUEUE_DELETION: Status = Status::specific(0x0c);
    /// Feature Identifier Not Saveable.
    pub const FEATURE_NOT_SAVEABLE: Status = Status::specific(0x0d);
    /// Write Fault. The host may retry.
    pub const WRITE_FAULT: Status = Status(2 << 8 | 0x80);
    /// Unrecovered Read Error. The host may retry.
    pub const UNRECOVERED_READ_ERROR: Status = Status(2 << 8 | 0x81);
}

/// A submission queue entry (§4.2), fetched from guest memory once.
#[derive(Clone, Copy, Debug)]
pub struct Command([u32; 16]);

impl Command {
    /// Parse an entry's bytes.
    pub fn from_bytes(bytes: &[u8; COMMAND_SIZE]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let mut command = [0; 16];
        for (to, from) in command.iter_mut().zip(words) {
            *to = u32::from_le_bytes(*from);
        }
        Command(command)
    }

    /// Opcode.
    pub fn opcode(&self) -> u8 {
        self.0[0] as u8
    }

    /// A fused operation, or SGLs where only PRPs are supported (bits 9:8 and 15:14 of dword 0).
    pub fn has_unsupported_flags(&self) -> bool {
        self.0[0] & 0xc300 != 0
    }

    /// Command identifier.
    pub fn cid(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }

    /// Namespace identifier.
    pub fn nsid(&self) -> u32 {
        self.0[1]
    }

    /// PRP entry 1.
    pub fn prp1(&self) -> u64 {
        u64::from(self.0[7]) << 32 | u64::from(self.0[6])
    }

    /// PRP entry 2.
    pub fn prp2(&self) -> u64 {
        u64::from(self.0[9]) << 32 | u64::from(self.0[8])
    }

    /// Command dword `N`, 10 to 15.
    pub fn dword<const N: usize>(&self) -> u32 {
        const { assert!(N >= 10 && N < 16) }
        self.0[N]
    }

    /// Dwords 10 and 11 as one value: the starting LBA of an I/O command.
    pub fn slba(&self) -> u64 {
        u64::from(self.0[11]) << 32 | u64::from(self.0[10])
    }
}

/// What a command is answered with: status and command-specific dword 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: Status,
    /// Dword 0 of the completion.
    pub result: u32,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Answer { status, result: 0 }
    }
}

impl From<Result<u32, Status>> for Answer {
    fn from(result: Result<u32, Status>) -> Self {
        match result {
            Ok(result) => Answer { status: Status::SUCCESS, result },
            Err(status) => status.into(),
        }
    }
}
