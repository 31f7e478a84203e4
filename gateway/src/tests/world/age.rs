//! The age of the group of drives, which its leader alone moves on, and the sweeps that go by it.
//!
//! Invariant: a span is told in the steps that one command may take, as a leader tells them.
//! Not here: the gateway's own clock (`World::clock`), which moves no age.

use super::World;
use model::id::GroupId;
use protocol::metadata::Command;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::group::{AGE_STEP_MS_MAX, GroupCommand};
use protocol::metadata::upload::UploadCommand;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);

/// Who leads the group of drives, as far as time goes. One for each world.
pub(in crate::tests) struct Leader<'w> {
    world: &'w World,
    led_ms: u64,
}

impl<'w> Leader<'w> {
    /// A leader whose term begins now.
    pub(in crate::tests) fn of(world: &'w World) -> Self {
        Self { world, led_ms: 0 }
    }

    /// Leads for so long, and the group ages by it.
    pub(in crate::tests) fn lead(&mut self, span: Duration) {
        let end = self.led_ms + span.as_millis() as u64;
        while self.led_ms < end {
            self.led_ms = end.min(self.led_ms + AGE_STEP_MS_MAX);
            let advance = GroupCommand::Advance {
                term: 1,
                led_ms: self.led_ms,
            };
            self.world.replica.command(GROUP, Command::Group(advance));
        }
    }

    /// Drops changes, rows of request ids and sessions of the drive that are too old.
    pub(in crate::tests) fn sweep(&self) {
        let drive = self.world.caller.home;
        for command in [
            Command::Drive(DriveCommand::SweepFeed { drive }),
            Command::Drive(DriveCommand::SweepRequests { drive }),
            Command::Upload(UploadCommand::SweepSessions { drive }),
        ] {
            self.world.replica.command(GROUP, command);
        }
    }
}
