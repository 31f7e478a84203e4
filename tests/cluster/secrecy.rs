//! What lies on disks tells nobody anything: contents, names, passwords, tokens and keys are planted and looked for in every file.
//!
//! The search itself is trusted because it finds what must be there: names in the metadata volume, the KEK in its file, and every
//! content once the gateway is given a cipher that seals nothing.
//! Not here: the wire (`rpc`'s conformance suite), what logs say at debug level (`quiet_log`).

use crate::inside::{Inside, Noting, Plain};
use crate::search::{Found, Needle, search};
use crate::world::{World, answer, noise};
use client_sdk::client::Client;
use codec::cipher::{Aes256Gcm, Cipher};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const MEDIA: &str = "application/x-canary-of-media-types";
const USER: &str = "canary.of.user-names";
/// What any wait of these tests may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The contents that are planted: what each is called in messages, and its bytes.
struct Contents {
    /// Lies in the metadata: at most 4 KiB.
    inline: Vec<u8>,
    /// One block.
    block: Vec<u8>,
    /// Several stripes, with a session.
    stripes: Vec<u8>,
    /// Later versions of the first two.
    next_inline: Vec<u8>,
    next_block: Vec<u8>,
    /// What an upload brought before its connection was cut.
    cut: Vec<u8>,
    /// The end of an upload that was cut, kept for its continuation.
    tail: Vec<u8>,
    /// Compressible, as a block and inline.
    text: Vec<u8>,
    inline_text: Vec<u8>,
}

impl Contents {
    fn new() -> Self {
        let text = |lines: usize| {
            let line = |number| format!("The canary sings line {number} of a song that compresses well.\n");
            (0..lines).map(line).collect::<String>().into_bytes()
        };
        Self {
            inline: noise(1, 3_900),
            block: noise(2, 300 * KIB),
            stripes: noise(3, 14 * MIB),
            next_inline: noise(4, 2_500),
            next_block: noise(5, 310 * KIB),
            cut: noise(6, 13 * MIB),
            tail: noise(7, 200 * KIB),
            text: text(8_000),
            inline_text: text(40),
        }
    }

