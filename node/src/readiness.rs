//! Whether a node can do its work now, for `/readyz`.
//!
//! A service exists only after its disks were opened and their journals replayed, so what is left to ask is which disks there are:
//! one that works is enough, and the others are named. A node without any working disk runs, so that it can say so here.
//! Not here: how disks are opened (`open.rs`), what clients are told of them (`service.rs`).

use crate::service::NodeService;
use async_trait::async_trait;
use daemon::status_port::Readiness;
use protocol::node::{DiskState, DiskStatus};

#[async_trait]
impl Readiness for NodeService {
    async fn ready(&self) -> Result<String, String> {
        let service = self.clone();
        // The status of a disk looks into its index and asks the file system for space.
        let status = tokio::task::spawn_blocking(move || service.status()).await;
        judge(
            &status
                .map_err(|panic| format!("the disks cannot be looked at: {panic}"))?
                .disks,
        )
    }
}

fn judge(disks: &[DiskStatus]) -> Result<String, String> {
    let complaints: Vec<String> = disks.iter().filter_map(complaint).collect();
    let has_one = disks.iter().any(|disk| !matches!(disk.state, DiskState::Missing(_)));
    if has_one {
        Ok(complaints.join("; "))
    } else {
        Err(format!("no disk works: {}", complaints.join("; ")))
    }
}

fn complaint(disk: &DiskStatus) -> Option<String> {
    let number = disk.disk;
    match &disk.state {
        DiskState::Ready => None,
        DiskState::Full => Some(format!("disk {number} is full")),
        DiskState::ReadOnly(why) => Some(format!("disk {number} is read-only: {why}")),
        DiskState::Missing(why) => Some(format!("disk {number} is missing: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use model::id::DiskId;
    use protocol::node::{DiskCounters, DiskState, DiskStatus};

    fn disks(states: &[DiskState]) -> Vec<DiskStatus> {
        let disk = |(number, state): (u32, &DiskState)| DiskStatus {
            disk: DiskId(number),
            state: state.clone(),
            total_bytes: 0,
            free_bytes: 0,
            used_bytes: 0,
            living_bytes: 0,
            fragments: 0,
            damaged_total: 0,
            damaged: Vec::new(),
            counters: DiskCounters::default(),
        };
        (1..).zip(states).map(disk).collect()
    }

    #[test]
    fn one_working_disk_is_enough_and_the_others_are_named() {
        let missing = |why: &str| DiskState::Missing(why.to_owned());
        let both = disks(&[DiskState::Ready, DiskState::Full]);
        assert_eq!(judge(&both), Ok("disk 2 is full".to_owned()));
        let one = disks(&[missing("not mounted"), DiskState::ReadOnly("a sync failed".to_owned())]);
        let note = "disk 1 is missing: not mounted; disk 2 is read-only: a sync failed";
        assert_eq!(judge(&one), Ok(note.to_owned()));
        let none = disks(&[missing("not mounted"), missing("another cluster's")]);
        let why = "no disk works: disk 1 is missing: not mounted; disk 2 is missing: another cluster's";
        assert_eq!(judge(&none), Err(why.to_owned()));
        assert_eq!(judge(&disks(&[DiskState::Ready])), Ok(String::new()));
    }
}
