//! Made up requests to every operation of the served OpenAPI document: a bounded share of what `make api-fuzz` does, for every commit.
//!
//! Each operation is asked soundly once, so that it is known to be reached, and then in many ways that the document allows and does
//! not, with ids out of earlier answers: by whom it is for, by another account and without a token. A fault is an answer of 5xx, one
//! whose status, media type, body or headers are not described by name, and one without a token where a token is demanded.
//! Invariant: no operation of the document is left out; each fault is told with the line that sends its request again.
//! `HOLDFAST_MADE_UP=n` makes other requests up. Not here: whether a refusal is the right one (the file of its topic).

mod curl;
mod dice;
mod maker;
mod nonsense;
mod operation;
mod pool;
mod recipes;
mod written;

use crate::contract::Contract;
use crate::world::{ANSWER_DEADLINE, Answer, World, noise, try_answer};
use client_sdk::client::Client;
use curl::curl;
use maker::{Aim, Given, MadeUp, Maker};
use operation::Operation;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SEED: u64 = 1;
/// Requests to an operation besides the sound one: every aim meets every sender in 20.
const ROUNDS: usize = 20;
/// Where a password is hashed, which takes long; and where nothing can be said.
const FEW_ROUNDS: usize = 6;
/// Stops nodes, which are started again at once: everything else needs them.
const NODES: &str = "/api/v1/admin/nodes/";
/// A sound request to these needs a job that has ended, or a node that stops: in later rounds none is sent.
const COSTLY: [&str; 3] = ["/rewind", "/api/v1/jobs/", NODES];
/// Succeed once in a cluster's life, before any test asks; they are reached when they answer so.
const SPENT: [(&str, &str); 1] = [("setup", "setup_token_wrong")];
/// Faults that are told in full.
const TOLD_MAX: usize = 30;
/// The account for which most of it is done.
const NAME: &str = "maker";

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// Whom the operation is for: an administrator for accounts and the cluster, else a user.
    Owner,
    /// The other of the two.
    Other,
    /// Nobody: there is no token.
    Nobody,
}

struct Run<'a> {
    world: &'a World,
    maker: Maker<'a>,
    user: Client,
    admin: Client,
    nobody: Client,
    /// Of the user and of the administrator; there is a change behind each.
    cursors: [String; 2],
    reached: BTreeSet<String>,
    answered: BTreeMap<String, BTreeMap<u16, usize>>,
    faults: Vec<String>,
}

