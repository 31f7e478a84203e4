//! Group commit with many callers: order, batching, limits, stop.

#![allow(clippy::unwrap_used)] // Test code: a panic is the report.

use bytes::Bytes;
use disk::sim::{Faults, Survivors};
use disk::{
    Completion, Disk, DiskError, DiskFile, Draft, DrivenCommit, GroupCommit, Held, Journal, JournalError,
    JournalHealth, JournalOptions, LimboScope, Purpose, SimDisk, Space, Submission, TailPolicy,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

fn open(disk: &SimDisk) -> Journal {
    open_on(Arc::new(disk.clone()))
}

fn open_on(shared: Arc<dyn Disk>) -> Journal {
    let mut options = JournalOptions::new(TailPolicy::StopAtFirstBad, Arc::new(|| 7));
    options.segment_bytes = 256 << 10;
    options.batch_bytes_max = 64 << 10;
    Journal::open(shared, "j", options).unwrap().0
}

fn draft(text: &str) -> Draft {
    Draft::new(16, Bytes::copy_from_slice(text.as_bytes()))
}

fn contents(journal: &Journal) -> Vec<String> {
    let mut texts = Vec::new();
    let visit = &mut |record: disk::Record| {
        texts.push(String::from_utf8(record.checked.to_vec()).unwrap());
        ControlFlow::Continue(())
    };
    assert_eq!(journal.reader().visit(None, LimboScope::With, visit).unwrap(), []);
    texts
}

/// shows: F21 scale=1/2
#[test]
fn many_threads_append_and_each_finds_its_own_in_order() {
    const THREADS: usize = 8;
    const APPENDS: usize = 200;
    let disk = SimDisk::new(1 << 30);
    let journal = Arc::new(GroupCommit::start(open(&disk), "test-journal").unwrap());
    let answers = Arc::new(Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, answers) = (Arc::clone(&journal), Arc::clone(&answers));
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for number in 0..APPENDS {
                    let text = format!("{thread:02} {number:04}");
                    let mut append = Box::pin(journal.append(vec![draft(&text)], Purpose::Foreground));
                    if number % 7 == 3 {
                        // Polled once and dropped: it was submitted, so it happens, and nobody's buffer is touched.
                        runtime.block_on(std::future::poll_fn(|context| {
                            let _ = append.as_mut().poll(context);
                            std::task::Poll::Ready(())
                        }));
                    } else {
                        let places = runtime.block_on(append).unwrap();
                        assert_eq!(journal.reader().payload(places[0]).unwrap(), text);
                        answers.lock().unwrap().insert(text, places[0]);
                    }
                }
            });
        }
    });
    journal.stop().unwrap();
    journal.stop().unwrap();
    assert_eq!(disk.unsynced().count(), 0);
    assert_eq!(disk.overwritten_bytes(), 0);
    let texts = contents(&open(&disk.crash(Survivors::None)));
    assert_eq!(texts.len(), THREADS * APPENDS, "each once");
    for thread in 0..THREADS {
        let own: Vec<&String> = texts
            .iter()
            .filter(|text| text.starts_with(&format!("{thread:02} ")))
            .collect();
        assert!(own.is_sorted(), "one caller's records keep their order");
    }
    assert!(answers.lock().unwrap().keys().all(|text| texts.contains(text)));
    assert!(
        disk.sync_count() < (THREADS * APPENDS) as u64 + 40,
        "never more syncs than submissions and segments"
    );
}

#[tokio::test]
async fn a_driven_journal_does_nothing_until_it_is_told_and_then_all_of_it() {
    let disk = SimDisk::new(1 << 30);
    let (journal, mut driven) = GroupCommit::driven(open(&disk));
    let syncs = disk.sync_count();
    let mut appends = [
        journal.append(vec![draft("a")], Purpose::Foreground),
        journal.append(vec![draft("b")], Purpose::Foreground),
    ]
    .map(Box::pin);
    for append in &mut appends {
        assert!(poll_once(append.as_mut()).await.is_none());
    }
    driven.arrived().await;
    assert_eq!(disk.sync_count(), syncs);
    assert!(driven.work_off());
    assert_eq!(disk.sync_count(), syncs + 1, "what came together is one batch");
    for append in appends {
        assert_eq!(append.await.unwrap().len(), 1);
    }
    journal.stop().unwrap();
    driven.arrived().await;
    assert!(!driven.work_off(), "stopped");
    assert_eq!(contents(&open(&disk.crash(Survivors::None))), ["a", "b"]);
}

