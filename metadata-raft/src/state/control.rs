//! The control group's state: who takes part, the cluster map, the layout tables, slots and groups.
//!
//! Invariants: a disk's number belongs to its first node for ever; every disk's node is in the map; a table's rows only get
//! newer versions; the KEK and the first administrator are settled once.

use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, list, load, require, save};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::cluster::{ClusterMap, DiskInfo, Membership, NodeInfo};
use model::id::{ClusterId, GroupId, MapVersion, NodeId, Slot};
use model::layout::{Layout, LayoutTable, PG_BITS_MAX, PG_BITS_MIN, Row};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use protocol::codes::{self, Code};
use protocol::metadata::control::{
    ClusterSettings, ClusterState, ControlCommand, GroupInfo, MapChanged, NodeDisk, ProcessInfo, SlotRange,
};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{CommandAnswer, QueryAnswer};

/// A role's number in keys.
fn number_of(role: Role) -> u8 {
    match role {
        Role::Node => 1,
        Role::Metadata => 3,
        Role::Gateway => 4,
        Role::Admin => 5,
    }
}

fn cluster_key() -> Bytes {
    Key::of_group(keys::CLUSTER).done()
}

fn map_key() -> Bytes {
    Key::of_group(keys::CLUSTER_MAP).done()
}

fn table_key(profile: ProfileId) -> Bytes {
    Key::of_group(keys::LAYOUT_TABLE).u8(profile.number()).done()
}

fn slot_key(slot: Slot) -> Bytes {
    Key::of_group(keys::SLOT_GROUP).u16(slot.number()).done()
}

fn group_key(group: GroupId) -> Bytes {
    Key::of_group(keys::GROUP).u32(group.0).done()
}

fn process_key(id: ProcessId) -> Bytes {
    Key::of_group(keys::PROCESS)
        .u8(number_of(id.role))
        .u64(id.number)
        .done()
}

fn map(kv: &dyn KvRead) -> Outcome<ClusterMap> {
    Ok(load(kv, &map_key())?.unwrap_or_default())
}

fn change_map(tx: &mut Overlay<'_>, mut map: ClusterMap) -> Outcome<MapVersion> {
    let version = map
        .version
        .0
        .checked_add(1)
        .ok_or_else(|| broken("map versions are used up"))?;
    map.version = MapVersion(version);
    save(tx, map_key(), &map)?;
    Ok(map.version)
}

/// Applies a command to the control group. A flat table.
pub(crate) fn apply(tx: &mut Overlay<'_>, command: &ControlCommand) -> Outcome<CommandAnswer> {
    match command {
        ControlCommand::InitCluster { cluster, settings } => init(tx, *cluster, settings),
        ControlCommand::SetSettings(settings) => {
            let (cluster, known): (ClusterId, ClusterSettings) =
                load(&*tx, &cluster_key())?.ok_or(&codes::NOT_CONFIGURED)?;
            require(
                known.birth_epoch_ms == settings.birth_epoch_ms,
                &codes::MALFORMED_COMMAND,
            )?;
            save(tx, cluster_key(), &(cluster, settings.clone()))?;
            Ok(CommandAnswer::Done)
        }
        ControlCommand::RegisterProcess {
            id,
            address,
            region,
            zone,
        } => {
            require(id.role != Role::Node, &codes::MALFORMED_COMMAND)?;
            let info = ProcessInfo {
                id: *id,
                address: *address,
                region: region.clone(),
                zone: zone.clone(),
            };
            save(tx, process_key(*id), &info)?;
            Ok(CommandAnswer::Done)
        }
        ControlCommand::RegisterNode { node, info, disks } => register_node(tx, *node, info, disks),
        ControlCommand::AdoptKek { kek } => settle(tx, keys::KEK, kek, &codes::KEK_DIFFERS),
        ControlCommand::ClaimSetup { name } => settle(tx, keys::SETUP, name, &codes::SETUP_DONE),
        ControlCommand::SetNode { node, membership } => {
            let mut map = map(&*tx)?;
            let info = map.nodes.get_mut(node).ok_or(&codes::NODE_NOT_FOUND)?;
            set_membership(&mut info.membership, *membership)?;
            Ok(CommandAnswer::MapChanged(MapChanged {
                version: change_map(tx, map)?,
            }))
        }
        ControlCommand::SetDisk { disk, membership } => {
            let mut map = map(&*tx)?;
            let info = map.disks.get_mut(disk).ok_or(&codes::NODE_NOT_FOUND)?;
            set_membership(&mut info.membership, *membership)?;
            Ok(CommandAnswer::MapChanged(MapChanged {
                version: change_map(tx, map)?,
            }))
        }
        ControlCommand::SetTable { planned_from, table } => set_table(tx, *planned_from, table),
        ControlCommand::SetGroup { group, voters } => {
            save(
                tx,
                group_key(*group),
                &GroupInfo {
                    group: *group,
                    voters: voters.clone(),
                },
            )?;
            Ok(CommandAnswer::Done)
        }
        ControlCommand::AssignSlots { ranges } => assign(tx, ranges),
    }
}

