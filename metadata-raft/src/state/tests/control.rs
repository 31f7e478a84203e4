//! The control group.

use super::code;
use crate::state::State;
use bytes::Bytes;
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::{Kv, KvRead, Scan};
use model::cluster::{ClusterMap, Membership, NodeInfo};
use model::id::{CONTROL_GROUP, ClusterId, DiskId, GroupId, MapVersion, NodeId, RaftId, RowVersion, Slot};
use model::layout::{LayoutTable, Row};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::time::WallTime;
use protocol::frame;
use protocol::metadata::control::{ClusterSettings, ControlCommand, NodeDisk, SlotRange};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, CommandAnswer, Envelope, Query, QueryAnswer, Reply};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;

struct Control(MemoryKv);

impl Control {
    fn run(&self, command: ControlCommand) -> Result<CommandAnswer, Failure> {
        let envelope = Envelope {
            request_id: None,
            wall: WallTime(1),
            command: Command::Control(command),
        };
        let mut overlay = Overlay::new(&self.0);
        let bytes = State::new(CONTROL_GROUP)
            .apply(&mut overlay, 1, &frame::encode(&envelope).unwrap())
            .unwrap();
        self.0.write(overlay.into_batch()).unwrap();
        Reply::from_bytes(&bytes).unwrap().result
    }

    fn ask(&self, query: ControlQuery) -> Result<QueryAnswer, Failure> {
        let bytes = frame::encode(&Query::Control(query)).unwrap();
        Reply::from_bytes(&State::new(CONTROL_GROUP).query(&self.0, &bytes).unwrap())
            .unwrap()
            .result
    }

    /// Registers node `node` at `port` with these disks.
    fn node(&self, node: u32, port: u16, disks: &[u32]) -> Result<CommandAnswer, Failure> {
        let info = NodeInfo {
            region: "r".into(),
            zone: "z".into(),
            address: ([127, 0, 0, 1], port).into(),
            membership: Membership::Active,
        };
        let disks = disks.iter().map(|disk| NodeDisk {
            disk: DiskId(*disk),
            weight_bytes: 1 << 30,
        });
        self.run(ControlCommand::RegisterNode {
            node: NodeId(node),
            info,
            disks: disks.collect(),
        })
    }

    fn map(&self) -> ClusterMap {
        match self.ask(ControlQuery::Cluster).unwrap() {
            QueryAnswer::Cluster(cluster) => cluster.map,
            other => panic!("{other:?}"),
        }
    }

    fn version(&self) -> MapVersion {
        self.map().version
    }
}

fn cluster() -> Control {
    let control = Control(MemoryKv::new());
    let settings = ClusterSettings {
        default_profile: ProfileId::Solo,
        default_quota_bytes: 1,
        birth_epoch_ms: 2000,
        block_grace_ms: 60_000,
    };
    let init = |cluster| ControlCommand::InitCluster {
        cluster: ClusterId(cluster),
        settings: settings.clone(),
    };
    control.run(init(5)).unwrap();
    control.run(init(5)).unwrap();
    assert_eq!(code(control.run(init(6))), "cluster_exists");
    control
}

/// Every row of a control group with at least one in each of its tables.
pub(super) fn furnished() -> Vec<(Bytes, Bytes)> {
    let control = cluster();
    control.node(1, 1, &[1, 2, 3]).unwrap();
    control.node(2, 2, &[4]).unwrap();
    let node = NodeId(2);
    let membership = Membership::Draining;
    control.run(ControlCommand::SetNode { node, membership }).unwrap();
    let rows = (0..256_u64).map(|run| Row {
        version: RowVersion(1 + run % 3),
        disks: vec![DiskId(1), DiskId(2), DiskId(3 + u32::from(run % 2 == 0))],
        filling_from: BTreeMap::new(),
    });
    let mut rows: Vec<Row> = rows.collect();
    rows[7].filling_from.insert(2, DiskId(3));
    let table = LayoutTable {
        profile: ProfileId::Solo,
        pg_bits: 8,
        rows,
    };
    let planned_from = control.version();
    control.run(ControlCommand::SetTable { planned_from, table }).unwrap();
    for (group, voters) in [(1, vec![RaftId(1)]), (300, vec![RaftId(1), RaftId(2), RaftId(300)])] {
        let group = GroupId(group);
        control.run(ControlCommand::SetGroup { group, voters }).unwrap();
    }
    let slot = |number| Slot::new(number).unwrap();
    let range = |first, last, group| SlotRange {
        first: slot(first),
        last: slot(last),
        group: GroupId(group),
    };
    let ranges = vec![range(0, 2, 1), range(4090, 4095, 300)];
    control.run(ControlCommand::AssignSlots { ranges }).unwrap();
    for (role, address) in [(Role::Metadata, "127.0.0.1:7001"), (Role::Gateway, "[2001:db8::1]:443")] {
        let process = ControlCommand::RegisterProcess {
            id: ProcessId { role, number: 1 },
            address: address.parse().unwrap(),
            region: "north".into(),
            zone: "a".into(),
        };
        control.run(process).unwrap();
    }
    control.run(ControlCommand::AdoptKek { kek: "2026-a".into() }).unwrap();
    control.run(ControlCommand::ClaimSetup { name: "ann".into() }).unwrap();
    control.0.scan(&Scan::prefix(b"", usize::MAX)).unwrap()
}

