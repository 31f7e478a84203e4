//! Polls over both versions of HTTP: what wakes them, whom, in which forms, and that nothing comes that nobody asked for.
//!
//! Clients are plain ones of HTTP/1.1 or HTTP/2 without TLS, so nothing is upgraded on the way to a version.
//! Not here: followers that rebuild trees (`feed`, `pings`), polls on a clock that is moved (gateway), many at once (`make polls`).

use crate::entries::{METADATA, change, delete, make_folder};
use crate::world::{World, noise};
use api::change::{ChangeKind, PollAnswer};
use client_sdk::client::{Client, Target};
use client_sdk::http::{Authorities, builder};
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, Version};
use serde_json::json;
use std::time::{Duration, Instant};

const POLLS: [&str; 2] = ["/api/v1/notifications/poll", "/api/v1/events"];
/// Ends a test that waits for what never comes.
const GIVE_UP: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// One that polls: a log-in of its own, over connections of its own.
struct Device {
    http: reqwest::Client,
    version: Version,
    client: Client,
    cursor: String,
}

impl Device {
    /// Of whoever `client` is signed in as, from the present end of the drive on.
    async fn of(client: Client, version: Version) -> Self {
        let http = builder(&Authorities::Nobody).unwrap();
        let http = match version {
            Version::HTTP_2 => http.http2_prior_knowledge(),
            _ => http.http1_only(),
        };
        Self {
            http: http.build().unwrap(),
            version,
            cursor: client.changes(None, 1, true).await.unwrap().cursor,
            client,
        }
    }

    fn request(&self, world: &World, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", world.cluster.facts.url));
        request.bearer_auth(self.client.token().unwrap())
    }

    /// Sends a poll and reads what it is told.
    async fn told(&self, request: RequestBuilder) -> PollAnswer {
        let answer = request.timeout(2 * GIVE_UP).send().await.unwrap();
        assert_eq!(answer.version(), self.version);
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("upgrade"));
        answer.json().await.unwrap()
    }

    /// Waits for what comes behind the cursor.
    async fn poll(&self, world: &World) -> PollAnswer {
        let path = format!("{}?cursor={}&timeout=480", POLLS[0], self.cursor);
        self.told(self.request(world, Method::GET, &path)).await
    }
}

/// Waits until so many polls wait.
async fn waiting(world: &World, polls: usize) {
    let begun = Instant::now();
    while (world.metric("gateway_polls_waiting").await as usize) < polls {
        assert!(begun.elapsed() < GIVE_UP, "{polls} polls never wait");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

const KINDS: [ChangeKind; 6] = [
    ChangeKind::Created,
    ChangeKind::Updated,
    ChangeKind::Moved,
    ChangeKind::Trashed,
    ChangeKind::Restored,
    ChangeKind::Deleted,
];

/// Makes one change of this kind, to the file but where another has to come into being; answers the changed entry's id.
async fn make(world: &World, kind: ChangeKind, file: &str) -> String {
    let path = format!("{METADATA}/{file}");
    match kind {
        ChangeKind::Created => return make_folder(world, "/made").await.id,
        ChangeKind::Updated => {
            let target = Target {
                base_version: Some(1),
                ..Target::new_file("/f")
            };
            world.client.put(&target, noise(2, 5_000).into()).await.unwrap();
        }
        ChangeKind::Moved => assert_eq!(change(world, file, json!({"name": "g"})).await.status, 200),
        ChangeKind::Trashed => assert_eq!(delete(world, file, "").await.status, 204),
        ChangeKind::Restored => {
            let restored = world.call(Method::POST, &format!("{path}/restore"), None).await;
            assert_eq!(restored.status, 200);
        }
        ChangeKind::Deleted => assert_eq!(delete(world, file, "?permanent=true").await.status, 204),
    }
    file.to_owned()
}

/// shows: US-3.3 side=wakes, C-1 side=both-versions
#[tokio::test]
async fn each_kind_of_change_wakes_every_device_over_both_versions_of_http_and_nobody_else() {
    let world = World::start().await;
    let file = world.put("/f", &noise(1, 5_000)).await.entry.id;
    let (other, _) = world.user("other", 1 << 30).await;
    let (mut devices, mut strangers) = (Vec::new(), Vec::new());
    for version in VERSIONS {
        for _ in 0..2 {
            devices.push(Device::of(world.cluster.client().await.unwrap(), version).await);
        }
        strangers.push(Device::of(other.clone(), version).await);
    }
    let all = devices.len() + strangers.len();
    // Those of another account wait through all of it, and are woken by their own change alone.
    let elsewhere = join_all(strangers.iter().map(|stranger| stranger.poll(&world)));
    let here = async {
        for kind in KINDS {
            let polls = join_all(devices.iter().map(|device| device.poll(&world)));
            let changed = async {
                waiting(&world, all).await;
                make(&world, kind, &file).await
            };
            let (answers, id) = tokio::join!(polls, changed);
            for (device, answer) in devices.iter_mut().zip(answers) {
                assert!(answer.changes && answer.timestamp.is_some(), "{answer:?}");
                assert_eq!((answer.event_type, answer.file_id.as_ref()), (Some(kind), Some(&id)));
                let told: Vec<ChangeKind> = answer.events.iter().map(|event| event.kind).collect();
                assert_eq!(told, [kind]);
                device.cursor = answer.cursor;
            }
        }
        other.make_folder("/theirs").await.unwrap().id
    };
    let (told, theirs) = tokio::join!(elsewhere, here);
    for answer in told {
        let ids: Vec<&str> = answer.events.iter().map(|event| event.file_id.as_str()).collect();
        assert_eq!(ids, [theirs.as_str()]);
    }
}

/// shows: C-1 side=both-versions
#[tokio::test]
async fn polls_of_every_form_wait_and_are_refused_alike_over_both_versions_of_http() {
    let world = World::start().await;
    let mut devices = Vec::new();
    for version in VERSIONS {
        devices.push(Device::of(world.client.clone(), version).await);
    }
    let mut forms = Vec::new();
    for device in &devices {
        let cursor = &device.cursor;
        for path in POLLS {
            let by_query = format!("{path}?cursor={cursor}&timeout=1");
            let by_header = device.request(&world, Method::GET, &format!("{path}?cursor={cursor}"));
            let body = json!({"cursor": cursor, "timeout": 1});
            forms.push((device, device.request(&world, Method::GET, &by_query)));
            forms.push((device, by_header.header("timeout", "1")));
            forms.push((device, device.request(&world, Method::POST, path).json(&body)));
        }
    }
    let silent = forms.into_iter().map(|(device, request)| async move {
        let begun = Instant::now();
        let answer = device.told(request).await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "it came too soon");
        assert!(!answer.changes && answer.events.is_empty());
        assert_eq!(answer.cursor, device.cursor);
    });
    assert_eq!(join_all(silent).await.len(), 12);
    for device in &devices {
        for path in POLLS {
            let wrong = device.request(&world, Method::GET, &format!("{path}?cursor=x"));
            let answer = world.send(wrong).await;
            answer.refused(400, "cursor_invalid");
            let nobody = device.http.get(format!("{}{path}", world.cluster.facts.url));
            world.send(nobody).await.refused(401, "unauthenticated");
        }
    }
}
