//! The steps that frames and model take alike.

/// What can be done with frames. `frame` and `other` are taken modulo how many there are, `pool`
/// modulo the pools.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Alloc {
        pool: usize,
    },
    /// Received into a buffer that was lent.
    Receive {
        pool: usize,
        len: usize,
    },
    Free {
        frame: usize,
    },
    /// Several at once.
    FreeBurst {
        frame: usize,
        count: usize,
    },
    Prepend {
        frame: usize,
        len: usize,
    },
    Append {
        frame: usize,
        len: usize,
    },
    Adj {
        frame: usize,
        len: usize,
    },
    Trim {
        frame: usize,
        len: usize,
    },
    Chain {
        frame: usize,
        other: usize,
    },
    SplitOff {
        frame: usize,
        offset: usize,
        pool: usize,
    },
    Linearise {
        frame: usize,
    },
    ViewAt {
        frame: usize,
        offset: usize,
        len: usize,
    },
    Copy {
        frame: usize,
        offset: usize,
        len: usize,
        pool: usize,
    },
    Share {
        frame: usize,
        pool: usize,
    },
    MakeWritable {
        frame: usize,
        pool: usize,
    },
    Detach {
        frame: usize,
    },
    /// Changes all bytes, where that is allowed.
    Write {
        frame: usize,
    },
    LendAndBack {
        frame: usize,
    },
    NewExternal,
    DropExternal {
        other: usize,
    },
    Attach {
        other: usize,
        pool: usize,
        start: usize,
        len: usize,
    },
    CheckAll,
}

impl Step {
    /// Any bytes are a step: what, which frame, which other or pool, a length, an offset.
    pub(crate) fn from_bytes([what, frame, other, len, more, offset]: [u8; 6]) -> Self {
        let (frame, other) = (usize::from(frame), usize::from(other));
        let pool = other;
        // Mostly short ones.
        let len = if more < 200 { usize::from(len) / 2 } else { usize::from(len) * 3 };
        let offset = usize::from(offset) * (1 + other % 3);
        match what {
            0..38 => Self::Alloc { pool },
            38..60 => Self::Receive { pool, len },
            60..76 => Self::Free { frame },
            76..80 => Self::FreeBurst { frame, count: len },
            80..92 => Self::Prepend { frame, len },
            92..118 => Self::Append { frame, len },
            118..126 => Self::Adj { frame, len },
            126..134 => Self::Trim { frame, len },
            134..150 => Self::Chain { frame, other },
            150..162 => Self::SplitOff { frame, offset, pool },
            162..168 => Self::Linearise { frame },
            168..180 => Self::ViewAt { frame, offset, len },
            180..190 => Self::Copy { frame, offset, len, pool },
            190..206 => Self::Share { frame, pool },
            206..212 => Self::MakeWritable { frame, pool },
            212..218 => Self::Detach { frame },
            218..226 => Self::Write { frame },
            226..232 => Self::LendAndBack { frame },
            232..238 => Self::NewExternal,
            238..242 => Self::DropExternal { other },
            242..252 => Self::Attach { other, pool, start: offset, len },
            252.. => Self::CheckAll,
        }
    }
}
