//! Which foreign services the project could speak to: none. Cargo.lock is looked through for their client libraries.
//!
//! Everything that is linked stands in Cargo.lock, so what is not there cannot be called, by whatever path it would have come.
//! Services share no database either: each opens its own, in `src/roles.rs`, and none is linked into another.
//! Not here: what a running cluster is connected to (tests/cluster).

use crate::tree::{Fault, Source};

/// Beginnings of the names of clients for object stores, databases, caches, message brokers and coordination services.
const CLIENTS: [&str; 38] = [
    "aliyun-oss",
    "amqp",
    "async-nats",
    "aws-config",
    "aws-sdk",
    "aws-sigv4",
    "aws-smithy",
    "azure_",
    "cassandra",
    "cloud-storage",
    "consul",
    "cos-rust",
    "diesel",
    "elasticsearch",
    "etcd",
    "fdb",
    "foundationdb",
    "gcloud-",
    "google-cloud",
    "kafka",
    "lapin",
    "libpq",
    "memcache",
    "minio",
    "mongodb",
    "mysql",
    "nats",
    "object_store",
    "opendal",
    "postgres",
    "pulsar",
    "rdkafka",
    "redis",
    "rusoto",
    "rust-s3",
    "sea-orm",
    "sqlx",
    "zookeeper",
];

/// Packages of a Cargo.lock that are clients of a foreign service.
pub(crate) fn clients(lock: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in lock.lines().enumerate() {
        let Some(name) = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')) else {
            continue;
        };
        let plain = name.trim_start_matches("tokio-").trim_start_matches("deadpool-");
        if CLIENTS
            .iter()
            .any(|client| name.starts_with(client) || plain.starts_with(client))
        {
            faults.push(Fault::new(
                "Cargo.lock",
                number + 1,
                format!("`{name}` is a client of a service that is not ours"),
            ));
        }
    }
    faults
}

/// Packages that run as services, and what of a store each may open.
const SERVICES: [(&str, &[&str]); 3] = [
    ("node", &["kv", "disk"]),
    ("metadata-raft", &["kv", "disk"]),
    ("gateway", &[]),
];

/// Ways in which two services could come to one database: a store that a service should not have, one service that is linked into
/// another, a store that is opened anywhere but where each role gets a directory of its own.
pub(crate) fn shared_databases(manifests: &[(String, String)], sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (service, stores) in SERVICES {
        let Some((_, manifest)) = manifests.iter().find(|(name, _)| name == service) else {
            faults.push(Fault::new(service, 1, "the service was not found"));
            continue;
        };
        let (wanted, _) = manifest.split_once("[dev-dependencies]").unwrap_or((manifest, ""));
        for (number, line) in wanted.lines().enumerate() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let is_store = ["kv", "disk", "rocksdb"].contains(&name) && !stores.contains(&name);
            let is_service =
                SERVICES.iter().any(|(other, _)| *other == name) && line.contains('=') && !line.starts_with("name");
            if is_store || is_service {
                faults.push(Fault::new(service, number + 1, format!("depends on `{name}`")));
            }
        }
    }
    for source in sources
        .iter()
        .filter(|source| source.path.contains("src/") && !source.path.ends_with("tests.rs"))
    {
        let is_opener =
            source.path.starts_with("crates/kv/") || source.path == "src/roles.rs" || source.path.contains("/tests/");
        for (number, line) in source.text.lines().enumerate() {
            if line.contains(concat!("RocksKv::", "open(")) && !is_opener {
                faults.push(Fault::new(
                    &source.path,
                    number + 1,
                    "a database is opened outside of src/roles.rs",
                ));
            }
        }
    }
    faults
}