/// shows: F6 scale=1/3
#[test]
fn a_disks_number_belongs_to_its_first_node_and_a_restart_changes_only_the_address() {
    let control = cluster();
    control.node(1, 1, &[1, 2]).unwrap();
    control.node(2, 2, &[3]).unwrap();
    let version = control.version();
    control.node(1, 1, &[1, 2]).unwrap();
    control.node(1, 1, &[2]).unwrap();
    assert_eq!(control.version(), version, "nothing new, no new map");
    assert_eq!(control.map().disks.len(), 3, "a disk that is not seen stays known");
    control.node(1, 9, &[1]).unwrap();
    assert_eq!(control.map().nodes[&NodeId(1)].address.port(), 9);
    // A number of another node is refused, and nothing of the command happens.
    let version = control.version();
    assert_eq!(code(control.node(2, 5, &[4, 1])), "number_taken");
    assert_eq!(code(control.node(3, 5, &[3])), "number_taken");
    assert_eq!(control.version(), version);
    assert_eq!(control.map().node_of(DiskId(1)), Some(NodeId(1)));
}

#[test]
fn out_is_final_also_when_the_node_registers_again() {
    let control = cluster();
    control.node(2, 1, &[1]).unwrap();
    let set = |membership| {
        let node = NodeId(2);
        control.run(ControlCommand::SetNode { node, membership })
    };
    set(Membership::Out).unwrap();
    assert_eq!(code(set(Membership::Active)), "malformed_command");
    control.node(2, 7, &[1]).unwrap();
    assert_eq!(control.map().nodes[&NodeId(2)].membership, Membership::Out);
}

#[test]
fn processes_keep_their_number_and_tell_newer_addresses() {
    let control = cluster();
    let process = |role, number, port: u16| {
        control.run(ControlCommand::RegisterProcess {
            id: ProcessId { role, number },
            address: ([127, 0, 0, 1], port).into(),
            region: "r".into(),
            zone: "z".into(),
        })
    };
    for port in [2, 3] {
        process(Role::Metadata, 1, port).unwrap();
    }
    process(Role::Gateway, 1, 4).unwrap();
    assert_eq!(code(process(Role::Node, 1, 5)), "malformed_command");
    let QueryAnswer::Processes(known) = control.ask(ControlQuery::Processes).unwrap() else {
        panic!()
    };
    let known: Vec<_> = known.iter().map(|info| (info.id.role, info.address.port())).collect();
    assert_eq!(known, [(Role::Metadata, 3), (Role::Gateway, 4)]);
}

#[test]
fn the_kek_and_the_first_administrator_are_settled_once() {
    let control = cluster();
    let kek = |kek: &str| control.run(ControlCommand::AdoptKek { kek: kek.into() });
    let setup = |name: &str| control.run(ControlCommand::ClaimSetup { name: name.into() });
    for _ in 0..2 {
        assert_eq!(kek("a"), Ok(CommandAnswer::Done));
        assert_eq!(setup("ann"), Ok(CommandAnswer::Done));
    }
    assert_eq!(code(kek("b")), "kek_differs");
    assert_eq!(code(setup("bob")), "setup_done");
    assert_eq!(code(setup("")), "malformed_command");
}

#[test]
fn a_table_is_taken_whole_from_the_present_map_and_its_rows_only_get_newer() {
    let control = cluster();
    control.node(1, 1, &[1, 2, 3, 4]).unwrap();
    let rows = |version, last| {
        let disks = vec![DiskId(1), DiskId(2), DiskId(last)];
        vec![
            Row {
                version: RowVersion(version),
                disks,
                filling_from: BTreeMap::new()
            };
            256
        ]
    };
    let set = |planned_from, rows| {
        let table = LayoutTable {
            profile: ProfileId::Solo,
            pg_bits: 8,
            rows,
        };
        control.run(ControlCommand::SetTable { planned_from, table })
    };
    let now = control.version();
    assert_eq!(code(set(MapVersion(0), rows(1, 3))), "stale_map");
    assert_eq!(code(set(now, rows(1, 2))), "malformed_command");
    assert_eq!(code(set(now, rows(1, 9))), "malformed_command");
    set(now, rows(1, 3)).unwrap();
    set(now, rows(1, 3)).unwrap();
    assert_eq!(code(set(now, rows(1, 4))), "stale_map");
    set(now, rows(2, 4)).unwrap();
    let QueryAnswer::Layout(layout) = control.ask(ControlQuery::Layout(None)).unwrap() else {
        panic!()
    };
    assert_eq!(layout.tables[&ProfileId::Solo].rows[255].version, RowVersion(2));
}

#[test]
fn slots_go_to_known_groups_in_ranges_and_never_from_one_to_another() {
    let control = cluster();
    let slot = |number| Slot::new(number).unwrap();
    let range = |first, last, group| SlotRange {
        first: slot(first),
        last: slot(last),
        group: GroupId(group),
    };
    let assign = |ranges| control.run(ControlCommand::AssignSlots { ranges });
    assert_eq!(code(assign(vec![range(0, 4095, 1)])), "not_found");
    for group in [1, 2] {
        control
            .run(ControlCommand::SetGroup {
                group: GroupId(group),
                voters: vec![RaftId(1)],
            })
            .unwrap();
    }
    assign(vec![range(0, 9, 1), range(21, 4095, 1)]).unwrap();
    assign(vec![range(10, 20, 2)]).unwrap();
    assign(vec![range(10, 20, 2)]).unwrap();
    assert_eq!(code(assign(vec![range(10, 20, 2), range(0, 0, 2)])), "slot_owned");
    assert_eq!(code(assign(vec![range(20, 21, 1)])), "slot_owned");
    let QueryAnswer::Slots(slots) = control.ask(ControlQuery::Slots).unwrap() else {
        panic!()
    };
    assert_eq!(slots, [range(0, 9, 1), range(10, 20, 2), range(21, 4095, 1)]);
}
