//! What a group counts on that disks hold: sums of its stripes' ids, and the stripes themselves where sums differ.
//!
//! Place in the picture: the gateway's collector asks a group, adds up by its rows what each disk should hold, and asks the disks for
//! the same (`node::SumFragments`). Only stripes of closed birth epochs are counted, so none is in flight; one without a living byte is
//! left out, since it is being removed. What a group answers belongs to its slots alone: sums of several groups add up.
//! Not here: rows, which no group knows; which stripes may be removed (`Query::Orphans`).

use crate::frame::HEAD_BYTES_MAX;
use model::id::{DiskId, SLOTS, Slot};
use model::inventory::IdSum;
use model::profile::ProfileId;
use model::stripe::{Astray, StripeId};
use model::time::BirthEpoch;
use serde::{Deserialize, Serialize};

/// Stripes that one `StripeSums` is counted from: users' questions wait behind it, a few milliseconds.
pub const STRIPES_SUMMED_MAX: usize = 1024;
/// The longest encodings of a slot with its epoch, of a `PgSum` without what is astray, and of an `AstraySum`.
const SLOT_BYTES_MAX: usize = 8;
const PG_SUM_BYTES_MAX: usize = 52;
const ASTRAY_SUM_BYTES_MAX: usize = 36;
const _: () = {
    let mut at = 0;
    while at < ProfileId::ALL.len() {
        let profile = ProfileId::ALL[at].profile();
        let fragments = profile.k as usize + profile.m as usize;
        let stripe_bytes = PG_SUM_BYTES_MAX + fragments * ASTRAY_SUM_BYTES_MAX;
        // The rest is for where to go on and the lengths of lists.
        assert!(
            STRIPES_SUMMED_MAX * stripe_bytes + SLOTS as usize * SLOT_BYTES_MAX + 1024 < HEAD_BYTES_MAX,
            "an answer fits a frame's head with each stripe in a placement group of its own and all fragments astray"
        );
        at += 1;
    }
};
/// Stripes that one `ListedStripes` is read from.
pub const STRIPES_LISTED_MAX: usize = 1000;

/// `Query::SumStripes`: tell sums of the group's stripes, by slot, profile and placement group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumStripes {
    /// How many bits name a placement group, by profile, as the asker knows it; `PG_BITS_MIN` for a profile that is not named.
    pub pg_bits: Vec<(ProfileId, u8)>,
    /// Where the last answer ended.
    pub after: Option<SummedTo>,
}

/// How far a count has come: up to this stripe of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummedTo {
    /// The epoch by which its slot is counted.
    pub born_by: BirthEpoch,
    /// The stripe's profile.
    pub profile: ProfileId,
    /// The stripe.
    pub stripe: StripeId,
}

/// The answer to `Query::SumStripes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeSums {
    /// Slots of the group that were begun, ascending, with the newest closed epoch of each: stripes born later are not counted. A slot
    /// without a closed epoch is left out.
    pub slots: Vec<(Slot, BirthEpoch)>,
    /// By slot, profile and placement group, ascending. One that the last answer ended in may go on here: they add up.
    pub sums: Vec<PgSum>,
    /// Where to go on; `None`: all of the group's slots are through.
    pub next: Option<SummedTo>,
}

/// Stripes of a slot in one placement group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgSum {
    /// Whose.
    pub slot: Slot,
    /// Of which profile.
    pub profile: ProfileId,
    /// In which placement group.
    pub pg: u32,
    /// All of them.
    pub all: IdSum,
    /// Those of which a fragment is not where the row says.
    pub astray: Vec<AstraySum>,
}

/// Stripes of which one fragment is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AstraySum {
    /// Which fragment.
    pub index: u8,
    /// On which disk instead; `None`: it is known to be missing.
    pub disk: Option<DiskId>,
    /// These stripes, which are among all of them.
    pub sum: IdSum,
}

/// `Query::ListStripes`: name the stripes of a profile whose ids begin with the same bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStripes {
    /// Of which profile.
    pub profile: ProfileId,
    /// The first bits of their ids, as in `CellName`.
    pub leading: u8,
    /// Of these slots of the group, each born in this closed epoch or before it; a slot that is named twice counts once.
    pub slots: Vec<(Slot, BirthEpoch)>,
    /// Where the last answer ended; its id begins with the same bits.
    pub after: Option<StripeId>,
}

/// The answer to `Query::ListStripes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedStripes {
    /// By slot and id, ascending; perhaps none where many others lie between.
    pub stripes: Vec<ListedStripe>,
    /// Where to go on; `None`: there are no more.
    pub next: Option<StripeId>,
}

/// A stripe that disks should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedStripe {
    /// Which.
    pub stripe: StripeId,
    /// Its fragments that are not where the row says.
    pub astray: Vec<Astray>,
}
