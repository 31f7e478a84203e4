//! Where a storage node fetches newer rows: the control group.

use async_trait::async_trait;
use gateway::drive::metadata_client::MetadataClient;
use model::error_kind::ErrorKind;
use model::profile::ProfileId;
use node::rows::RowSource;
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::RowsUpdate;
use protocol::wire_error::Failure;
use std::sync::Arc;

/// Asks the control group under the node's own identity.
pub(crate) struct ControlRows {
    pub(crate) metadata: Arc<MetadataClient>,
}

#[async_trait]
impl RowSource for ControlRows {
    async fn fetch(&self, profile: ProfileId) -> Result<RowsUpdate, Failure> {
        match self
            .metadata
            .query(&Query::Control(ControlQuery::Layout(Some(profile))), 0)
            .await?
            .0
        {
            QueryAnswer::Layout(layout) => match layout.tables.get(&profile) {
                Some(table) => {
                    let rows = (0_u32..).zip(table.rows.iter().cloned()).collect();
                    Ok(RowsUpdate {
                        profile,
                        pg_bits: table.pg_bits,
                        rows,
                    })
                }
                None => Err(Failure::new(
                    ErrorKind::Unavailable,
                    "row_unknown",
                    "the profile has no rows yet; try again",
                )),
            },
            _ => Err(Failure::bug("asked for a layout, was answered something else")),
        }
    }
}