/// What one poll of `future` gives.
async fn poll_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn completions_and_closures_come_in_the_order_of_submission() {
    let disk = SimDisk::new(1 << 30);
    let journal = GroupCommit::start(open(&disk), "test-journal").unwrap();
    let (sender, receiver) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for number in 0..100_u64 {
            let sender = sender.clone();
            let done: Completion = Box::new(move |answer| sender.send((number, answer.unwrap()[0])).unwrap());
            let purpose = if number % 10 == 0 {
                Purpose::Compaction
            } else {
                Purpose::Foreground
            };
            journal
                .submit(Submission {
                    drafts: vec![draft(&number.to_string())],
                    purpose,
                    done,
                })
                .await
                .unwrap();
        }
        let next = journal.with(|journal| journal.next_sequence()).await.unwrap();
        assert_eq!(next, 101, "a closure runs after what was submitted before it");
    });
    let seen: Vec<_> = receiver.try_iter().collect();
    assert_eq!(
        seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        (0..100).collect::<Vec<_>>()
    );
    assert!(seen.is_sorted_by_key(|(_, place)| *place));
    let syncs = disk.sync_count();
    assert!(syncs <= 104, "{syncs}");
}

#[test]
fn one_callers_fault_is_that_callers_alone() {
    let disk = SimDisk::new(1 << 30);
    let journal = GroupCommit::start(open(&disk), "test-journal").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut foreign = draft("foreign");
        foreign.sequence = Some(999);
        let (good, bad, large, own) = tokio::join!(
            journal.append(vec![draft("good")], Purpose::Foreground),
            journal.append(vec![foreign], Purpose::Foreground),
            journal.append(vec![draft(&"x".repeat(70_000))], Purpose::Foreground),
            journal.append(vec![Draft::new(1, Bytes::new())], Purpose::Foreground),
        );
        assert_eq!(good.unwrap().len(), 1);
        assert!(matches!(bad, Err(JournalError::BadDraft(_))));
        assert!(matches!(large, Err(JournalError::TooLarge { .. })));
        assert!(matches!(own, Err(JournalError::BadDraft(_))));
    });
    journal.stop().unwrap();
    assert_eq!(
        runtime.block_on(journal.append(vec![draft("late")], Purpose::Foreground)),
        Err(JournalError::Stopped)
    );
}

/// shows: F23
#[test]
fn after_a_failed_sync_every_later_append_is_refused() {
    let disk = SimDisk::new(1 << 30);
    let journal = GroupCommit::start(open(&disk), "test-journal").unwrap();
    disk.set_faults(Faults {
        failing_sync: Some(disk.sync_count()),
        ..Faults::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let first = journal.append(vec![draft("lost")], Purpose::Foreground).await;
        assert!(matches!(first, Err(JournalError::Failed { .. })));
        for _ in 0..3 {
            let later = journal.append(vec![draft("later")], Purpose::Compaction).await;
            assert!(matches!(later, Err(JournalError::ReadOnly { .. })));
        }
    });
    assert!(matches!(journal.reader().health(), JournalHealth::ReadOnly { .. }));
    journal.stop().unwrap();
}

