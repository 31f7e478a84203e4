//! Tests of the worker framework, on a manual clock.

use super::{BACKOFF_MIN, Next, StepError, Worker, WorkerState, WorkerStatus, Workers};
use crate::clock::{Clock, ManualClock};
use crate::shutdown::Shutdown;
use async_trait::async_trait;
use model::time::WallTime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

enum Script {
    Give(Next),
    Fail,
    Panic,
}

/// Does what its script says and waits for more lines; each step begun is told.
struct Scripted {
    script: mpsc::Receiver<Script>,
    left: u64,
}

#[async_trait]
impl Worker for Scripted {
    fn name(&self) -> String {
        "scripted".to_owned()
    }

    fn backlog(&self) -> u64 {
        self.left
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        match self.script.recv().await {
            Some(Script::Give(next)) => {
                self.left -= 1;
                Ok(next)
            }
            Some(Script::Fail) => Err("planted".into()),
            Some(Script::Panic) => panic!("planted"),
            None => Ok(Next::Never),
        }
    }
}

struct Scene {
    clock: ManualClock,
    shutdown: Shutdown,
    workers: Workers,
    script: mpsc::Sender<Script>,
    waker: super::Waker,
}

fn scene() -> Scene {
    let clock = ManualClock::new(WallTime(5));
    let shutdown = Shutdown::new();
    let workers = Workers::new(Arc::new(clock.clone()), shutdown.clone());
    let (script, lines) = mpsc::channel(16);
    let waker = workers.spawn(Scripted {
        script: lines,
        left: 10,
    });
    Scene {
        clock,
        shutdown,
        workers,
        script,
        waker,
    }
}

impl Scene {
    async fn until(&self, condition: impl Fn(&WorkerStatus) -> bool) -> WorkerStatus {
        loop {
            let status = self.workers.statuses().remove(0);
            if condition(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn steps_backlog_and_the_end_are_shown() {
    let scene = scene();
    scene.script.send(Script::Give(Next::Now)).await.unwrap();
    scene.script.send(Script::Give(Next::Never)).await.unwrap();
    let status = scene.until(|status| status.state == WorkerState::Stopped).await;
    assert_eq!((status.steps, status.backlog, status.errors), (2, 8, 0));
    scene.workers.ended().await;
}

#[tokio::test]
async fn an_error_is_kept_and_the_step_is_tried_again_after_a_pause() {
    let scene = scene();
    scene.script.send(Script::Fail).await.unwrap();
    scene.script.send(Script::Give(Next::WhenWoken)).await.unwrap();
    let status = scene.until(|status| status.state == WorkerState::BackingOff).await;
    assert_eq!(status.last_error, Some((WallTime(5), "planted".to_owned())));
    while scene.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    scene.clock.advance(BACKOFF_MIN);
    let status = scene.until(|status| status.steps == 1).await;
    assert_eq!((status.errors, status.last_error.is_some()), (1, true));
}

#[tokio::test]
async fn a_worker_that_looks_together_with_others_wakes_at_a_whole_period() {
    let scene = scene();
    let period = Duration::from_secs(1);
    scene.script.send(Script::Give(Next::Together(period))).await.unwrap();
    while scene.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    scene.script.send(Script::Give(Next::Never)).await.unwrap();
    scene.clock.advance(Duration::from_millis(994));
    assert_eq!(scene.clock.sleepers(), 1, "it began at 5 ms");
    scene.clock.advance(Duration::from_millis(1));
    scene.until(|status| status.state == WorkerState::Stopped).await;
    assert_eq!(scene.clock.wall(), WallTime(1_000));
}

#[tokio::test]
async fn a_waiting_worker_wakes_when_told() {
    let scene = scene();
    scene
        .script
        .send(Script::Give(Next::After(Duration::from_secs(3_600))))
        .await
        .unwrap();
    scene.until(|status| status.steps == 1).await;
    scene.script.send(Script::Give(Next::Never)).await.unwrap();
    scene.waker.wake();
    scene.until(|status| status.steps == 2).await;
}

#[tokio::test]
async fn the_shutdown_ends_a_worker_that_waits_but_not_a_step() {
    let scene = scene();
    scene.until(|status| status.state == WorkerState::Busy).await;
    scene.shutdown.request();
    tokio::task::yield_now().await;
    assert_eq!(scene.workers.statuses()[0].state, WorkerState::Busy);
    scene.script.send(Script::Give(Next::WhenWoken)).await.unwrap();
    scene.workers.ended().await;
    assert_eq!(scene.workers.statuses()[0].state, WorkerState::Stopped);
}

#[tokio::test]
async fn a_panicked_worker_stays_visible() {
    let scene = scene();
    scene.script.send(Script::Panic).await.unwrap();
    scene.until(|status| status.state == WorkerState::Panicked).await;
}
