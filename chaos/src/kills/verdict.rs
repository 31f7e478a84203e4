//! What a run of kills and pauses must come to: as many rounds as were asked for, writes that stood still for no longer than is allowed
//! in any group that lost its leader, several such groups where there are enough of them, reads at every gateway of which none was stale,
//! and pauses that caught uploads.
//!
//! Pure. Not here: how the rounds are run (`kills`).

use super::register::Reads;
use super::{Arguments, Blow, Ran, Round, sorted};
use anyhow::ensure;
use std::time::Duration;

/// How long writes may stand still.
#[derive(Clone, Copy)]
struct Allowed {
    /// After 19 of 20 kills.
    kill_mostly: Duration,
    kill: Duration,
    pause: Duration,
}

/// QAS-005, by the timing of the replicas. What a pause may cost far away is not asked there: as much as a kill.
const LAN: Allowed = Allowed {
    kill_mostly: Duration::from_secs(2),
    kill: Duration::from_secs(4),
    pause: Duration::from_secs(5),
};
const WAN: Allowed = Allowed {
    kill_mostly: Duration::from_secs(5),
    kill: Duration::from_secs(9),
    pause: Duration::from_secs(9),
};

impl Allowed {
    fn most(self, blow: Blow) -> Duration {
        match blow {
            Blow::Kill => self.kill,
            Blow::Pause => self.pause,
        }
    }
}

/// Of more groups than these some process leads two once leaders are spread, and that one is struck.
const REPLICAS: u32 = 3;

/// A gateway, the leader, a node.
const LONG_PAUSES: usize = 3;

/// Holds what was run against what was asked and against the limits; an error says what is missing or too much.
///
/// shows: QAS-005, CMP-replica side=failover
pub(super) fn judge(ran: &Ran, arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.rounds() > 0 || arguments.long_pause > 0,
        "nothing was asked for: give --kills, --pauses or --long-pause"
    );
    for (blow, asked) in [(Blow::Kill, arguments.kills), (Blow::Pause, arguments.pauses)] {
        let made = sorted(&ran.rounds, blow).len();
        ensure!(made == asked, "{made} rounds of {} of {asked} were run", blow.word());
    }
    if arguments.rounds() > 0 {
        judge_rounds(&ran.rounds, if arguments.wan { WAN } else { LAN })?;
        judge_groups(&ran.rounds, arguments.groups)?;
        judge_reads(&ran.reads)?;
    }
    let asked = if arguments.long_pause > 0 { LONG_PAUSES } else { 0 };
    ensure!(
        ran.long.len() == asked,
        "{} of {asked} long pauses were run",
        ran.long.len()
    );
    for (victim, shown) in &ran.long {
        ensure!(
            shown.caught > 0 && shown.in_commit > 0 && shown.meanwhile > 0,
            "the pause of {victim} proved nothing: {shown:?}"
        );
    }
    Ok(())
}

fn judge_rounds(rounds: &[Round], allowed: Allowed) -> anyhow::Result<()> {
    ensure!(!rounds.is_empty(), "no round was run");
    let (kills, pauses) = (sorted(rounds, Blow::Kill), sorted(rounds, Blow::Pause));
    let slow = kills.iter().filter(|time| **time > allowed.kill_mostly).count();
    ensure!(
        slow * 20 <= kills.len(),
        "{slow} of {} kills stopped writes for longer than {:?}; one of 20 may",
        kills.len(),
        allowed.kill_mostly
    );
    for (times, blow) in [(kills, Blow::Kill), (pauses, Blow::Pause)] {
        let (longest, most) = (times.last().copied().unwrap_or_default(), allowed.most(blow));
        ensure!(
            longest <= most,
            "writes stood still for {longest:?}, {most:?} are allowed"
        );
    }
    for round in rounds {
        let most = allowed.most(round.blow);
        for struck in &round.struck {
            ensure!(
                struck.last <= most,
                "the last of {} writes to group {} that waited was answered after {:?}, {most:?} are allowed",
                struck.waited,
                struck.group,
                struck.last
            );
        }
    }
    Ok(())
}

