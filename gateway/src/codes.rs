//! The codes that a gateway itself answers with; those of metadata groups are in `protocol::codes`.
//!
//! Invariant: no word of this table is in the other.

use model::error_kind::ErrorKind;
use protocol::codes::Code;

protocol::codes! {
    ROUTE_NOT_FOUND "route_not_found" NotFound "There is nothing at this address; see /api/v1/openapi.json."
    FUNCTION_OFF "function_off" NotFound "This gateway does not serve this part of the API; ask another gateway of the cluster."
    METHOD_NOT_ALLOWED "method_not_allowed" Invalid "The address does not know this method; see the Allow header."
    UNAUTHENTICATED "unauthenticated" Denied "The request needs a token; get one from /api/v1/auth/token and send it as Authorization: Bearer."
    TOKEN_MALFORMED "token_malformed" Denied "The token has not the form of one; send it as it was given."
    WRONG_PASSWORD "wrong_password" Denied "Name or password is wrong; check both."
    SETUP_TOKEN_WRONG "setup_token_wrong" Denied "This is not the cluster's setup token; `holdfast init` printed it."
    TICKET_INVALID "ticket_invalid" Denied "The ticket was not given out for this block; ask for another."
    TICKET_EXPIRED "ticket_expired" Denied "The ticket is older than 15 minutes; ask for another."
    ADMIN_ONLY "admin_only" Denied "Only an administrator may do this."
    WRONG_TOKEN_USE "wrong_token_use" Denied "This is a refresh token; trade it for an access token first."
    BAD_PASSWORD "bad_password" Invalid "A password has 8 to 1024 bytes; choose another."
    BAD_NAME "bad_name" Invalid "The name or path is not allowed; see the detail."
    BAD_ID "bad_id" Invalid "The id has not the form of one; send it as it was given."
    BAD_DIGEST "bad_digest" Invalid "A digest is 64 letters of lower-case hex; send it as it was computed."
    BAD_SPLICES "bad_splices" Invalid "The splices do not fit the version that they name; see the detail, or send all digests."
    CURSOR_INVALID "cursor_invalid" Invalid "The cursor or page token is not as it was given to you; take a new one, then list what there is."
    DIGEST_MISMATCH "digest_mismatch" Invalid "The bytes are not those that the digest names; nothing was kept."
    BAD_JSON "bad_json" Invalid "The body is not the JSON that this call takes; see the detail."
    BAD_QUERY "bad_query" Invalid "The query is not what this call takes; see the detail."
    BAD_HEADER "bad_header" Invalid "A header has not the form that it must have; see the detail."
    BAD_MULTIPART "bad_multipart" Invalid "The body is not multipart/related with a JSON part and a content part; see the detail."
    BAD_IDEMPOTENCY_KEY "bad_idempotency_key" Invalid "An Idempotency-Key has 1 to 255 printable bytes."
    BAD_CONTENT_RANGE "bad_content_range" Invalid "The request's Content-Range does not fit its length or the upload; ask how far the upload is, and go on from there."
    UPLOAD_URL_INVALID "upload_url_invalid" NotFound "The upload's address is not as it was given; start a new upload."
    TUS_VERSION "tus_version" Conflict "This address speaks tus 1.0.0; say so in Tus-Resumable."
    JOB_NOT_CANCELLABLE "job_not_cancellable" Conflict "The job is a rewind, which goes on to its end; only a copy can be cancelled."
    OFFSET_CONFLICT "offset_conflict" Conflict "The upload is elsewhere by now; go on from its offset."
    CHECKSUM_MISMATCH "checksum_mismatch" Invalid "The bytes do not fit their checksum; nothing of them was kept, send them again."
    BODY_CUT "body_cut" Invalid "The body did not come whole; nothing was kept, send it again."
    BODY_STALLED "body_stalled" Invalid "The body stopped coming; nothing was kept, send it again without pausing."
    UNSUPPORTED_MEDIA "unsupported_media" Invalid "The body has a media type that this call does not take."
    RANGE_NOT_SATISFIABLE "range_not_satisfiable" Invalid "The range lies outside the content; see Content-Range."
    PRECONDITION_FAILED "precondition_failed" Conflict "The content or the entry is another by now; read it again and decide."
    BODY_TOO_LARGE "body_too_large" TooLarge "The body passes the limit of this call."
    BATCH_TOO_LARGE "batch_too_large" TooLarge "A batch has at most 1,000 files and 12 MiB, and all or nothing what one command of 1 MiB names; send it in parts."
    BLOCK_TOO_LARGE "block_too_large" TooLarge "A block has at most 4 MiB; cut the content as the drive's parameters say."
    RATE_EXCEEDED "rate_exceeded" Exhausted "You have as much under way as is left for all others; go slower, and try again after Retry-After."
    TOO_BUSY "too_busy" Busy "Too much is under way at this gateway; try again after Retry-After."
    TOO_FEW_DISKS "too_few_disks" Unavailable "Too few disks are reachable to keep the content safely; try again."
    STORAGE_FULL "storage_full" Exhausted "The disks have no room for the content; an administrator must add some."
    CONTENT_UNREADABLE "content_unreadable" Unavailable "Too few fragments of the content are reachable at present; try again."
    METADATA_UNREACHABLE "metadata_unreachable" Unavailable "No leader of the metadata group answers at present; try again."
    ROW_CHANGED "row_changed" Unavailable "The layout changed while the content was written; send it again."
    STOPPING "stopping" Unavailable "This gateway is stopping; try again, elsewhere if you can."
    CONTENT_CORRUPT "content_corrupt" Corrupt "Every copy of a part of the content fails its check; an administrator must look."
    KEY_UNUSABLE "key_unusable" Corrupt "The drive's key cannot be opened with this cluster's KEK; an administrator must look."
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_word_is_in_both_tables_or_twice() {
        for (at, code) in super::ALL.iter().enumerate() {
            assert!(protocol::codes::find(code.word).is_none(), "{}", code.word);
            assert!(
                super::ALL[at + 1..].iter().all(|other| other.word != code.word),
                "{}",
                code.word
            );
        }
    }
}
