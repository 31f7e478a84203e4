//! The bound: how fast a PUT or a GET could be on this machine if nothing but the unavoidable work were done.
//!
//! The work a user byte is a list of steps, each with how often it is done and what it costs in core-seconds, measured in the
//! same run. Cluster and load share the cores, so the bound of the cores is cores / sum. A PUT also waits for the disk: all
//! fragments go to one, so it is at most its sequential rate / ((k+m)/k).
//! Not here: compression, metadata, round trips, fsync. For small files these decide, and the bound is far away.

use super::limit::{Limit, LimitName};
use anyhow::Context;
use model::profile::Profile;
use serde::Serialize;

/// One step of the work.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    pub(super) what: &'static str,
    /// How often it is done a user byte.
    pub(super) times: f64,
    pub(super) core_ns_per_byte: f64,
}

/// The bound of one direction.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bound {
    pub(super) steps: Vec<Step>,
    /// Sum over the steps, times their counts.
    pub(super) core_ns_per_byte: f64,
    /// cores / sum.
    pub(super) cores_bytes_per_s: f64,
    /// Disk rate over the expansion; a GET has none.
    pub(super) disk_bytes_per_s: Option<f64>,
    /// The least of the two.
    pub(super) bytes_per_s: f64,
}

/// Both directions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bounds {
    pub(super) cores: usize,
    /// Stored bytes a user byte: (k+m)/k.
    pub(super) expansion: f64,
    pub(super) put: Bound,
    pub(super) get: Bound,
}

impl Bounds {
    /// Of the measured `limits`; an error when one that is needed was not measured.
    pub(super) fn of(limits: &[Limit], cores: usize, profile: Profile) -> anyhow::Result<Self> {
        let cost = |name| {
            let found = limits
                .iter()
                .find(|limit| limit.name == name)
                .and_then(|limit| limit.core_ns_per_byte);
            found.with_context(|| format!("{name:?} was not measured"))
        };
        let disk = limits
            .iter()
            .find(|limit| limit.name == LimitName::SequentialWrite)
            .context("the disk was not measured")?
            .value;
        let expansion = f64::from(profile.k + profile.m) / f64::from(profile.k);
        let step = |what, times, name| -> anyhow::Result<Step> {
            Ok(Step {
                what,
                times,
                core_ns_per_byte: cost(name)?,
            })
        };
        let put = vec![
            step("HTTP body in (both ends)", 1.0, LimitName::HttpSink)?,
            step("cut", 1.0, LimitName::Cutter)?,
            step("digest of the block", 1.0, LimitName::Blake3)?,
            step("seal", 1.0, LimitName::AesGcm)?,
            step("hash of the stripe", 1.0, LimitName::Blake3)?,
            step("erasure code", 1.0, LimitName::ReedSolomon)?,
            step("checksums of the fragments (gateway)", expansion, LimitName::Blake3)?,
            step("fragments over QUIC (both ends)", expansion, LimitName::QuicBytes)?,
            step("checksums of the fragments (node)", expansion, LimitName::Blake3)?,
            step("copy into the page cache", expansion, LimitName::PageCacheCopy)?,
        ];
        let get = vec![
            step("copy out of the page cache", 1.0, LimitName::PageCacheCopy)?,
            step("fragments over QUIC (both ends)", 1.0, LimitName::QuicBytes)?,
            step("checksums of the fragments", 1.0, LimitName::Blake3)?,
            step("open the seal", 1.0, LimitName::AesGcm)?,
            step("digest of the block", 1.0, LimitName::Blake3)?,
            step("HTTP body out (both ends)", 1.0, LimitName::HttpSink)?,
            step("comparison by the load", 1.0, LimitName::Blake3)?,
        ];
        let put = Bound::new(put, cores, Some(disk / expansion));
        Ok(Self {
            cores,
            expansion,
            put,
            get: Bound::new(get, cores, None),
        })
    }