fn judge_groups(rounds: &[Round], groups: u32) -> anyhow::Result<()> {
    let fewest = if groups > REPLICAS { 2 } else { 1 };
    for (number, round) in rounds.iter().enumerate() {
        ensure!(
            round.struck.len() >= fewest,
            "round {number} cost {} of {groups} groups their leader, {fewest} at least were to lose it",
            round.struck.len()
        );
    }
    Ok(())
}

fn judge_reads(reads: &Reads) -> anyhow::Result<()> {
    ensure!(reads.faults.is_empty(), "{}", reads.faults.join("\n"));
    ensure!(reads.by_gateway.len() > 1, "only one gateway was read at: {reads:?}");
    for (gateway, answers) in &reads.by_gateway {
        ensure!(*answers > 0, "nothing was read at {gateway}");
    }
    ensure!(reads.at_followers > 0.0, "no follower answered: {reads:?}");
    Ok(())
}

/// What a run that was judged has shown, in a line.
pub(super) fn passed(ran: &Ran, arguments: &Arguments) -> String {
    let mut parts = Vec::new();
    for (blow, count) in [(Blow::Kill, arguments.kills), (Blow::Pause, arguments.pauses)] {
        if count > 0 {
            parts.push(format!("{count} times {}", blow.word()));
        }
    }
    if !ran.rounds.is_empty() {
        let lost: usize = ran.rounds.iter().map(|round| round.struck.len()).sum();
        parts.push(format!("{lost} leaders lost by {} groups", arguments.groups));
        let (answers, version) = (ran.reads.count(), ran.reads.version);
        parts.push(format!("{answers} reads of {version} versions, none of them stale"));
    }
    if !ran.long.is_empty() {
        let (count, span) = (ran.long.len(), arguments.long_pause);
        parts.push(format!("{count} processes stopped for {span} s each"));
    }
    format!("passed: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Allowed, LAN, judge, judge_groups, judge_reads, judge_rounds, passed};
    use crate::kills::register::Reads;
    use crate::kills::{Arguments, Blow, Ran, Round, Struck};
    use crate::long_pause::Shown;
    use clap::Parser as _;
    use std::time::Duration;

    fn struck(group: u32, first_ms: u64, last_ms: u64) -> Struck {
        Struck {
            group,
            successor: "metadata-2".to_owned(),
            first: Duration::from_millis(first_ms),
            last: Duration::from_millis(last_ms),
            waited: 1,
            names: Vec::new(),
        }
    }

    fn round_of(blow: Blow, struck: Vec<Struck>) -> Round {
        Round {
            blow,
            victim: "metadata-1".to_owned(),
            struck,
        }
    }

    fn round(blow: Blow, first_ms: u64) -> Round {
        round_of(blow, vec![struck(1, first_ms, first_ms)])
    }

    fn reads() -> Reads {
        Reads {
            by_gateway: vec![("gateway-1".to_owned(), 7), ("gateway-2".to_owned(), 8)],
            version: 5,
            at_followers: 1.0,
            faults: Vec::new(),
        }
    }

    fn arguments(text: &str) -> Arguments {
        Arguments::parse_from(std::iter::once("kills").chain(text.split_whitespace()))
    }

    fn said(judged: anyhow::Result<()>) -> String {
        judged.map_or_else(|error| error.to_string(), |()| "passed".to_owned())
    }

    #[test]
    fn of_twenty_kills_one_may_take_longer_and_none_longer_than_the_most() {
        let kills = |times: &[u64]| {
            let quick = std::iter::repeat_n(500, 20 - times.len()).chain(times.iter().copied());
            quick.map(|time| round(Blow::Kill, time)).collect::<Vec<Round>>()
        };
        let judged = |rounds: &[Round], allowed: Allowed| said(judge_rounds(rounds, allowed));
        assert_eq!(judged(&kills(&[]), LAN), "passed");
        assert_eq!(judged(&kills(&[3_999]), LAN), "passed");
        assert!(judged(&kills(&[2_001, 2_001]), LAN).contains("2 of 20 kills"));
        assert!(judged(&kills(&[4_001]), LAN).contains("stood still"));
        assert_eq!(judged(&[round(Blow::Pause, 5_000)], LAN), "passed");
        assert!(judged(&[round(Blow::Pause, 5_001)], LAN).contains("stood still"));
        assert_eq!(judged(&[], LAN), "no round was run");
        let late = |blow, last_ms| judged(&[round_of(blow, vec![struck(1, 500, last_ms)])], LAN);
        assert_eq!(late(Blow::Kill, 4_000), "passed");
        assert!(late(Blow::Kill, 4_001).contains("the last of 1 writes"));
        assert!(late(Blow::Pause, 5_001).contains("the last of 1 writes"));
    }

    #[test]
    fn of_several_groups_the_slowest_counts_and_one_blow_costs_more_than_one_of_them_its_leader() {
        let kill = |first_ms, last_ms| round_of(Blow::Kill, vec![struck(1, 500, 500), struck(4, first_ms, last_ms)]);
        assert_eq!(said(judge_rounds(&[kill(1_900, 4_000)], LAN)), "passed");
        assert!(said(judge_rounds(&[kill(2_001, 2_001)], LAN)).contains("1 of 1 kills"));
        assert!(said(judge_rounds(&[kill(900, 4_001)], LAN)).contains("to group 4 that waited"));

        let rounds = [kill(500, 500), round(Blow::Kill, 500)];
        assert_eq!(said(judge_groups(&rounds[..1], 4)), "passed");
        assert!(said(judge_groups(&rounds, 4)).contains("round 1 cost 1 of 4 groups"));
        assert_eq!(said(judge_groups(&rounds, 3)), "passed");
        assert!(said(judge_groups(&[round_of(Blow::Kill, Vec::new())], 1)).contains("cost 0 of 1 groups"));
    }

    #[test]
    fn reads_that_were_stale_or_are_missing_fail() {
        assert_eq!(said(judge_reads(&reads())), "passed");
        let change = |change: fn(&mut Reads)| {
            let mut reads = reads();
            change(&mut reads);
            said(judge_reads(&reads))
        };
        assert_eq!(
            change(|reads| reads.faults.push("told of before".to_owned())),
            "told of before"
        );
        assert!(change(|reads| reads.by_gateway[1].1 = 0).contains("nothing was read at gateway-2"));
        assert!(change(|reads| drop(reads.by_gateway.pop())).contains("only one gateway"));
        assert!(change(|reads| reads.at_followers = 0.0).contains("no follower"));
        assert!(said(judge_reads(&Reads::default())).contains("only one gateway"));
    }

    #[test]
    fn a_run_that_did_less_than_was_asked_fails() {
        let mut ran = Ran {
            rounds: vec![round(Blow::Kill, 500), round(Blow::Pause, 500)],
            reads: reads(),
            long: Vec::new(),
        };
        assert_eq!(said(judge(&ran, &arguments("--kills 1 --pauses 1"))), "passed");
        assert!(said(judge(&ran, &arguments("--kills 2 --pauses 1"))).contains("1 rounds of kill -9 of 2"));
        assert!(said(judge(&ran, &arguments("--kills 1 --pauses 1 --long-pause 60"))).contains("0 of 3 long"));
        assert!(said(judge(&Ran::default(), &arguments(""))).contains("0 rounds of kill -9 of 50"));
        let nothing = arguments("--kills 0 --pauses 0");
        assert!(said(judge(&Ran::default(), &nothing)).contains("nothing was asked for"));

        let shown = Shown {
            caught: 1,
            in_commit: 1,
            meanwhile: 1,
            acknowledged: 1,
            unanswered: 0,
        };
        ran.rounds.clear();
        ran.long = ["gateway-1", "metadata-1", "node-3"]
            .map(|victim| (victim.to_owned(), shown))
            .into();
        let pauses = arguments("--kills 0 --pauses 0 --long-pause 60");
        assert_eq!(said(judge(&ran, &pauses)), "passed");
        assert_eq!(passed(&ran, &pauses), "passed: 3 processes stopped for 60 s each");
        ran.long[1].1.in_commit = 0;
        assert!(said(judge(&ran, &pauses)).contains("the pause of metadata-1 proved nothing"));
    }
}
