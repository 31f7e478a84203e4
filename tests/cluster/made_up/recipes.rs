//! What has to be there before a request to an operation can succeed: a file of its own, an upload that was begun, an account, a node
//! that is stopped.
//!
//! Invariant: what a recipe makes is new and nobody else's, and its files lie in the root, so that no other request made up can spoil
//! it.
//! Not here: what the document alone tells of a sound request (`maker`).

use super::Run;
use super::maker::Given;
use super::operation::Operation;
use crate::served::eventually;
use crate::world::{Answer, PASSWORD, answer};
use api::entry::Entry;
use api::file_batch::BatchFile;
use api::rewind::{JobQuery, JobState};
use api::sync::SyncRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::delta::CutContent;
use model::digest::Digest;
use model::limits::COMMAND_OPERATIONS_MAX;
use reqwest::Method;
use serde_json::{Value, json};

const CONTENT: &[u8] = b"made up for itself";

/// A block that an upload lacks.
struct Lacking {
    upload: String,
    digest: Digest,
    bytes: Bytes,
}

impl Run<'_> {
    /// What a sound request to `operation` needs, and who sends it.
    pub(crate) async fn prepared(&mut self, operation: &Operation) -> (Given, Client) {
        let mut given = self.held(operation);
        let mut client = self.owner(operation).clone();
        match operation.id.as_str() {
            "list_entry" => given.set("path", "/"),
            "drive_changes" => given.set("pageToken", self.cursor(operation)),
            "change_entry"
            | "delete_entry"
            | "copy_entry"
            | "list_versions"
            | "restore_version"
            | "content"
            | "list_blocks"
            | "replace_content"
            | "replace_content_by_put" => {
                given.set("id", self.file().await.id);
                given.set("version", 1);
                given.set("uploadType", "resumable");
            }
            "list_twins" => given.set("id", self.file().await.parent),
            "restore_entry" => {
                let id = self.file().await.id;
                self.user.trash(&id).await.unwrap();
                given.set("id", id);
            }
            "job" | "run_job" => given.set("id", self.planned().await),
            "cancel_job" => given.set("id", self.copying().await),
            "rewind_entry" => {
                // Only one rewind of a drive is under way at a time, and this one has ended.
                self.planned().await;
                let file = self.file().await;
                given.set("id", file.id);
                given.set("to", file.created_at.to_string());
            }
            "drive" | "change_drive" => given.set("id", self.user.me().await.unwrap().drive),
            "change_user" | "delete_user" => given.set("id", self.account().await.1),
            "change_password" => {
                let (name, _) = self.account().await;
                client = client.login(&name, PASSWORD).await.unwrap();
                given.set("old_password", PASSWORD);
            }
            "stop_node" => given.set("id", self.world.nodes()[0]),
            "start_node" => {
                // Whatever is answered, it is started again afterwards.
                let node = self.world.nodes()[0];
                self.world.stop_node(node).await;
                given.set("id", node);
            }
            "token" => {
                given.set("username", super::NAME);
                given.set("password", PASSWORD);
            }
            _ => self.prepare_upload(operation, &mut given).await,
        }
        (given, client)
    }

    /// The same for what takes contents in.
    async fn prepare_upload(&mut self, operation: &Operation, given: &mut Given) {
        match operation.id.as_str() {
            "upload" => given.media = Some("application/octet-stream"),
            "put_chunk" | "post_chunk" | "upload_progress" | "cancel_upload" => {
                given.set("key", self.resumable().await);
                given.bytes = Some(CONTENT.to_vec());
            }
            "tus_create" | "tus_offset" | "tus_append" | "tus_terminate" | "tus_override" => {
                if operation.id != "tus_create" {
                    given.set("key", self.tus().await);
                }
                given.set("Upload-Length", CONTENT.len());
                given.set("Upload-Metadata", self.metadata());
                given.set("Upload-Offset", 0);
                given.set("X-HTTP-Method-Override", "PATCH");
                given.bytes = Some(CONTENT.to_vec());
            }
            "sync_file" => {
                given.set("id", "new");
                given.set("new_block_hashes", json!([Digest([7; 32]).to_hex()]));
            }
            "commit_file" => {
                let lacking = self.lacking().await;
                let sent = self.user.put_block(&lacking.upload, &lacking.digest, lacking.bytes);
                sent.await.unwrap();
                given.set("id", "new");
                given.set("upload_id", lacking.upload);
            }
            "put_block" | "block_ticket" => {
                let lacking = self.lacking().await;
                given.set("digest", lacking.digest.to_hex());
                given.set("upload_id", lacking.upload);
                given.set("size", lacking.bytes.len());
                given.bytes = Some(lacking.bytes.to_vec());
            }
            _ => {}
        }
    }

    /// A new file.
    async fn file(&mut self) -> Entry {
        let target = Target::new_file(format!("/own {}", self.maker.number()));
        self.user.put(&target, CONTENT.into()).await.unwrap().entry
    }

    /// A dry run of a rewind that has ended.
    async fn planned(&mut self) -> String {
        let file = self.file().await;
        let path = format!("/api/v1/metadata/{}/rewind", file.id);
        let wanted = json!({"to": file.created_at, "dry_run": true});
        let (world, user) = (self.world, &self.user);
        let id = eventually("no other rewind is under way", async || {
            let begun = world.call_as(user, Method::POST, &path, Some(&wanted)).await;
            match begun.status.as_u16() {
                202 => Ok(text(&begun, "id")),
                _ => Err(format!("{begun:?}")),
            }
        })
        .await;
        eventually("a dry run ends", async || {
            let report = user.job(&id, &JobQuery::default()).await;
            match report.map_err(|error| error.to_string())?.job.state {
                JobState::Looking | JobState::Working => Err("it is under way".to_owned()),
                JobState::Planned | JobState::Done | JobState::Stopped => Ok(()),
            }
        })
        .await;
        id
    }

    /// A copy that a job makes.
    async fn copying(&mut self) -> String {
        let number = self.maker.number();
        let folder = self.user.make_folder(&format!("/own {number}")).await.unwrap();
        let empty = |name: usize| {
            let file = BatchFile {
                path: Some(format!("/own {number}/{name}")),
                ..BatchFile::default()
            };
            (file, Bytes::new())
        };
        // With the folder one entry more than a command copies.
        let files: Vec<_> = (0..COMMAND_OPERATIONS_MAX).map(empty).collect();
        self.user.create_batch(&files, false).await.unwrap();
        let path = format!("/api/v1/metadata/{}/copy", folder.id);
        let wanted = json!({"path": format!("/own copy {number}")});
        text(&self.made(&self.user, &path, &wanted).await, "id")
    }

    /// The name and the id of a new account.
    async fn account(&mut self) -> (String, String) {
        let name = format!("own-{}", self.maker.number());
        let wanted = json!({"username": name, "password": PASSWORD});
        let made = self.made(&self.admin, "/api/v1/users", &wanted).await;
        (name, text(&made, "id"))
    }

    /// The key of an upload that was begun.
    async fn resumable(&mut self) -> String {
        let wanted = json!({"path": format!("/own {}", self.maker.number())});
        let path = "/api/v1/files/upload?uploadType=resumable";
        text(&self.made(&self.user, path, &wanted).await, "upload_id")
    }

    /// The same by tus.
    async fn tus(&mut self) -> String {
        let request = self.user.request(Method::POST, "/api/v1/tus");
        let request = request
            .header("tus-resumable", "1.0.0")
            .header("upload-length", CONTENT.len().to_string())
            .header("upload-metadata", self.metadata());
        let begun = answer(request).await;
        assert_eq!(begun.status, 201, "{begun:?}");
        super::key_in(&begun).unwrap().to_owned()
    }

    /// Where an upload by tus goes.
    fn metadata(&mut self) -> String {
        format!("path {}", STANDARD.encode(format!("/own {}", self.maker.number())))
    }

    /// An upload of one block that was not sent yet.
    async fn lacking(&mut self) -> Lacking {
        let number = self.maker.number();
        let bytes = Bytes::from(format!("a block of its own: {number}"));
        let key = self.user.digest_key().await.unwrap();
        let digest = CutContent::of(bytes.clone(), &key).rows[0].digest;
        let wanted = SyncRequest {
            path: Some(format!("/own {number}")),
            new_block_hashes: Some(vec![digest.to_hex()]),
            ..SyncRequest::default()
        };
        let upload = self.user.sync("new", &wanted).await.unwrap().upload_id;
        Lacking { upload, digest, bytes }
    }

    async fn made(&self, client: &Client, path: &str, wanted: &Value) -> Answer {
        let made = self.world.call_as(client, Method::POST, path, Some(wanted)).await;
        assert!(made.status.is_success(), "{path}: {made:?}");
        made
    }
}

fn text(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap().to_owned()
}