#[test]
fn a_full_queue_is_busy_and_drains() {
    let disk = SimDisk::new(1 << 30);
    let journal = GroupCommit::start(open(&disk), "test-journal").unwrap();
    let (gate, wait) = channel::<()>();
    let (started, is_started) = channel::<()>();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let journal = Arc::new(journal);
    let blocked = Arc::clone(&journal);
    let closure = runtime.spawn(async move {
        blocked
            .with(move |_| {
                started.send(()).unwrap();
                wait.recv().unwrap();
            })
            .await
    });
    is_started.recv().unwrap();
    let (sender, receiver) = channel();
    let mut accepted = 0;
    let busy = loop {
        let sender = sender.clone();
        let done: Completion = Box::new(move |answer| sender.send(answer.is_ok()).unwrap());
        match journal.try_submit(Submission {
            drafts: vec![draft(&"y".repeat(60_000))],
            purpose: Purpose::Foreground,
            done,
        }) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(busy, JournalError::Busy);
    assert!(accepted > 100);
    gate.send(()).unwrap();
    journal.stop().unwrap();
    runtime.block_on(closure).unwrap().unwrap();
    assert_eq!(
        receiver.try_iter().filter(|is_ok| *is_ok).count(),
        accepted,
        "a stop drains the queue"
    );
}

/// A held journal on `disk`, what it was told so far, and whether it is to try again.
struct Holding {
    journal: GroupCommit,
    driven: DrivenCommit,
    told: Arc<Mutex<Vec<bool>>>,
    tries_again: Arc<Mutex<bool>>,
}

fn holding(disk: &SimDisk) -> Holding {
    let (told, tries_again) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(true)));
    let (telling, asking) = (Arc::clone(&told), Arc::clone(&tries_again));
    let held: Held = Arc::new(move |is_full| {
        telling.lock().unwrap().push(is_full);
        *asking.lock().unwrap()
    });
    let (journal, driven) = GroupCommit::driven_holding(open(disk), held);
    Holding {
        journal,
        driven,
        told,
        tries_again,
    }
}

/// Leaves `disk` so many bytes.
fn leave(disk: &SimDisk, free_bytes: u64) {
    let space = disk.space().unwrap();
    disk.set_capacity_bytes(space.total_bytes - space.free_bytes + free_bytes);
}

#[tokio::test]
async fn what_a_full_disk_refuses_is_held_with_all_behind_it_and_written_in_order_once_it_fits() {
    const CAPACITY: u64 = 1 << 30;
    let disk = SimDisk::new(CAPACITY);
    let Holding {
        journal,
        mut driven,
        told,
        ..
    } = holding(&disk);
    let large = "x".repeat(40_000);
    // Not for the foreground, so that the reserve does not refuse it first: a part of it is written.
    let append = |text: &str| Box::pin(journal.append(vec![draft(text)], Purpose::Compaction));
    let mut before = append("before");
    assert!(poll_once(before.as_mut()).await.is_none());
    assert!(driven.work_off() && !driven.is_held());
    before.await.unwrap();
    leave(&disk, 10_000);
    let (mut first, mut behind) = (append(&large), append("behind"));
    assert!(poll_once(first.as_mut()).await.is_none());
    assert!(driven.work_off() && driven.is_held());
    // It would fit, and must not come first; a closure may run, since it may be what makes room.
    assert!(poll_once(behind.as_mut()).await.is_none());
    let mut task = Box::pin(journal.with(|journal| journal.next_sequence()));
    assert!(poll_once(task.as_mut()).await.is_none());
    assert!(driven.work_off() && driven.is_held());
    task.await.unwrap();
    assert!(poll_once(first.as_mut()).await.is_none() && poll_once(behind.as_mut()).await.is_none());
    assert!(!told.lock().unwrap().is_empty() && told.lock().unwrap().iter().all(|is_full| *is_full));
    assert_eq!(contents(&open(&disk.crash(Survivors::None))), ["before"]);

    disk.set_capacity_bytes(CAPACITY);
    assert!(driven.work_off() && !driven.is_held());
    first.await.unwrap();
    behind.await.unwrap();
    assert_eq!(told.lock().unwrap().last(), Some(&false));
    assert_eq!(
        contents(&open(&disk.crash(Survivors::None))),
        ["before", large.as_str(), "behind"]
    );
    assert_eq!(disk.overwritten_bytes(), 0);
}