fn init(tx: &mut Overlay<'_>, cluster: ClusterId, settings: &ClusterSettings) -> Outcome<CommandAnswer> {
    require(settings.birth_epoch_ms > 0, &codes::MALFORMED_COMMAND)?;
    match load::<(ClusterId, ClusterSettings)>(&*tx, &cluster_key())? {
        Some((known, _)) => require(known == cluster, &codes::CLUSTER_EXISTS)?,
        None => save(tx, cluster_key(), &(cluster, settings.clone()))?,
    }
    Ok(CommandAnswer::Done)
}

/// `Out` is final: what was declared lost never comes back under its number.
fn set_membership(known: &mut Membership, wanted: Membership) -> Outcome<()> {
    require(
        *known != Membership::Out || wanted == Membership::Out,
        &codes::MALFORMED_COMMAND,
    )?;
    *known = wanted;
    Ok(())
}

/// What is settled once: the first word stays, the same again is no error, another is refused with `code`.
fn settle(tx: &mut Overlay<'_>, table: u8, word: &str, code: &Code) -> Outcome<CommandAnswer> {
    require(!word.is_empty(), &codes::MALFORMED_COMMAND)?;
    let key = Key::of_group(table).done();
    match load::<String>(&*tx, &key)? {
        Some(known) => require(known == word, code)?,
        None => save(tx, key, &word)?,
    }
    Ok(CommandAnswer::Done)
}

/// A node that was known keeps what it is used for: a restart tells where it is now, the rest is the operator's.
fn register_node(tx: &mut Overlay<'_>, node: NodeId, info: &NodeInfo, disks: &[NodeDisk]) -> Outcome<CommandAnswer> {
    let mut map = map(&*tx)?;
    // All checks come before the first write: a node is taken in whole or not at all.
    for disk in disks {
        let known = map.disks.get(&disk.disk);
        require(known.is_none_or(|known| known.node == node), &codes::NUMBER_TAKEN)?;
    }
    let before = map.clone();
    let membership = map.nodes.get(&node).map_or(info.membership, |known| known.membership);
    let info = NodeInfo {
        membership,
        ..info.clone()
    };
    map.nodes.insert(node, info);
    for disk in disks {
        let known = map.disks.get(&disk.disk);
        let info = DiskInfo {
            node,
            weight_bytes: disk.weight_bytes,
            membership: known.map_or(Membership::Active, |known| known.membership),
        };
        map.disks.insert(disk.disk, info);
    }
    // Nothing new, no new map: a restart alone moves no rows.
    if map != before {
        change_map(tx, map)?;
    }
    Ok(CommandAnswer::Done)
}