    /// How the bounds came about, for people.
    pub(super) fn text(&self) -> String {
        let mut rows = vec![
            ["step", "PUT times", "GET times", "core-ns a byte"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for (steps, is_put) in [(&self.put.steps, true), (&self.get.steps, false)] {
            for step in steps {
                let times = format!("{:.2}", step.times);
                let (put, get) = if is_put {
                    (times, String::new())
                } else {
                    (String::new(), times)
                };
                rows.push(vec![
                    step.what.to_owned(),
                    put,
                    get,
                    format!("{:.3}", step.core_ns_per_byte),
                ]);
            }
        }
        let mut text = crate::table::render(&rows);
        for (name, bound) in [("PUT", &self.put), ("GET", &self.get)] {
            text.push_str(&format!(
                "{name}: {} cores / {:.2} core-seconds a GB = {:.0} MB/s",
                self.cores,
                bound.core_ns_per_byte,
                bound.cores_bytes_per_s / 1e6
            ));
            match bound.disk_bytes_per_s {
                Some(disk) => text.push_str(&format!(
                    "; disk write rate / {:.2} = {:.0} MB/s; the bound is the lesser: {:.0} MB/s\n",
                    self.expansion,
                    disk / 1e6,
                    bound.bytes_per_s / 1e6
                )),
                None => text.push_str(", the bound; what was just written is read from the page cache, not the disk\n"),
            }
        }
        text
    }
}

impl Bound {
    fn new(steps: Vec<Step>, cores: usize, disk_bytes_per_s: Option<f64>) -> Self {
        let core_ns_per_byte: f64 = steps.iter().map(|step| step.times * step.core_ns_per_byte).sum();
        let cores_bytes_per_s = cores as f64 * 1e9 / core_ns_per_byte;
        let bytes_per_s = disk_bytes_per_s.map_or(cores_bytes_per_s, |disk| disk.min(cores_bytes_per_s));
        Self {
            steps,
            core_ns_per_byte,
            cores_bytes_per_s,
            disk_bytes_per_s,
            bytes_per_s,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Bound, Bounds, Step};
    use crate::bench::limit::{Limit, LimitName, Unit};
    use model::profile::ProfileId;

    fn bound(disk: Option<f64>) -> f64 {
        let step = |times, core_ns_per_byte| Step {
            what: "a step",
            times,
            core_ns_per_byte,
        };
        Bound::new(vec![step(1.5, 2.0), step(1.0, 1.0)], 2, disk).bytes_per_s
    }

    #[test]
    fn the_bound_is_the_lesser_of_cores_and_disk() {
        assert_eq!(bound(None), 0.5e9);
        assert_eq!(bound(Some(0.9e9)), 0.5e9);
        assert_eq!(bound(Some(0.1e9)), 0.1e9);
    }

    /// Those of decision 0021.
    fn reference_limits() -> Vec<Limit> {
        let costs = [
            (LimitName::Blake3, 1.0 / 9.4),
            (LimitName::AesGcm, 1.0 / 3.3),
            (LimitName::ReedSolomon, 1.0 / 24.0),
            (LimitName::Cutter, 1.0 / 2.8),
            (LimitName::QuicBytes, 1.55),
            (LimitName::HttpSink, 2.0 / 4.3),
            (LimitName::PageCacheCopy, 0.1),
            (LimitName::SequentialWrite, 1.0),
        ];
        let limit = |(name, cost)| Limit::new(name, "", Unit::BytesPerSecond, 3e9, "", None).costing(cost);
        costs.into_iter().map(limit).collect()
    }

    /// The bounds of the machine of decision 0021.
    pub(in crate::bench) fn reference() -> anyhow::Result<Bounds> {
        Bounds::of(&reference_limits(), 2, ProfileId::Dev.profile())
    }

    /// The figures of decision 0021 must give its own bounds, or the list of steps is another one.
    #[test]
    fn the_reference_limits_give_the_reference_bounds() {
        let bounds = reference().unwrap();
        assert_eq!(bounds.expansion, 1.5);
        assert!(
            (bounds.put.bytes_per_s / 490e6 - 1.0).abs() < 0.1,
            "PUT: {}",
            bounds.put.bytes_per_s
        );
        assert!(
            (bounds.get.bytes_per_s / 790e6 - 1.0).abs() < 0.1,
            "GET: {}",
            bounds.get.bytes_per_s
        );
        assert!(Bounds::of(&reference_limits()[1..], 2, ProfileId::Dev.profile()).is_err());
    }
}