#[tokio::test]
async fn a_held_batch_is_given_up_where_nobody_wants_it_any_more_and_nothing_behind_it_is_written() {
    for is_stop in [false, true] {
        let disk = SimDisk::new(1 << 30);
        let Holding {
            journal,
            mut driven,
            tries_again,
            ..
        } = holding(&disk);
        leave(&disk, 0);
        let append = |text: &str| Box::pin(journal.append(vec![draft(text)], Purpose::Foreground));
        let (mut first, mut behind) = (append("first"), append("behind"));
        assert!(poll_once(first.as_mut()).await.is_none());
        assert!(driven.work_off() && driven.is_held());
        assert!(poll_once(behind.as_mut()).await.is_none());
        match is_stop {
            true => journal.stop().unwrap(),
            false => *tries_again.lock().unwrap() = false,
        }
        assert!(!driven.work_off());
        drop(driven);
        assert_eq!(first.await, Err(JournalError::Full));
        assert_eq!(behind.await, Err(JournalError::Stopped));
        let late = journal.append(vec![draft("late")], Purpose::Foreground);
        assert_eq!(late.await, Err(JournalError::Stopped));
        disk.set_capacity_bytes(1 << 30);
        assert!(contents(&open(&disk.crash(Survivors::All))).is_empty());
    }
}

/// A disk that does not tell what it has left while the switch is on.
struct Silent(SimDisk, Arc<AtomicBool>);

impl Disk for Silent {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.0.create(name)
    }
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.0.open(name)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.0.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.0.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.sync_dir(dir)
    }
    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.0.make_dir(dir)
    }
    fn space(&self) -> Result<Space, DiskError> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(DiskError::Io("space: refused".to_owned())),
            false => self.0.space(),
        }
    }
}

#[tokio::test]
async fn where_full_disks_are_waited_for_nothing_is_written_behind_a_batch_that_failed_otherwise() {
    let (disk, is_silent) = (SimDisk::new(1 << 30), Arc::new(AtomicBool::new(false)));
    let journal = open_on(Arc::new(Silent(disk.clone(), Arc::clone(&is_silent))));
    let (journal, mut driven) = GroupCommit::driven_holding(journal, Arc::new(|_| true));
    let append = |text: &str| Box::pin(journal.append(vec![draft(text)], Purpose::Foreground));
    is_silent.store(true, Ordering::SeqCst);
    let mut first = append("first");
    assert!(poll_once(first.as_mut()).await.is_none());
    assert!(driven.work_off() && !driven.is_held());
    assert!(matches!(first.await, Err(JournalError::Failed { .. })));
    is_silent.store(false, Ordering::SeqCst);
    let mut behind = append("behind");
    assert!(poll_once(behind.as_mut()).await.is_none());
    assert!(driven.work_off());
    assert!(matches!(behind.await, Err(JournalError::ReadOnly { .. })));
    assert!(contents(&open(&disk.crash(Survivors::All))).is_empty());
}

#[test]
fn the_journals_own_thread_tries_a_full_disk_again_by_itself() {
    let disk = SimDisk::new(1 << 30);
    let (sender, receiver) = channel();
    let held: Held = Arc::new(move |is_full| sender.send(is_full).is_ok());
    let journal = GroupCommit::start_holding(open(&disk), "test-journal", held).unwrap();
    leave(&disk, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut appends: Vec<_> = (0..3)
        .map(|number| Box::pin(journal.append(vec![draft(&number.to_string())], Purpose::Foreground)))
        .collect();
    for append in &mut appends {
        assert!(runtime.block_on(poll_once(append.as_mut())).is_none());
    }
    assert_eq!(receiver.recv(), Ok(true));
    disk.set_capacity_bytes(1 << 30);
    for append in appends {
        assert_eq!(runtime.block_on(append).unwrap().len(), 1);
    }
    assert!(receiver.try_iter().any(|is_full| !is_full));
    journal.stop().unwrap();
    assert_eq!(contents(&open(&disk.crash(Survivors::None))), ["0", "1", "2"]);
}
