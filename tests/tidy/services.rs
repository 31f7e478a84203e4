//! Which foreign services the project could speak to: none. Cargo.lock is looked through for their client libraries.
//!
//! Everything that is linked stands in Cargo.lock, so what is not there cannot be called, by whatever path it would have come.
//! Not here: what a running cluster is connected to (tests/cluster).

use crate::tree::Fault;

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