fn set_table(tx: &mut Overlay<'_>, planned_from: MapVersion, table: &LayoutTable) -> Outcome<CommandAnswer> {
    let map = map(&*tx)?;
    require(map.version == planned_from, &codes::STALE_MAP)?;
    let is_sized = (PG_BITS_MIN..=PG_BITS_MAX).contains(&table.pg_bits) && table.rows.len() == 1_usize << table.pg_bits;
    require(
        is_sized && table.rows.iter().all(|row| is_row(row, table.profile, &map)),
        &codes::MALFORMED_COMMAND,
    )?;
    let key = table_key(table.profile);
    if let Some((_, old)) = load::<(MapVersion, LayoutTable)>(&*tx, &key)? {
        require(table.pg_bits >= old.pg_bits, &codes::STALE_MAP)?;
        let split_bits = table.pg_bits - old.pg_bits;
        for (pg, row) in table.rows.iter().enumerate() {
            let before = old
                .rows
                .get(pg >> split_bits)
                .ok_or_else(|| broken("a table lacks a row"))?;
            let is_kept = split_bits == 0 && row == before;
            require(is_kept || row.version > before.version, &codes::STALE_MAP)?;
        }
    }
    save(tx, key, &(planned_from, table.clone()))?;
    Ok(CommandAnswer::MapChanged(MapChanged { version: map.version }))
}

fn is_row(row: &Row, profile: ProfileId, map: &ClusterMap) -> bool {
    let mut disks = row.disks.clone();
    disks.sort_unstable();
    disks.dedup();
    let fragments = profile.profile().fragments();
    row.disks.len() == fragments
        && disks.len() == fragments
        && disks.iter().all(|disk| map.disks.contains_key(disk))
        && row.filling_from.len() <= usize::from(profile.profile().m)
}

fn assign(tx: &mut Overlay<'_>, ranges: &[SlotRange]) -> Outcome<CommandAnswer> {
    for range in ranges {
        require(range.first <= range.last, &codes::MALFORMED_COMMAND)?;
        require(tx.get(&group_key(range.group))?.is_some(), &codes::NOT_FOUND)?;
        for slot in (range.first.number()..=range.last.number()).filter_map(Slot::new) {
            // Another group would adopt the slot empty while its owner goes on.
            let owner: Option<GroupId> = load(tx, &slot_key(slot))?;
            require(owner.is_none_or(|owner| owner == range.group), &codes::SLOT_OWNED)?;
            save(tx, slot_key(slot), &range.group)?;
        }
    }
    Ok(CommandAnswer::Done)
}

fn slots(kv: &dyn KvRead) -> Outcome<Vec<SlotRange>> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for (key, group) in list::<GroupId>(kv, &Key::of_group(keys::SLOT_GROUP).done(), None, usize::MAX)? {
        let number = key.last_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
        let slot = number
            .and_then(Slot::new)
            .ok_or_else(|| broken("a slot has no number"))?;
        match ranges.last_mut() {
            Some(last) if last.group == group && last.last.number() + 1 == slot.number() => last.last = slot,
            _ => ranges.push(SlotRange {
                first: slot,
                last: slot,
                group,
            }),
        }
    }
    Ok(ranges)
}

fn values<T: serde::de::DeserializeOwned>(kv: &dyn KvRead, table: u8) -> Outcome<Vec<T>> {
    let rows = list::<T>(kv, &Key::of_group(table).done(), None, usize::MAX)?;
    Ok(rows.into_iter().map(|(_, value)| value).collect())
}

/// Answers a query to the control group.
pub(crate) fn query(kv: &dyn KvRead, query: &ControlQuery) -> Outcome<QueryAnswer> {
    match query {
        ControlQuery::Cluster => {
            let (cluster, settings): (ClusterId, ClusterSettings) =
                load(kv, &cluster_key())?.ok_or(&codes::NOT_CONFIGURED)?;
            Ok(QueryAnswer::Cluster(ClusterState {
                cluster,
                settings,
                map: map(kv)?,
            }))
        }
        ControlQuery::Layout(wanted) => {
            let mut layout = Layout::default();
            for (planned_from, table) in values::<(MapVersion, LayoutTable)>(kv, keys::LAYOUT_TABLE)? {
                if wanted.is_none_or(|profile| profile == table.profile) {
                    layout.planned_from = layout.planned_from.max(planned_from);
                    layout.tables.insert(table.profile, table);
                }
            }
            Ok(QueryAnswer::Layout(layout))
        }
        ControlQuery::Slots => Ok(QueryAnswer::Slots(slots(kv)?)),
        ControlQuery::Processes => Ok(QueryAnswer::Processes(values(kv, keys::PROCESS)?)),
        ControlQuery::Groups => Ok(QueryAnswer::Groups(values(kv, keys::GROUP)?)),
    }
}
