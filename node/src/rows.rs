//! The newest rows that a node knows, and where it asks for newer ones.
//!
//! Invariants: a known row version never goes back, also not by a restart (`FragmentStore` keeps the rows of each disk);
//! a table has all of its `2^pg_bits` rows or is not known.
//! Not here: planning rows (placement) and who counts under them (gateway, metadata).

use async_trait::async_trait;
use model::id::RowVersion;
use model::layout::{LayoutTable, PG_BITS_MAX, PG_BITS_MIN, Row};
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::node::{KnownRow, RowsUpdate};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;

/// Where a node asks for rows; the process's wiring implements it by a query to the control group.
#[async_trait]
pub trait RowSource: Send + Sync + 'static {
    /// The present table of `profile`, or its rows newer than what the node may know. May be dropped midway.
    ///
    /// Errors: the control group does not answer, or does not use the profile.
    async fn fetch(&self, profile: ProfileId) -> Result<RowsUpdate, Failure>;
}

/// Rows by profile.
#[derive(Clone, Debug, Default)]
pub struct KnownRows {
    tables: BTreeMap<ProfileId, LayoutTable>,
}

/// How a request's row version stands to what the node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the newest known.
    Newest,
    /// The node knows a newer row.
    Older(KnownRow),
    /// The node knows only older rows, or none.
    Newer,
}

/// Why an update was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRows(pub &'static str);

impl KnownRows {
    /// Compares `version` with the newest row known for `stripe`.
    #[must_use]
    pub fn standing(&self, profile: ProfileId, stripe: StripeId, version: RowVersion) -> Standing {
        let Some(table) = self.tables.get(&profile) else {
            return Standing::Newer;
        };
        let Some(row) = table.row(stripe) else {
            return Standing::Newer;
        };
        match version.cmp(&row.version) {
            std::cmp::Ordering::Equal => Standing::Newest,
            std::cmp::Ordering::Greater => Standing::Newer,
            std::cmp::Ordering::Less => Standing::Older(KnownRow {
                profile,
                pg_bits: table.pg_bits,
                pg: stripe.pg(table.pg_bits),
                row: row.clone(),
            }),
        }
    }

    /// Takes the newer rows of `update` and returns those it took, by placement group.
    ///
    /// Nothing is taken when a row is malformed or a table of another size does not come whole.
    pub fn take(&mut self, update: &RowsUpdate) -> Result<Vec<(u32, Row)>, BadRows> {
        let rows_wanted = check(update)?;
        match self.tables.get_mut(&update.profile) {
            Some(table) if table.pg_bits == update.pg_bits => {
                let mut taken = Vec::new();
                for (pg, row) in &update.rows {
                    let known = table
                        .rows
                        .get_mut(*pg as usize)
                        .ok_or(BadRows("a placement group is out of range"))?;
                    if row.version > known.version {
                        known.clone_from(row);
                        taken.push((*pg, row.clone()));
                    }
                }
                Ok(taken)
            }
            // Placement groups only ever split: a smaller table is an old one, and taking it would turn versions back.
            Some(table) if table.pg_bits > update.pg_bits => Ok(Vec::new()),
            _ => {
                let whole: BTreeMap<u32, Row> = update.rows.iter().cloned().collect();
                if whole.len() != rows_wanted || update.rows.len() != rows_wanted {
                    return Err(BadRows("a new table must come whole"));
                }
                let rows: Vec<Row> = whole.into_values().collect();
                self.tables.insert(
                    update.profile,
                    LayoutTable {
                        profile: update.profile,
                        pg_bits: update.pg_bits,
                        rows,
                    },
                );
                Ok(update.rows.clone())
            }
        }
    }

    /// Profile, `pg_bits` and sum of the row versions of each known table.
    #[must_use]
    pub fn summary(&self) -> Vec<(ProfileId, u8, u64)> {
        let sum = |table: &LayoutTable| table.rows.iter().map(|row| row.version.0).fold(0, u64::saturating_add);
        self.tables
            .values()
            .map(|table| (table.profile, table.pg_bits, sum(table)))
            .collect()
    }
}

fn check(update: &RowsUpdate) -> Result<usize, BadRows> {
    if !(PG_BITS_MIN..=PG_BITS_MAX).contains(&update.pg_bits) {
        return Err(BadRows("pg_bits is out of range"));
    }
    let rows_wanted = 1_usize << update.pg_bits;
    let fragments = update.profile.profile().fragments();
    for (pg, row) in &update.rows {
        if *pg as usize >= rows_wanted {
            return Err(BadRows("a placement group is out of range"));
        }
        if row.disks.len() != fragments {
            return Err(BadRows("a row does not have k+m disks"));
        }
    }
    Ok(rows_wanted)
}

#[cfg(test)]
mod tests {
    use super::{BadRows, KnownRows, Standing};
    use model::id::{DiskId, RowVersion};
    use model::layout::Row;
    use model::profile::ProfileId;
    use model::stripe::StripeId;
    use protocol::node::RowsUpdate;
    use std::collections::BTreeMap;

    fn row(version: u64) -> Row {
        Row {
            version: RowVersion(version),
            disks: (0..6).map(DiskId).collect(),
            filling_from: BTreeMap::new(),
        }
    }

    fn table(pg_bits: u8, version: u64) -> RowsUpdate {
        RowsUpdate {
            profile: ProfileId::Dev,
            pg_bits,
            rows: (0..1 << pg_bits).map(|pg| (pg, row(version))).collect(),
        }
    }

    #[test]
    fn versions_never_go_back_and_differences_touch_their_rows_alone() {
        let mut known = KnownRows::default();
        let (low, high) = (StripeId(0), StripeId(u128::MAX));
        assert_eq!(known.standing(ProfileId::Dev, low, RowVersion(1)), Standing::Newer);
        assert_eq!(known.take(&table(8, 2)).unwrap().len(), 256);
        let one = RowsUpdate {
            profile: ProfileId::Dev,
            pg_bits: 8,
            rows: vec![(0, row(5)), (255, row(1))],
        };
        assert_eq!(known.take(&one).unwrap().len(), 1);
        assert_eq!(known.standing(ProfileId::Dev, low, RowVersion(5)), Standing::Newest);
        assert!(
            matches!(known.standing(ProfileId::Dev, low, RowVersion(4)), Standing::Older(known) if known.row.version.0 == 5)
        );
        assert_eq!(known.standing(ProfileId::Dev, high, RowVersion(2)), Standing::Newest);
    }

    #[test]
    fn a_split_table_comes_whole_and_a_smaller_one_is_ignored() {
        let mut known = KnownRows::default();
        let part = RowsUpdate {
            profile: ProfileId::Dev,
            pg_bits: 8,
            rows: vec![(0, row(1))],
        };
        assert_eq!(known.take(&part), Err(BadRows("a new table must come whole")));
        known.take(&table(9, 4)).unwrap();
        assert_eq!(known.take(&table(8, 9)).unwrap().len(), 0);
        assert_eq!(
            known.standing(ProfileId::Dev, StripeId(0), RowVersion(4)),
            Standing::Newest
        );
        let short = RowsUpdate {
            profile: ProfileId::Dev,
            pg_bits: 9,
            rows: vec![(
                0,
                Row {
                    disks: vec![DiskId(1)],
                    ..row(9)
                },
            )],
        };
        assert!(known.take(&short).is_err());
    }
}