impl<'a> Run<'a> {
    async fn begin(world: &'a World, seed: u64) -> Self {
        let (user, _) = world.user(NAME, 1 << 30).await;
        let admin = world.cluster.admin().unwrap();
        let mut maker = Maker::new(&world.contract, seed);
        for client in [&user, &admin, &world.client] {
            maker.pool.spare(&client.me().await.unwrap().id);
        }
        let mut cursors = [String::new(), String::new()];
        for (cursor, client) in cursors.iter_mut().zip([&user, &admin]) {
            *cursor = client.changes(None, 1, true).await.unwrap().cursor;
            client.make_folder("/behind the cursor").await.unwrap();
        }
        Self {
            world,
            maker,
            user,
            admin,
            nobody: Client::new(&world.cluster.facts.url).unwrap(),
            cursors,
            reached: BTreeSet::new(),
            answered: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    fn is_for_admin(operation: &Operation) -> bool {
        ["/api/v1/users", "/api/v1/admin/"]
            .iter()
            .any(|prefix| operation.path.starts_with(prefix))
    }

    fn owner(&self, operation: &Operation) -> &Client {
        if Self::is_for_admin(operation) {
            &self.admin
        } else {
            &self.user
        }
    }

    fn cursor(&self, operation: &Operation) -> String {
        self.cursors[usize::from(Self::is_for_admin(operation))].clone()
    }

    /// What no request to `operation` goes without: a poll has something to tell at once.
    fn held(&self, operation: &Operation) -> Given {
        let mut given = Given::default();
        if operation.takes("Timeout") {
            given.set("cursor", self.cursor(operation));
            given.set("timeout", 1);
        }
        given
    }

    /// One request that should succeed.
    async fn ask_soundly(&mut self, operation: &Operation) {
        let (given, client) = self.prepared(operation).await;
        let request = self.maker.make(operation, Aim::Sound, &given);
        let answer = self.ask(operation, (&client, Sender::Owner), request).await;
        if answer.is_some_and(|answer| is_reached(operation, &answer)) {
            self.reached.insert(operation.id.clone());
        }
    }

    /// One that the dice decide. In `ROUNDS` rounds every aim meets every sender.
    async fn ask_wildly(&mut self, operation: &Operation, round: usize) {
        let is_costly = COSTLY.iter().any(|part| operation.path.contains(*part));
        let aim = match round % 4 {
            0 if is_costly && round >= FEW_ROUNDS => Aim::Outside,
            0 => Aim::Sound,
            1 => Aim::Allowed,
            _ => Aim::Outside,
        };
        let sender = match round % 5 {
            0..=2 => Sender::Owner,
            3 => Sender::Nobody,
            _ => Sender::Other,
        };
        let (given, owner) = match aim {
            Aim::Sound => self.prepared(operation).await,
            Aim::Allowed | Aim::Outside => (self.held(operation), self.owner(operation).clone()),
        };
        let client = match sender {
            Sender::Owner => owner,
            Sender::Other if Self::is_for_admin(operation) => self.user.clone(),
            Sender::Other => self.admin.clone(),
            Sender::Nobody => self.nobody.clone(),
        };
        let request = self.maker.make(operation, aim, &given);
        self.ask(operation, (&client, sender), request).await;
    }

    async fn ask(
        &mut self,
        operation: &Operation,
        (client, sender): (&Client, Sender),
        request: MadeUp,
    ) -> Option<Answer> {
        let mut sent = client
            .request(request.method.clone(), &request.path)
            .timeout(ANSWER_DEADLINE);
        for (name, value) in &request.headers {
            sent = sent.header(name.as_str(), value.clone());
        }
        if let Some(body) = &request.body {
            sent = sent.body(body.clone());
        }
        let line = || format!("{sender:?} sent: {}", curl(&request, sender != Sender::Nobody));
        let answer = try_answer(sent).await;
        if operation.path.starts_with(NODES) {
            self.start_nodes().await;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.faults.push(format!("no answer ({error:?})\n    {}", line()));
                return None;
            }
        };
        for fault in faults(&self.world.contract, operation, (sender, &request), &answer) {
            self.faults.push(format!("{fault}\n    {}", line()));
        }
        let statuses = self.answered.entry(operation.id.clone()).or_default();
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
        if let Some(key) = key_in(&answer) {
            self.maker.pool.keep("key", json!(key));
        }
        if let Ok(told) = serde_json::from_slice::<Value>(&answer.body) {
            self.maker.pool.gather(&told);
        }
        Some(answer)
    }

    /// Starts whatever was stopped; one that runs goes on.
    async fn start_nodes(&self) {
        for node in self.world.nodes() {
            self.world.start_node(node).await;
        }
    }

    /// How often each operation was answered what.
    fn table(&self) -> String {
        let lines = self.answered.iter().map(|(id, statuses)| {
            let counts = statuses.iter().map(|(status, count)| format!("{status} x{count}"));
            format!("{id}: {}", counts.collect::<Vec<_>>().join(", "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Whether the answer to a sound request shows that it came to the operation's work.
fn is_reached(operation: &Operation, answer: &Answer) -> bool {
    match SPENT.iter().find(|(id, _)| *id == operation.id) {
        Some((_, code)) => problem_of(answer)["code"] == *code,
        None => answer.status.is_success(),
    }
}

/// The body of a refusal; null where there is none.
fn problem_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// What is wrong with an answer.
fn faults(
    contract: &Contract,
    operation: &Operation,
    (sender, request): (Sender, &MadeUp),
    answer: &Answer,
) -> Vec<String> {
    let mut found = Vec::new();
    let (id, status) = (&operation.id, answer.status.as_u16());
    let problem = problem_of(answer);
    let code = problem["code"].as_str().unwrap_or("none");
    let tells_when = answer.header("retry-after").is_some();
    let sends = |wanted: &str| request.headers.iter().any(|(name, _)| name == wanted);
    // No cluster here lives for as long as an id counts, so hour 0 is never too old.
    let is_ahead = request.headers.iter().any(|(name, value)| {
        let hour = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        name == "holdfast-age-hour" && hour.is_some_and(|hour| hour > 0)
    });
    let is_allowed = match (status, code) {
        (429, _) | (503, "too_busy" | "overloaded") => tells_when,
        // An hour that has not come yet, beside a key: nobody knows what became of one of another time.
        (504, "outcome_unknown") => sends("idempotency-key") && is_ahead,
        (507, "quota_exceeded") => true,
        _ => !answer.status.is_server_error(),
    };
    if !is_allowed {
        found.push(format!(
            "{id} answered {status} {code}: {}",
            String::from_utf8_lossy(&answer.body)
        ));
    }
    // A ticket in the address stands for the token, and what is wrong with one is told first.
    let is_shut = status == 401 || (operation.takes("ticket") && !answer.status.is_success());
    let by_ticket = operation.takes("ticket") && request.path.contains("ticket=");
    if sender == Sender::Nobody && operation.is_guarded && !is_shut && !by_ticket && status != 429 {
        found.push(format!("{id} answered {status} without a token"));
    }
    found.extend(contract.judge(&request.method, request.route(), answer).err());
    found.extend(contract.unnamed(&operation.method, &operation.path, answer));
    found
}

/// The last part of an upload's address.
fn key_in(answer: &Answer) -> Option<&str> {
    let location = answer.header("location")?;
    let (before, key) = location.rsplit_once('/')?;
    (before.ends_with("/upload") || before.ends_with("/tus")).then_some(key)
}

#[tokio::test]
async fn made_up_requests_meet_no_fault_and_no_answer_that_is_not_described() {
    let seed = std::env::var("HOLDFAST_MADE_UP").map_or(SEED, |text| text.parse().unwrap());
    println!("HOLDFAST_MADE_UP={seed} makes the same requests up");
    let world = World::start().await;
    let operations = Operation::all(&world.contract);
    assert!(operations.len() > 50, "{}", operations.len());
    let mut run = Run::begin(&world, seed).await;
    for operation in &operations {
        run.ask_soundly(operation).await;
    }
    let missed: Vec<&str> = operations
        .iter()
        .map(|operation| operation.id.as_str())
        .filter(|id| !run.reached.contains(*id))
        .collect();
    println!("{}", run.table());
    assert!(
        missed.is_empty(),
        "these were not reached, and need a recipe: {missed:?} with seed {seed}\n{}",
        run.faults.join("\n")
    );
    for round in 0..ROUNDS {
        for operation in &operations {
            let is_short = operation.is_plain() || operation.takes_password(&world.contract);
            let rounds = if is_short { FEW_ROUNDS } else { ROUNDS };
            if round < rounds {
                run.ask_wildly(operation, round).await;
            }
        }
    }
    println!("{}", run.table());
    let content = noise(seed, 300_000);
    let put = world.put("/after all of it", &content).await;
    assert!(world.content(&put.entry.id, &[]).await.body == content);
    let (count, told) = (run.faults.len(), &run.faults[..run.faults.len().min(TOLD_MAX)]);
    assert!(count == 0, "{count} faults with seed {seed}:\n{}", told.join("\n"));
}

/// One operation that demands a token, of which everything is described that `faults` and the maker look at.
fn small() -> Contract {
    let body = json!({
        "type": "object",
        "required": ["n", "kind"],
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 5},
            "kind": {"$ref": "#/schemas/Kind"},
            "word": {"type": ["string", "null"]},
            "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
            "either": {"oneOf": [{"type": "null"}, {"type": "integer", "minimum": 0}]},
        },
        "additionalProperties": false,
    });
    let problem =
        json!({"application/problem+json": {"schema": {"type": "object", "properties": {"code": {"type": "string"}}}}});
    let mut responses = json!({"204": {}, "default": {"content": problem}});
    for status in ["400", "401", "429", "500", "503", "504", "507"] {
        responses[status] = json!({"content": problem, "headers": {"Retry-After": {"schema": {"type": "integer"}}}});
    }
    responses["401"]["headers"] = json!({"WWW-Authenticate": {"required": true, "schema": {"type": "string"}}});
    Contract::of(json!({
        "paths": {"/a/{id}": {"post": {
            "operationId": "a",
            "security": [{"bearer": []}],
            "parameters": [
                {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}},
                {"name": "limit", "in": "query", "required": false, "schema": {"type": "integer", "maximum": 90}},
                {"name": "If-Match", "in": "header", "required": false, "schema": {"type": "string"}},
            ],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/schemas/Body"}}}},
            "responses": responses,
        }}},
        "schemas": {"Body": body, "Kind": {"type": "string", "enum": ["x", "y"]}},
    }))
}

#[test]
fn a_fault_of_ours_an_answer_that_is_not_described_and_an_open_door_are_found() {
    let contract = small();
    let operation = Operation::all(&contract).remove(0);
    let request = Maker::new(&contract, SEED).make(&operation, Aim::Sound, &Given::default());
    let answer = |status: u16, body: Option<Value>, headers: &[(&str, &str)]| {
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        headers.push(("content-type".to_owned(), "application/problem+json".to_owned()));
        Answer {
            status: status.try_into().unwrap(),
            headers,
            body: body.map_or_else(Vec::new, |body| body.to_string().into_bytes()),
        }
    };
    let code = |word: &str| Some(json!({"code": word}));
    let later = [("retry-after", "1")];
    let found = |sender: Sender, answer: Answer| faults(&contract, &operation, (sender, &request), &answer).len();
    for (sender, fine) in [
        (Sender::Owner, answer(204, None, &[])),
        (Sender::Owner, answer(400, code("bad_json"), &[])),
        (Sender::Owner, answer(503, code("too_busy"), &later)),
        (Sender::Owner, answer(507, code("quota_exceeded"), &[])),
        (
            Sender::Nobody,
            answer(401, code("unauthenticated"), &[("www-authenticate", "Bearer")]),
        ),
    ] {
        assert_eq!(found(sender, fine), 0);
    }
    for (sender, faulty) in [
        (Sender::Owner, answer(500, code("bug"), &[])),
        (Sender::Owner, answer(503, code("too_busy"), &[])),
        (Sender::Owner, answer(503, code("content_unreadable"), &later)),
        (Sender::Owner, answer(504, code("outcome_unknown"), &later)),
        (Sender::Owner, answer(507, code("storage_full"), &[])),
        (Sender::Owner, answer(429, code("rate_exceeded"), &[])),
        // A body where none is described, a field that is not, and text that is no JSON.
        (Sender::Owner, answer(204, code("none"), &[])),
        (
            Sender::Owner,
            answer(400, Some(json!({"code": "bad_json", "more": 1})), &[]),
        ),
        (Sender::Owner, answer(400, None, &[])),
        // A status that only `default` covers, a header that lacks, one that is no number, and one that is not described.
        (Sender::Owner, answer(418, code("none"), &[])),
        (Sender::Owner, answer(401, code("unauthenticated"), &[])),
        (Sender::Owner, answer(503, code("too_busy"), &[("retry-after", "soon")])),
        (Sender::Owner, answer(400, code("bad_json"), &[("x-more", "1")])),
        (Sender::Nobody, answer(204, None, &[])),
        (Sender::Nobody, answer(400, code("bad_json"), &[])),
    ] {
        let text = format!("{faulty:?}");
        assert_eq!(found(sender, faulty), 1, "{text}");
    }
}

#[test]
fn an_unknown_outcome_is_a_fault_unless_the_request_says_an_hour_that_has_not_come() {
    let contract = small();
    let operation = Operation::all(&contract).remove(0);
    let answer = Answer {
        status: 504_u16.try_into().unwrap(),
        headers: vec![("content-type".to_owned(), "application/problem+json".to_owned())],
        body: json!({"code": "outcome_unknown"}).to_string().into_bytes(),
    };
    for (is_named, hour, count) in [(true, "1", 0), (true, "0", 1), (true, "soon", 1), (false, "1", 1)] {
        let mut request = Maker::new(&contract, SEED).make(&operation, Aim::Sound, &Given::default());
        let mut send = |name: &str, value| request.headers.push((name.to_owned(), HeaderValue::from_static(value)));
        send("holdfast-age-hour", hour);
        if is_named {
            send("idempotency-key", "k");
        }
        let found = faults(&contract, &operation, (Sender::Owner, &request), &answer);
        assert_eq!(found.len(), count, "{is_named} {hour}: {found:?}");
    }
}

#[test]
fn what_is_made_up_follows_from_the_seed_and_fits_the_schema_as_it_shall() {
    let contract = small();
    let operation = Operation::all(&contract).remove(0);
    let schema = json!({"$ref": "#/schemas/Body"});
    let bodies = |seed: u64, aim: Aim| -> Vec<MadeUp> {
        let mut maker = Maker::new(&contract, seed);
        let given = Given::default();
        (0..3_000).map(|_| maker.make(&operation, aim, &given)).collect()
    };
    for aim in [Aim::Sound, Aim::Allowed, Aim::Outside] {
        assert!(bodies(SEED, aim) == bodies(SEED, aim), "{aim:?}");
        // A sound request is what must be said: nothing of it is thrown.
        let differs = bodies(SEED, aim) != bodies(SEED + 1, aim);
        assert_eq!(differs, aim != Aim::Sound, "{aim:?}");
    }
    let fits = |request: &MadeUp| {
        let body: Option<Value> = serde_json::from_slice(request.body.as_deref().unwrap()).ok();
        body.is_some_and(|body| contract.faults(&schema, &body).is_empty())
    };
    for aim in [Aim::Sound, Aim::Allowed] {
        for request in bodies(SEED, aim) {
            assert!(fits(&request), "{request:?}");
        }
    }
    let outside = bodies(SEED, Aim::Outside);
    let unfit = outside.iter().filter(|request| !fits(request)).count();
    assert!(unfit > 500, "{unfit}");
    // Also what no text holds: bytes that are not UTF-8, an unpaired surrogate, an end in the middle.
    let is_text = |request: &&MadeUp| std::str::from_utf8(request.body.as_deref().unwrap()).is_ok();
    assert!(outside.iter().filter(is_text).count() < outside.len());
    let has = |mark: &[u8]| {
        let holds = |request: &MadeUp| {
            request
                .body
                .as_deref()
                .unwrap()
                .windows(mark.len())
                .any(|part| part == mark)
        };
        outside.iter().any(holds)
    };
    for mark in [
        b"\\ud800".as_slice(),
        b"\\u0000",
        b"18446744073709551615",
        b"nobody knows",
    ] {
        assert!(has(mark), "{}", String::from_utf8_lossy(mark));
    }
}