    /// Those that do not compress, so that they would lie in the open as they are.
    fn raw(&self) -> [(&'static str, &[u8]); 7] {
        [
            ("inline", &self.inline),
            ("block", &self.block),
            ("stripes", &self.stripes),
            ("next inline", &self.next_inline),
            ("next block", &self.next_block),
            ("cut", &self.cut),
            ("tail", &self.tail),
        ]
    }

    fn needles(&self) -> Vec<Needle> {
        let texts = [("text", &self.text), ("inline text", &self.inline_text)];
        let texts = texts.map(|(name, bytes)| (name, bytes.as_slice()));
        let all = self.raw().into_iter().chain(texts);
        all.map(|(name, bytes)| Needle::content(name, bytes)).collect()
    }
}

/// Names of the planted entries, one word each so that no encoding can break them.
const NAMES: [&str; 4] = [
    "canary-of-folder-names",
    "canary-of-file-names",
    "canary-of-new-names",
    "canary-of-trashed-names",
];

fn name_needles() -> Vec<Needle> {
    let names = NAMES.into_iter().chain([MEDIA, USER]);
    names.map(|name| Needle::text(name, name)).collect()
}

fn is_node(file: &Path) -> bool {
    file.to_string_lossy().starts_with("node-")
}

fn is_metadata(file: &Path) -> bool {
    file.to_string_lossy().starts_with("metadata-")
}

fn anywhere(_: &Path) -> bool {
    true
}

/// An account that was made, with everything that must stay secret about it.
struct Account {
    client: Client,
    password: String,
    tokens: Vec<String>,
}

/// Makes a user and signs in.
async fn make_user(url: &str, admin_token: &str, name: &str, password: &str) -> Account {
    let admin = Client::new(url).unwrap().with_token(admin_token);
    let body = json!({"username": name, "password": password});
    admin.json(Method::POST, "/api/v1/users", Some(&body)).await.unwrap();
    sign_in(url, name, password).await
}

async fn sign_in(url: &str, name: &str, password: &str) -> Account {
    let anybody = Client::new(url).unwrap();
    let form = [("grant_type", "password"), ("username", name), ("password", password)];
    let request = anybody.request(Method::POST, "/api/v1/auth/token").form(&form);
    let granted: Value = answer(request).await.json();
    let token = |field: &str| granted[field].as_str().unwrap().to_owned();
    let (access, refresh) = (token("access_token"), token("refresh_token"));
    Account {
        client: anybody.with_token(&access),
        password: password.to_owned(),
        tokens: vec![access, refresh],
    }
}

async fn put(client: &Client, path: &str, base_version: Option<u64>, bytes: &[u8]) -> String {
    let mut query = vec![("uploadType", "media".to_owned()), ("path", path.to_owned())];
    query.push(("parents", "true".to_owned()));
    query.extend(base_version.map(|version| ("base_version", version.to_string())));
    let request = client.request(Method::POST, "/api/v1/files/upload").query(&query);
    let request = request.header("content-type", MEDIA).body(bytes.to_vec());
    let uploaded = answer(request).await.json();
    let id = uploaded["entry"]["id"].as_str();
    id.unwrap_or_else(|| panic!("{path}: {uploaded}")).to_owned()
}

async fn get(client: &Client, id: &str) -> Vec<u8> {
    client.get(id, None).await.unwrap().bytes().await.unwrap().to_vec()
}

/// Puts every content and name into the cluster in every way there is, and reads some of it back.
async fn plant(client: &Client, contents: &Contents) {
    let [folder, file, new_name, trashed] = NAMES;
    let small = put(client, &format!("/{folder}/{file}"), None, &contents.inline).await;
    let block = put(client, &format!("/{folder}/block"), None, &contents.block).await;
    let large = put(client, &format!("/{folder}/stripes"), None, &contents.stripes).await;
    put(client, &format!("/{folder}/text"), None, &contents.text).await;
    put(client, &format!("/{folder}/inline text"), None, &contents.inline_text).await;
    let doomed = put(client, &format!("/{trashed}"), None, &contents.inline).await;
    put(client, &format!("/{folder}/{file}"), Some(1), &contents.next_inline).await;
    put(client, &format!("/{folder}/block"), Some(1), &contents.next_block).await;
    let rename = json!({ "name": new_name });
    let at = format!("/api/v1/metadata/{block}");
    client.json(Method::PATCH, &at, Some(&rename)).await.unwrap();
    client.trash(&doomed).await.unwrap();
    client.trash(&small).await.unwrap();
    let restore = format!("/api/v1/metadata/{small}/restore");
    client.json(Method::POST, &restore, None).await.unwrap();
    assert_eq!(get(client, &small).await, contents.next_inline);
    assert!(get(client, &large).await == contents.stripes);
}

/// Sends an upload whose connection is cut once two of its stripes are durable.
async fn send_cut(url: &str, token: &str, bytes: &[u8]) {
    let anybody = Client::new(url).unwrap();
    let before = stripes_written(&anybody).await;
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/files/upload?uploadType=media&path=/cut HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: {MEDIA}\r\ncontent-length: {}\r\n\r\n",
        2 * bytes.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let begun = Instant::now();
    while stripes_written(&anybody).await < before + 2 {
        assert!(begun.elapsed() < DEADLINE, "no stripe of the upload became durable");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn stripes_written(client: &Client) -> u64 {
    let page = client.text("/metrics").await.unwrap();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("gateway_stripes_written_total{"));
    rows.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|letter| letter.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The bytes of the cluster's KEK.
fn kek(data_dir: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(data_dir.join("cluster/kek")).unwrap();
    unhex(text.split_ascii_whitespace().nth(1).unwrap())
}

fn has_file(found: &Found, role: impl Fn(&Path) -> bool, part: &str) -> bool {
    found
        .files
        .iter()
        .any(|file| role(file) && file.to_string_lossy().contains(part))
}

/// shows: C-6, QAS-016, F43, NF-sec-1 scale=1/2, CMP-store side=at-rest
#[tokio::test]
async fn no_file_of_a_cluster_holds_a_content_a_name_on_a_data_disk_or_a_secret_in_the_open() {
    let mut world = World::start().await;
    let contents = Contents::new();
    let mut secrets = vec![("demo password".to_owned(), world.cluster.facts.password.clone())];
    let facts = world.cluster.facts.clone();
    let mut account = make_user(&facts.url, &facts.admin_token, USER, "canary of passwords").await;
    plant(&account.client, &contents).await;
    send_cut(&facts.url, &account.tokens[0], &contents.cut).await;
    // A process that was killed replays its journals, and one that was stopped in order has written its tables out.
    secrets.push(("admin token".to_owned(), facts.admin_token));
    world.kill_and_restart().await;
    let url = world.cluster.facts.url.clone();
    let again = sign_in(&url, USER, &account.password).await;
    put(&again.client, "/after the kill", None, &contents.inline).await;
    account.tokens.extend(again.tokens);
    secrets.push(("next admin token".to_owned(), world.cluster.facts.admin_token.clone()));
    world.restart().await;
    secrets.push(("last admin token".to_owned(), world.cluster.facts.admin_token.clone()));
    world.cluster.stop().unwrap();

    secrets.push(("password".to_owned(), account.password));
    let numbered = (1..).zip(account.tokens);
    secrets.extend(numbered.map(|(number, token)| (format!("token {number}"), token)));
    let mut needles = contents.needles();
    needles.extend(name_needles());
    needles.extend(
        secrets
            .iter()
            .map(|(name, secret)| Needle::secret(name, secret.as_bytes())),
    );
    needles.push(Needle::secret("kek", &kek(&world.data_dir())));
    needles.push(Needle::text("private key", "PRIVATE KEY-----"));
    let found = search(&world.data_dir(), &needles);

    let raw = contents.raw().map(|(name, _)| name);
    for content in raw.into_iter().chain(["text", "inline text"]) {
        found.assert_absent(content, anywhere);
    }
    for name in NAMES.into_iter().chain([MEDIA, USER]) {
        found.assert_absent(name, is_node);
        assert!(
            found.pieces(name, is_metadata) > 0,
            "{name} was not found where it must lie"
        );
    }
    for (name, _) in &secrets {
        // The demo user's password is told to whoever starts the cluster: on its standard output, and in a file of mode 0600.
        let is_told =
            |file: &Path| name == "demo password" && (file.ends_with("dev.out") || file.ends_with("dev.json"));
        found.assert_absent(name, |file| {
            !is_told(file) && !file.ends_with("cluster/dev-secrets.json")
        });
    }
    assert_eq!(found.files_with("demo password").len(), 3);
    assert_eq!(found.files_with("kek"), [Path::new("cluster/kek")]);
    found.assert_absent("private key", |file| !file.starts_with("cluster"));
    assert!(!found.files_with("private key").is_empty());
    // What was searched is what a cluster leaves: journals, tables and logs of RocksDB, and the process's own log.
    for (role, part) in [
        (is_node as fn(&Path) -> bool, "/store/"),
        (is_node, ".sst"),
        (is_metadata, "/log/"),
        (is_metadata, ".sst"),
        (anywhere, "dev.log"),
    ] {
        assert!(has_file(&found, role, part), "no {part} among {:?}", found.files);
    }
}

/// shows: QAS-016
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_file_holds_a_key_or_a_tail_in_the_open_and_no_nonce_is_used_twice() {
    let cipher = Arc::new(Noting::default());
    let inside = Inside::start(Arc::clone(&cipher) as Arc<dyn Cipher>).await;
    let (contents, url) = (Contents::new(), inside.facts().url.clone());
    plant(&inside.client, &contents).await;
    let account = make_user(&url, &inside.facts().admin_token, USER, "canary of passwords").await;
    send_cut(&url, &account.tokens[0], &contents.cut).await;
    inside.keep_tail(&contents.tail).await;
    // The same bytes once more: known blocks are named again and unknown ones are sealed under a nonce of their own.
    put(&account.client, "/the same", None, &contents.block).await;
    put(&account.client, "/the same inline", None, &contents.inline).await;

    let drive_key = drive_key(&inside).await;
    let directory = inside.stop().await;
    let mut needles = contents.needles();
    needles.push(Needle::secret("drive key", &drive_key));
    let keys = cipher.keys();
    let derived = (0..)
        .zip(&keys)
        .map(|(number, key): (usize, _)| (format!("derived key {number}"), key));
    let derived: Vec<_> = derived.collect();
    needles.extend(derived.iter().map(|(name, key)| Needle::secret(name, &key[..])));
    let found = search(&directory.path().join("data"), &needles);
    let raw = contents.raw().map(|(name, _)| name);
    for content in raw.into_iter().chain(["text", "inline text"]) {
        found.assert_absent(content, anywhere);
    }
    found.assert_absent("drive key", anywhere);
    for (name, _) in &derived {
        found.assert_absent(name, anywhere);
    }
    let (sealed, reused) = cipher.pairs();
    assert!(
        sealed > 30 && keys.len() > 30,
        "only {sealed} seals under {} keys",
        keys.len()
    );
    assert_eq!(reused, 0, "of {sealed} pairs of key and nonce");
}

/// The demo drive's key, opened with the KEK as docs/format/sealed.md says.
async fn drive_key(inside: &Inside) -> [u8; 32] {
    let (_, facts) = inside.demo().await;
    let kek: [u8; 32] = kek(&inside.data_dir()).try_into().unwrap();
    let wrapped = facts.wrapped_key;
    let associated = [b"holdfast v1 drive key", &wrapped[..9], &facts.drive.0.to_be_bytes()].concat();
    let (nonce, tag) = (wrapped[9..21].try_into().unwrap(), wrapped[53..].try_into().unwrap());
    let mut key: [u8; 32] = wrapped[21..53].try_into().unwrap();
    assert!(Aes256Gcm.decrypt(&kek, &nonce, &associated, &mut key, &tag));
    key
}

/// A cluster whose gateway seals nothing: the same search finds every content, each where it lies and nowhere else.
///
/// shows: QAS-016, F43, H-P1
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_search_catches_a_gateway_that_seals_nothing() {
    let inside = Inside::start(Arc::new(Plain)).await;
    let (contents, url) = (Contents::new(), inside.facts().url.clone());
    plant(&inside.client, &contents).await;
    let account = make_user(&url, &inside.facts().admin_token, USER, "canary of passwords").await;
    send_cut(&url, &account.tokens[0], &contents.cut).await;
    inside.keep_tail(&contents.tail).await;
    let directory = inside.stop().await;
    let data_dir = directory.path().join("data");
    let mut needles = contents.needles();
    needles.extend(name_needles());
    let found = search(&data_dir, &needles);

    for inline in ["inline", "next inline"] {
        found.assert_absent(inline, |file| !is_metadata(file));
        // Each of three replicas has it in its log.
        assert!(
            found.files_with(inline).len() >= 3,
            "{inline}: {:?}",
            found.files_with(inline)
        );
    }
    for stored in ["block", "stripes", "next block", "cut", "tail"] {
        found.assert_absent(stored, |file| !is_node(file));
        assert!(found.pieces(stored, is_node) > 100, "{stored} was found too rarely");
    }
    for name in NAMES.into_iter().chain([MEDIA, USER]) {
        found.assert_absent(name, is_node);
    }
    // What passes through the metadata is small against what passes by it: all replicas together keep less than a tenth.
    let bytes = |is_meant: fn(&Path) -> bool| -> u64 {
        let files = found.files.iter().filter(|file| is_meant(file));
        files
            .map(|file| std::fs::metadata(data_dir.join(file)).unwrap().len())
            .sum()
    };
    let (in_metadata, on_nodes) = (bytes(is_metadata), bytes(is_node));
    assert!(
        in_metadata < on_nodes / 10,
        "{in_metadata} bytes of metadata, {on_nodes} on nodes"
    );
}
