//! Every code that a metadata group, a node or a gateway answers with, and one of every process: word, kind, and the sentence for
//! docs/errors.md.
//!
//! Invariant: a word has one kind for ever; clients decide by kind and word, people read the sentence.
//! Not here: the HTTP status (each front's table) and the fields of single failures (where they arise).

use crate::wire_error::Failure;
use model::error_kind::ErrorKind;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The stable word.
    pub word: &'static str,
    /// What it means for the caller.
    pub kind: ErrorKind,
    /// What is wrong and what to do about it.
    pub sentence: &'static str,
}

impl Code {
    /// A failure of this code that says its sentence.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::new(self.kind, self.word, self.sentence)
    }

    /// A failure of this code that says something more exact.
    #[must_use]
    pub fn because(&self, detail: impl Into<String>) -> Failure {
        Failure::new(self.kind, self.word, detail)
    }

    /// Whether `failure` is of this code.
    #[must_use]
    pub fn is(&self, failure: &Failure) -> bool {
        failure.code == self.word
    }
}

/// Makes a constant of each row of a table, and `ALL` of them in its order; gateways have a table of their own.
///
/// A row is the name of the constant, the word, the variant of `ErrorKind` and the sentence. `Code` and `ErrorKind` are those of the
/// caller.
#[macro_export]
macro_rules! codes {
    ($($name:ident $word:literal $kind:ident $sentence:literal)*) => {
        $(
            #[doc = $sentence]
            pub const $name: Code = Code { word: $word, kind: ErrorKind::$kind, sentence: $sentence };
        )*
        /// Every code, in the order of the table.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    NOT_FOUND "not_found" NotFound "It does not exist, or you may not know that it does; check the id or path."
    PARENT_NOT_FOUND "parent_not_found" NotFound "The folder that should hold it does not exist; make it first or ask for missing parents."
    VERSION_NOT_FOUND "version_not_found" NotFound "The file has no such version; list its versions."
    SESSION_NOT_FOUND "session_not_found" NotFound "The upload session is unknown or has ended; start a new one."
    PAGE_NOT_FOUND "page_not_found" NotFound "The drive does not have this page any more; name its rows."
    STRIPE_NOT_FOUND "stripe_not_found" NotFound "The group does not know this stripe."
    JOB_NOT_FOUND "job_not_found" NotFound "The job is unknown or done."
    USER_NOT_FOUND "user_not_found" NotFound "There is no such user."
    DEVICE_NOT_FOUND "device_not_found" NotFound "The user has no such device."
    NODE_NOT_FOUND "node_not_found" NotFound "The cluster map has no such node or disk."
    NAME_TAKEN "name_taken" Exists "Something of that name is there already; take another name or give its base version."
    USER_EXISTS "user_exists" Exists "The username is taken; take another."
    CLUSTER_EXISTS "cluster_exists" Exists "The group already serves another cluster; check the data directory."
    NUMBER_TAKEN "number_taken" Exists "The disk's number belongs to another node and is never used again; give the disk a number of its own."
    SETUP_DONE "setup_done" Exists "The cluster has its first administrator, so the setup token is spent; ask that one for an account."
    VERSION_CONFLICT "version_conflict" Conflict "Somebody committed another version first; read it and decide."
    REVISION_CONFLICT "revision_conflict" Conflict "The entry changed since you read it; read it again and decide."
    STALE_ROW "stale_row" Conflict "The stripe was counted under an older row version; fetch the row and count again."
    SLOT_OWNED "slot_owned" Conflict "The slot belongs to another group, with the drives in it; it stays there."
    STALE_MAP "stale_map" Conflict "The layout was planned from another cluster map or over newer rows; plan again."
    WRONG_POSITION "wrong_position" Conflict "The session has another number of rows; go on from the position given."
    LENGTH_DECLARED "length_declared" Conflict "The upload was declared to have the length given; go on with that one, or begin another upload."
    NEED_BLOCKS "need_blocks" Conflict "The drive lacks blocks that the content names; send those listed."
    BIRTH_EPOCH_CLOSED "birth_epoch_closed" Conflict "The stripe's birth epoch is closed or ahead; write it again under a new id."
    STRIPE_EXISTS "stripe_exists" Conflict "The stripe id is known with another content; draw a new id."
    NOT_IN_TRASH "not_in_trash" Conflict "The entry is not in the trash itself; restore the folder that was trashed."
    IN_TRASH "in_trash" Conflict "The entry or a folder above it is in the trash; restore it first."
    LEASE_LOST "lease_lost" Conflict "Another gateway removes the group's stripes by now; take a lease before going on."
    PAGE_OPEN "page_open" Conflict "The session's last page is not ended; end it before the commit."
    CYCLE "cycle" Invalid "A folder cannot be moved into itself or below itself."
    TOO_DEEP "too_deep" Invalid "The tree would pass 100 folders; keep it flatter."
    CROSS_DRIVE "cross_drive" Invalid "The entry and the folder lie in different drives; copy it instead."
    ROOT_FIXED "root_fixed" Invalid "The root of a drive cannot be renamed, moved, copied, trashed or removed."
    PARENT_NOT_FOLDER "parent_not_folder" Invalid "What should hold it is a file; name a folder."
    NOT_A_FILE "not_a_file" Invalid "It is a folder; this works on files."
    NOT_A_FOLDER "not_a_folder" Invalid "It is a file; this works on folders."
    PATH_TOO_LONG "path_too_long" Invalid "The path passes 4096 bytes; use shorter names."
    BASE_VERSION_MISSING "base_version_missing" Invalid "A new content of a known file needs the version that it follows."
    REQUEST_ID_REUSED "request_id_reused" Invalid "The request id was used for another request; draw a new one."
    SIZE_MISMATCH "size_mismatch" Invalid "The lengths given do not add up; send the content again."
    KEK_DIFFERS "kek_differs" Invalid "The cluster's drive keys are wrapped by another KEK; put that one's file back, with this one no content can be opened."
    MALFORMED_STRIPE "malformed_stripe" Invalid "The stripe's profile, slot, lengths or blocks do not fit together."
    MALFORMED_PAGE "malformed_page" Invalid "The page has no row, too many rows, or other rows than one of the same digest."
    MALFORMED_COMMAND "malformed_command" Invalid "A part of the command is missing or does not fit the others."
    MALFORMED_MESSAGE "malformed_message" Invalid "The bytes are no message of this protocol."
    BAD_PAGE_TOKEN "bad_page_token" Invalid "The page token is none that was given out; list from the start."
    OWN_ACCOUNT "own_account" Invalid "An administrator cannot disable or delete the account that asks; let another administrator do it."
    BAD_LIMIT "bad_limit" Invalid "The limit must be 1 to 1000."
    BAD_RETENTION "bad_retention" Invalid "A drive keeps 1 to 10,000 versions of a file, each for a second to ten years after another took its place."
    BAD_RANGE "bad_range" Invalid "The range lies outside the content."
    REWIND_RUNNING "rewind_running" Conflict "A rewind of the drive is under way; wait until its job has ended."
    COPIES_RUNNING "copies_running" Conflict "Eight copies of large folders are under way in the drive; wait until one has ended, or cancel one."
    COPY_CANCELLED "copy_cancelled" Conflict "The copy was cancelled, and nothing of it stays; copy again to have it."
    SOURCE_CHANGED "source_changed" Conflict "The folder was changed while it was copied in a way that the copy cannot follow; copy it again."
    REWIND_NOT_PLANNED "rewind_not_planned" Conflict "The job is no dry run that has ended; only what a dry run has listed can be run."
    FOLDER_NOT_EMPTY "folder_not_empty" Conflict "The folder holds something that stays; it stays with it."
    REWIND_IN_FUTURE "rewind_in_future" Invalid "The instant is not past yet; take one that is."
    REWIND_TOO_OLD "rewind_too_old" Invalid "The instant lies before the entry was made, or further back than the drive keeps old versions; take a later one."
    REWIND_TOO_LARGE "rewind_too_large" TooLarge "More than 1,000,000 entries are to be changed; rewind the folder's parts one by one."
    COMMAND_TOO_LARGE "command_too_large" TooLarge "The command passes 1 MiB or 1,000 sub-operations; send it in parts."
    COPY_TOO_LARGE "copy_too_large" TooLarge "The copy takes more than 1,000 sub-operations in one command, one for each entry and page; a folder is copied by a job, a file of that many pages is uploaded again."
    FILE_TOO_LARGE "file_too_large" TooLarge "A file has at most 10 GiB."
    QUOTA_EXCEEDED "quota_exceeded" Exhausted "The drive's quota is used up; delete something for good or ask for more."
    LISTS_FULL "lists_full" Exhausted "The uploads of the drive that have begun and not ended announce 1,048,576 blocks together; commit some of them, or wait until they end by their age."
    SESSIONS_FULL "sessions_full" Exhausted "10,000 uploads of the drive have begun and not ended; cancel those that are not wanted, or wait until they end by their age of seven days."
    DENIED "denied" Denied "You may see it and not do this."
    USER_DISABLED "user_disabled" Denied "The account is disabled; ask an administrator."
    TOKEN_UNKNOWN "token_unknown" Denied "The token is unknown or was revoked; log in again."
    TOKEN_EXPIRED "token_expired" Denied "The token has expired; refresh it or log in again."
    DEVICE_REVOKED "device_revoked" Denied "The device was revoked; log in as a new one."
    LEASE_TAKEN "lease_taken" Busy "Another gateway removes the group's stripes at present; try again when its lease is over."
    ID_TAKEN "id_taken" Busy "A random id is taken; draw another and try again."
    NOT_MINE "not_mine" Unavailable "The group does not own this slot; fetch the routes and ask their group."
    WRONG_ROLE "wrong_role" Invalid "The process does not serve this call; ask one of the role that does."
    NOT_CONFIGURED "not_configured" Unavailable "The group has not been told its settings yet; try again."
    RECOVERING "recovering" Unavailable "The replica has just started and has not caught up with its group yet; try again or ask another one."
    OVERLOADED "overloaded" Busy "More requests wait than can be answered in time; nothing was done, try again after a pause."
    OUTCOME_UNKNOWN "outcome_unknown" Ambiguous "The request is too old to tell whether it happened; read before trying again."
    RESET "reset" Reset "The feed does not go on from this cursor; read the tree anew and follow from a cursor taken before."
    CORRUPT_RECORD "corrupt_record" Corrupt "A stored record cannot be read; an administrator must look at this replica."
    BUG "bug" Bug "Something happened that must not; report it with the request id."
}

/// The row of a word; `None` for a word that no release knows.
#[must_use]
pub fn find(word: &str) -> Option<&'static Code> {
    ALL.iter().find(|code| code.word == word)
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_word_is_there_once_and_says_a_sentence() {
        for (at, code) in ALL.iter().enumerate() {
            assert!(
                ALL[at + 1..].iter().all(|other| other.word != code.word),
                "{} is doubled",
                code.word
            );
            assert!(code.sentence.ends_with('.'), "{}", code.word);
            assert!(
                code.word
                    .bytes()
                    .all(|letter| letter.is_ascii_lowercase() || letter == b'_'),
                "{}",
                code.word
            );
        }
    }
}
