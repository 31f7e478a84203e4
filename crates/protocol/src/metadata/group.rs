//! Commands to a drive group as a whole: its slots, its time, its settings and the row versions that it was told.
//!
//! Invariant: a slot's age is the group's counter plus the slot's offset, so it never jumps when the slot moves.

use model::id::{DiskId, RowVersion, Slot};
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::Age;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Age grows by at most this much with one age command.
pub const AGE_STEP_MS_MAX: u64 = 60_000;
/// Age grows by at most this many birth epochs with one age command.
pub const AGE_STEP_EPOCHS_MAX: u64 = 8;

/// A command to a drive group as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupCommand {
    /// Sets what the group takes from the cluster's settings; the birth epoch's length can be set once.
    Configure(GroupSettings),
    /// Takes over slots, each with its age (zero for one never used).
    AdoptSlots {
        /// Slots that the group does not own yet; owned ones keep their age.
        slots: Vec<AdoptedSlot>,
    },
    /// Moves the group's time on.
    Advance {
        /// The leader's term.
        term: u64,
        /// Milliseconds that it has led in this term, by its monotonic clock.
        led_ms: u64,
    },
    /// Tells the row versions of a profile; older ones than known are passed by.
    TellRows {
        /// Whose rows.
        profile: ProfileId,
        /// `versions.len() == 2^pg_bits`.
        pg_bits: u8,
        /// By placement group.
        versions: Vec<RowVersion>,
    },
    /// Takes or prolongs the lease under which one gateway at a time removes stripes; another's living one is `lease_taken`.
    TakeLease {
        /// The gateway's number; its own older lease is replaced.
        holder: u64,
        /// A random number for this lease.
        lease: u64,
        /// How long it lasts by the group's counter, at most `LEASE_MS_MAX`.
        span_ms: u64,
    },
    /// Forgets stripes without a living byte after their fragments were removed; unknown ones are passed by.
    ForgetStripes {
        /// The sender's; another is `lease_lost`.
        lease: u64,
        /// Stripes and disks not told together at most 1,000.
        stripes: Vec<ForgottenStripe>,
    },
    /// Forgets that a disk must be told of these removed stripes: it was, or it is out of the cluster.
    ForgetUntold {
        /// The sender's; another is `lease_lost`.
        lease: u64,
        /// Which disk.
        disk: DiskId,
        /// At most 1,000.
        stripes: Vec<(ProfileId, StripeId)>,
    },
}

/// The longest that a lease may be asked for.
pub const LEASE_MS_MAX: u64 = 600_000;

/// A stripe whose fragments were removed wherever somebody could be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenStripe {
    /// Its scheme.
    pub profile: ProfileId,
    /// Which.
    pub stripe: StripeId,
    /// Disks that may hold a fragment of it and could not be told.
    pub untold: Vec<DiskId>,
}

/// Who removes stripes of a group at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The gateway's number.
    pub holder: u64,
    /// The lease's own number.
    pub lease: u64,
    /// What is left of it by the group's counter, in milliseconds; 0 when it is over.
    pub left_ms: u64,
}

/// What a drive group takes from the cluster's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// Length of a birth epoch in milliseconds.
    pub birth_epoch_ms: u64,
    /// How long a block without reference stays proposable, in aged milliseconds.
    pub block_grace_ms: u64,
}

impl GroupSettings {
    /// How long a block without reference stays proposable, by the slot's age.
    #[must_use]
    pub fn block_grace(&self) -> Duration {
        Duration::from_millis(self.block_grace_ms)
    }
}

/// A slot that a group takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedSlot {
    /// Which.
    pub slot: Slot,
    /// Its age at this moment.
    pub age: Age,
}

/// A drive group as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// The group's own counter, in milliseconds.
    pub counter_ms: u64,
    /// Its settings; `None` before `Configure`.
    pub settings: Option<GroupSettings>,
    /// Slots that it owns, ascending.
    pub slots: Vec<Slot>,
    /// Profiles whose rows it was told, with the greatest row version of each.
    pub rows: Vec<(ProfileId, RowVersion)>,
}
