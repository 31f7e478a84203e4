//! Ids: what they are made of, their order and their text.
//!
//! Place in the picture: everything routes from its id, since each carries its slot or its drive.
//! Invariants: values that could be swapped are types of their own; the text of an id is base32 and has one spelling.
//! Not here: who gives them out (the control group for nodes, disks and replicas; the drive's group for the rest).

use crate::base32;
use crate::hash::stable_hash;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Fixed partitions of drives.
pub const SLOTS: u16 = 4096;
const SLOT_SHIFT: u32 = 52;
const _: () = assert!(
    1_u64 << (64 - SLOT_SHIFT) == SLOTS as u64,
    "the top twelve bits of a drive id are its slot"
);

/// One of the 4096 fixed partitions of drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// Checks the range; `None` from 4096 on.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// The slot in which a user of this (already folded) name is made.
    #[must_use]
    pub fn of_username(folded: &str) -> Self {
        Self((stable_hash(folded.as_bytes()) >> SLOT_SHIFT) as u16)
    }

    /// 0 to 4095.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Slot {
    type Error = &'static str;
    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("slot out of range")
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

macro_rules! slot_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// Makes an id in `slot` from 52 bits of `random` (higher ones are dropped).
            #[must_use]
            pub fn new(slot: Slot, random: u64) -> Self {
                Self((u64::from(slot.0) << SLOT_SHIFT) | (random & ((1 << SLOT_SHIFT) - 1)))
            }

            /// The slot that it lies in.
            #[must_use]
            pub fn slot(self) -> Slot {
                Slot((self.0 >> SLOT_SHIFT) as u16)
            }

            /// Reads the text form; `None` when it is none.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                base32::decode::<8>(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32::encode(&self.0.to_be_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

slot_id!(
    /// An account; the top twelve bits are its slot.
    UserId
);
slot_id!(
    /// One tree of entries with one change feed; the top twelve bits are its slot.
    DriveId
);
slot_id!(
    /// One installed client of a user; lies in the user's slot.
    DeviceId
);

macro_rules! drive_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name {
            /// The drive that it belongs to.
            pub drive: DriveId,
            /// Its number in the drive.
            pub number: u64,
        }

        impl $name {
            /// Reads the text form; `None` when it is none.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let value = u128::from_be_bytes(base32::decode::<16>(text)?);
                Some(Self { drive: DriveId((value >> 64) as u64), number: (value & u128::from(u64::MAX)) as u64 })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = (u128::from(self.drive.0) << 64) | u128::from(self.number);
                f.write_str(&base32::encode(&value.to_be_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

drive_id!(
    /// A file or a folder; survives rename and move.
    EntryId
);
drive_id!(
    /// An upload session.
    UploadId
);
drive_id!(
    /// A grant on an entry.
    ShareId
);
drive_id!(
    /// A public link.
    LinkId
);

/// The number of every drive's root entry.
pub const ROOT_ENTRY: u64 = 1;

impl DriveId {
    /// The drive's root entry.
    #[must_use]
    pub fn root(self) -> EntryId {
        EntryId {
            drive: self,
            number: ROOT_ENTRY,
        }
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A storage process, given out by the control group and never again.
    NodeId(u32)
);
number_id!(
    /// A local disk of a storage node, given out by the control group and never again.
    DiskId(u32)
);
number_id!(
    /// A metadata replica, given out by the control group and never again, also not after a wipe.
    RaftId(u64)
);
number_id!(
    /// A Raft group; 0 is the control group.
    GroupId(u32)
);
number_id!(
    /// The drive-local number of a block.
    BlockId(u64)
);
number_id!(
    /// Counts changes of the cluster map.
    MapVersion(u64)
);
number_id!(
    /// Counts changes of one placement group's row.
    RowVersion(u64)
);
number_id!(
    /// Changes when a restore may have rewound history.
    Incarnation(u64)
);

/// The group that keeps the cluster map, the layouts and who serves which slot.
pub const CONTROL_GROUP: GroupId = GroupId(0);

/// The cluster: every message and certificate carries it, so that two clusters never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// Reads the text form; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        base32::decode::<16>(text).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0.to_be_bytes()))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{DriveId, EntryId, Slot, UserId};
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn texts_read_back(drive in any::<u64>(), number in any::<u64>()) {
            let entry = EntryId { drive: DriveId(drive), number };
            assert_eq!(EntryId::parse(&entry.to_string()), Some(entry));
            assert_eq!(UserId::parse(&UserId(drive).to_string()), Some(UserId(drive)));
        }

        #[test]
        fn the_slot_is_in_the_id(slot in 0_u16..4096, random in any::<u64>()) {
            let slot = Slot::new(slot).unwrap();
            assert_eq!(DriveId::new(slot, random).slot(), slot);
        }
    }

    #[test]
    fn a_slot_beyond_the_last_is_refused() {
        assert_eq!(Slot::new(4096), None);
        assert!(Slot::new(4095).is_some());
    }
}
