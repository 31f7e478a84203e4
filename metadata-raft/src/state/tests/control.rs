//! The control group.

use super::code;
use crate::state::State;
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::Kv;
use model::cluster::{DiskInfo, Membership, NodeInfo};
use model::id::{CONTROL_GROUP, ClusterId, DiskId, GroupId, MapVersion, NodeId, RaftId, RowVersion, Slot};
use model::layout::{LayoutTable, Row};
use model::process::Role;
use model::profile::ProfileId;
use model::time::WallTime;
use protocol::frame;
use protocol::metadata::control::{ClusterSettings, ControlCommand, Registered, SlotRange};
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

    fn node(&self, install: u128) -> Registered {
        let address = "127.0.0.1:1".parse().unwrap();
        let info = NodeInfo {
            region: "r".into(),
            zone: "z".into(),
            address,
            membership: Membership::Active,
        };
        match self.run(ControlCommand::RegisterNode { install, info }).unwrap() {
            CommandAnswer::Registered(registered) => registered,
            other => panic!("{other:?}"),
        }
    }

    fn disk(&self, install: u128, node: u32) -> Result<CommandAnswer, Failure> {
        let info = DiskInfo {
            node: NodeId(node),
            weight_bytes: 1 << 30,
            membership: Membership::Active,
        };
        self.run(ControlCommand::RegisterDisk { install, info })
    }

    fn version(&self) -> MapVersion {
        match self.ask(ControlQuery::Cluster).unwrap() {
            QueryAnswer::Cluster(cluster) => cluster.map.version,
            other => panic!("{other:?}"),
        }
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

#[test]
fn numbers_are_given_out_once_and_a_restart_keeps_its_own() {
    let control = cluster();
    assert_eq!(control.node(10), Registered::Node(NodeId(1)));
    assert_eq!(control.node(11), Registered::Node(NodeId(2)));
    let version = control.version();
    assert_eq!(control.node(10), Registered::Node(NodeId(1)));
    assert_eq!(control.version(), version, "nothing new, no new map");
    assert_eq!(code(control.disk(1, 9)), "node_not_found");
    let out = ControlCommand::SetNode {
        node: NodeId(2),
        membership: Membership::Out,
    };
    control.run(out).unwrap();
    let back = ControlCommand::SetNode {
        node: NodeId(2),
        membership: Membership::Active,
    };
    assert_eq!(code(control.run(back)), "malformed_command");
    assert_eq!(control.node(12), Registered::Node(NodeId(3)));
    let process = |install| ControlCommand::RegisterProcess {
        install,
        role: Role::Metadata,
        address: "127.0.0.1:2".parse().unwrap(),
        region: "r".into(),
        zone: "z".into(),
    };
    for (install, number) in [(1, 1), (2, 2), (1, 1)] {
        let CommandAnswer::Registered(Registered::Process(id)) = control.run(process(install)).unwrap() else {
            panic!()
        };
        assert_eq!((id.role, id.number), (Role::Metadata, number));
    }
}

#[test]
fn a_table_is_taken_whole_from_the_present_map_and_its_rows_only_get_newer() {
    let control = cluster();
    control.node(1);
    for disk in 1..=4 {
        control.disk(disk, 1).unwrap();
    }
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
fn slots_go_to_known_groups_in_ranges() {
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
    assign(vec![range(0, 4095, 1)]).unwrap();
    assign(vec![range(10, 20, 2)]).unwrap();
    let QueryAnswer::Slots(slots) = control.ask(ControlQuery::Slots).unwrap() else {
        panic!()
    };
    assert_eq!(slots, [range(0, 9, 1), range(10, 20, 2), range(21, 4095, 1)]);
}
