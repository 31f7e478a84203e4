//! Making a fragment anew from others of its stripe.
//!
//! Place in the picture: a repair queue calls this with the row's holders; the queue itself is not here yet.
//! Invariants: only fragments of the wanted form are decoded together; nothing is accepted unless the decoded stripe has the hash
//! that the form names, so a rebuilt fragment is never a guess; no existing copy is touched.
//! Not here: which fragments need it, and their order (placement, metadata).

use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use model::id::DiskId;
use model::stripe::{FragmentName, StripeForm};
use protocol::frame::{Call, Method, decode, encode};
use protocol::node::{ByteRange, FragmentRead, ReadFragment};
use rpc::transport::{Peer, Transport};
use std::time::Duration;
use thiserror::Error;

/// A holder of another fragment of the stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which fragment.
    pub index: u8,
    /// The node.
    pub peer: Peer,
    /// Its disk.
    pub disk: DiskId,
}

/// Why a fragment was not rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RepairError {
    /// Fewer than k whole fragments of the form answered; each refusal is named.
    #[error("rebuild fragment: {found} of {needed} fragments: {refusals}")]
    TooFew {
        /// Whole fragments of the form.
        found: usize,
        /// k.
        needed: usize,
        /// What the others said.
        refusals: String,
    },
    /// No k of the fragments make the stripe that the form names.
    #[error("rebuild fragment: no {needed} fragments make the stripe")]
    OtherStripe {
        /// k.
        needed: usize,
    },
    /// The name and the form do not belong together.
    #[error("rebuild fragment: {0}")]
    Malformed(String),
}

/// Rebuilds fragment `name` of a stripe of `form` from `holders`, asked in their order, one after the other.
///
/// Returns the fragment ready to be stored. Reads k fragments, more when some are bad. May be dropped midway.
/// Errors: as in `RepairError`; all may pass when more holders answer.
pub async fn rebuild_fragment(
    transport: &dyn Transport,
    name: FragmentName,
    form: StripeForm,
    holders: &[Holder],
    deadline: Duration,
) -> Result<(FragmentHeader, Bytes), RepairError> {
    let needed = usize::from(form.k);
    let count = needed + usize::from(form.m);
    let mut fragments: Vec<Option<Bytes>> = vec![None; count];
    let mut refusals = Vec::new();
    let mut is_other = false;
    for holder in holders {
        if holder.index == name.index || fragments.get(usize::from(holder.index)).is_none_or(Option::is_some) {
            continue;
        }
        match fetch(transport, name, form, holder, deadline).await {
            Ok(payload) => fragments[usize::from(holder.index)] = Some(payload),
            Err(refusal) => {
                refusals.push(format!("index {} on disk {}: {refusal}", holder.index, holder.disk));
                continue;
            }
        }
        if fragments.iter().flatten().count() >= needed {
            match combine(&form, &fragments, name.index) {
                Ok(payload) => return describe(name, form, payload),
                Err(()) => is_other = true,
            }
        }
    }
    if is_other {
        return Err(RepairError::OtherStripe { needed });
    }
    let found = fragments.iter().flatten().count();
    Err(RepairError::TooFew {
        found,
        needed,
        refusals: refusals.join("; "),
    })
}

async fn fetch(
    transport: &dyn Transport,
    name: FragmentName,
    form: StripeForm,
    holder: &Holder,
    deadline: Duration,
) -> Result<Bytes, String> {
    let name = FragmentName {
        index: holder.index,
        ..name
    };
    let request = ReadFragment {
        name,
        disk: holder.disk,
        ranges: vec![ByteRange::whole(&form)],
    };
    let message = encode(&request).map_err(|failure| failure.to_string())?;
    let call = Call {
        method: Method::ReadFragment,
        request_id: 0,
        message,
        payload: Bytes::new(),
    };
    let answer = transport
        .call(&holder.peer, call, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let facts: FragmentRead = decode(&answer.message).map_err(|failure| failure.to_string())?;
    if facts.form != form {
        return Err("it is of another stripe form".to_owned());
    }
    // The holder checked its bytes; this checks what arrived, against the hash that was made when it was first stored.
    let header = FragmentHeader::describe(name, form, &answer.payload).map_err(|error| error.to_string())?;
    if header.payload_hash() != &facts.payload_hash.0 {
        return Err("its payload does not have its hash".to_owned());
    }
    Ok(answer.payload)
}

/// Tries every k of the fragments until one choice makes the stripe; the first choice nearly always does.
fn combine(form: &StripeForm, fragments: &[Option<Bytes>], wanted: u8) -> Result<Bytes, ()> {
    let present: Vec<usize> = (0..fragments.len())
        .filter(|index| fragments[*index].is_some())
        .collect();
    let needed = usize::from(form.k);
    for choice in 0_u32..1 << present.len() {
        if choice.count_ones() as usize != needed {
            continue;
        }
        let mut chosen: Vec<Option<Bytes>> = vec![None; fragments.len()];
        for (bit, index) in present.iter().enumerate() {
            if choice & (1 << bit) != 0 {
                chosen[*index].clone_from(&fragments[*index]);
            }
        }
        if let Ok(mut rebuilt) = erasure::rebuild(form, &chosen, &[wanted])
            && let Some(payload) = rebuilt.pop()
        {
            return Ok(payload);
        }
    }
    Err(())
}

fn describe(name: FragmentName, form: StripeForm, payload: Bytes) -> Result<(FragmentHeader, Bytes), RepairError> {
    let header =
        FragmentHeader::describe(name, form, &payload).map_err(|error| RepairError::Malformed(error.to_string()))?;
    Ok((header, payload))
}
