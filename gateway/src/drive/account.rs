//! Accounts: making and changing them, signing in, and who a token belongs to.
//!
//! Invariants: this file sees hashes of passwords and of tokens' secrets, never the secrets; a token is known for at most
//! `TOKEN_REMEMBERED` after the user's group was asked, and what ends it through this gateway counts here at once. For a poll to begin
//! with, and for nothing else, it is known for longer while its group tells of ended tokens (decision 0055).
//! Not here: argon2 and the form of tokens (`auth`).

use crate::codes;
use crate::drive::{Caller, Core, expect};
use model::authorize::Principal;
use model::id::{DriveId, Slot, UserId};
use model::limits::{
    BLOCK_BYTES_AVG, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PAGE_BLOCKS_MAX, PAGE_BLOCKS_MIN, PAGE_END_BITS,
};
use model::name::Username;
use protocol::metadata::control::ControlCommand;
use protocol::metadata::query::{DriveAsk, DriveFacts, Usage, UserQuery};
use protocol::metadata::user::{
    CutParameters, LoginFacts, NewDrive, NewToken, TokenFacts, TokenHash, UserCommand, UserRecord,
};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer, RequestKey};
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;

/// The one fixed table of this release.
pub const CUT: CutParameters = CutParameters {
    level: 1,
    min_bytes: BLOCK_BYTES_MIN as u32,
    avg_bytes: BLOCK_BYTES_AVG as u32,
    max_bytes: BLOCK_BYTES_MAX as u32,
    page_min: PAGE_BLOCKS_MIN as u16,
    page_max: PAGE_BLOCKS_MAX as u16,
    page_bits: PAGE_END_BITS as u8,
};

/// How long a token counts without being asked for again: a revocation at another gateway counts within this (decision 0027).
pub const TOKEN_REMEMBERED: Duration = Duration::from_secs(1);
/// Living tokens that a gateway remembers; about 400 bytes each.
pub const TOKENS_REMEMBERED_MAX: usize = 16_384;
/// How long a token counts for the beginning of polls without being asked for again, while the group that tells of its end is watched
/// without a gap (decision 0055). Longer than a poll waits, so that it is known still when the client comes again; bounded because a
/// leader of a release before decision 0053 tells nothing of tokens.
pub const POLL_TOKEN_REMEMBERED: Duration = Duration::from_secs(600);
/// How long a drive's key and cut are known without being asked for again. They do not change; what may, as the account's right to
/// the drive, is checked by the command itself.
pub const DRIVE_REMEMBERED: Duration = Duration::from_secs(60);
/// Drives that a gateway remembers; about 300 bytes each.
pub const DRIVES_REMEMBERED_MAX: usize = 16_384;

/// An account to be made.
pub struct NewUser {
    /// The folded name.
    pub name: Username,
    /// argon2id in PHC form.
    pub password_hash: String,
    /// Bytes that the home drive may hold; the cluster's default when `None`.
    pub quota_bytes: Option<u64>,
    /// Whether it administers the cluster.
    pub is_admin: bool,
}

impl Core {
    /// Makes an account with its home drive. Whether the caller may is checked by whoever has one (`http::users`); the first
    /// start of a cluster has none. Of `key` the hour of its making is left out: it is one of the caller's slot, and the account lies in
    /// its own; a repeat whose row has gone finds the name taken.
    pub async fn create_user(&self, new: NewUser, key: Option<RequestKey>, trace: u128) -> Result<UserRecord, Failure> {
        let known = self.directory.known(trace).await?;
        // Asked each time: a key that was wrapped by another KEK could never be opened by the cluster's other gateways.
        let kek = self.seals.kek_id();
        self.settle(ControlCommand::AdoptKek { kek }, trace).await?;
        let slot = Slot::of_username(new.name.as_str());
        let (user, drive) = (
            UserId::new(slot, self.seams.random.u64()),
            DriveId::new(slot, self.seams.random.u64()),
        );
        let (wrapped_key, kek_id) = self.seals.new_key(drive);
        let home = NewDrive {
            drive,
            wrapped_key,
            kek_id,
            profile: known.settings.default_profile,
            quota_bytes: new.quota_bytes.unwrap_or(known.settings.default_quota_bytes),
            cut: CUT,
        };
        let NewUser {
            name,
            password_hash,
            is_admin,
            ..
        } = new;
        let command = UserCommand::CreateUser {
            name,
            user,
            home,
            password_hash,
            is_admin,
        };
        let key = key.map(|key| RequestKey { made_hour: None, ..key });
        self.user_command(command, key, trace).await
    }

    /// Spends the setup token for `name`; the same name again is no error, another is `setup_done`.
    pub async fn claim_setup(&self, name: &Username, trace: u128) -> Result<(), Failure> {
        let name = name.as_str().to_owned();
        self.settle(ControlCommand::ClaimSetup { name }, trace).await
    }

    async fn settle(&self, what: ControlCommand, trace: u128) -> Result<(), Failure> {
        self.metadata
            .command(Command::Control(what), None, trace)
            .await
            .map(drop)
    }

    /// Changes what is `Some`.
    pub async fn patch_user(
        &self,
        caller: &Caller,
        user: UserId,
        quota_bytes: Option<u64>,
        is_disabled: Option<bool>,
        password_hash: Option<String>,
    ) -> Result<UserRecord, Failure> {
        let principal = caller.principal;
        let command = UserCommand::PatchUser {
            principal,
            user,
            quota_bytes,
            is_disabled,
            password_hash,
        };
        let done = self.user_command(command, None, caller.trace).await;
        self.forget_tokens_of(user);
        done
    }

    /// Ends an account at once and has it erased after the trash's age, unless it is enabled again before.
    pub async fn delete_user(&self, caller: &Caller, user: UserId) -> Result<UserRecord, Failure> {
        let principal = caller.principal;
        let command = UserCommand::DeleteUser { principal, user };
        let done = self.user_command(command, None, caller.trace).await;
        self.forget_tokens_of(user);
        done
    }

    /// Also after a failure: the command may have been applied.
    fn forget_tokens_of(&self, user: UserId) {
        self.forget_tokens(|facts| facts.user.user == user);
    }

    /// Forgets what is remembered of the tokens that are `meant`, in this order: what polls begin with may come from the other, and is not
    /// taken in any more once that has gone.
    pub(super) fn forget_tokens(&self, meant: impl Fn(&TokenFacts) -> bool) {
        self.tokens.forget(|_, facts| meant(facts));
        self.poll_tokens.forget(|_, (_, facts)| meant(facts));
    }

    async fn user_command(
        &self,
        command: UserCommand,
        key: Option<RequestKey>,
        trace: u128,
    ) -> Result<UserRecord, Failure> {
        match self.metadata.command(Command::User(command), key, trace).await?.0 {
            CommandAnswer::User(record) => Ok(record),
            _ => expect(None),
        }
    }

    /// What a sign-in of this name needs; `None` when there is no such account.
    pub async fn login_facts(&self, name: Username, trace: u128) -> Result<Option<LoginFacts>, Failure> {
        match self.metadata.query(&Query::User(UserQuery::Login(name)), trace).await {
            Ok((QueryAnswer::Login(facts), _)) => Ok(Some(facts)),
            Ok(_) => expect(None),
            Err(failure) if failure.kind == model::error_kind::ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Keeps the hashes of a fresh pair of tokens.
    pub async fn issue_tokens(
        &self,
        user: UserId,
        access: NewToken,
        refresh: NewToken,
        trace: u128,
    ) -> Result<(), Failure> {
        let scope = String::new();
        let command = UserCommand::IssueTokens {
            user,
            device: None,
            access,
            refresh: Some(refresh),
            scope,
        };
        self.metadata
            .command(Command::User(command), None, trace)
            .await
            .map(drop)
    }

    /// Trades a refresh token for a new pair.
    pub async fn rotate_tokens(
        &self,
        user: UserId,
        old_refresh: TokenHash,
        (access, refresh): (NewToken, NewToken),
        trace: u128,
    ) -> Result<(), Failure> {
        let command = UserCommand::RotateTokens {
            user,
            old_refresh,
            access,
            refresh,
        };
        let done = self
            .metadata
            .command(Command::User(command), None, trace)
            .await
            .map(drop);
        self.forget_tokens_of(user);
        done
    }

    /// The living token of this hash.
    pub async fn token_facts(&self, user: UserId, hash: TokenHash, trace: u128) -> Result<Arc<TokenFacts>, Failure> {
        let now = self.seams.clock.wall();
        let asking = match self.tokens.get(&hash, self.seams.clock.monotonic()) {
            Ok(facts) if facts.user.user == user && now < facts.expires_at => return Ok(facts),
            Ok(_) => None,
            Err(asking) => Some(asking),
        };
        let failure = match self
            .metadata
            .query(&Query::User(UserQuery::Token { user, hash, now }), trace)
            .await
        {
            Ok((QueryAnswer::Token(facts), _)) => {
                let facts = Arc::new(facts);
                if let Some(asking) = asking {
                    self.tokens.put(hash, Arc::clone(&facts), asking);
                }
                return Ok(facts);
            }
            Ok(_) => return expect(None),
            Err(failure) => failure,
        };
        // What begins no request begins no poll.
        self.poll_tokens.forget_one(&hash);
        // Whether the account exists is nobody's business who has no token of it.
        let is_unknown = failure.kind == model::error_kind::ErrorKind::NotFound;
        Err(if is_unknown {
            protocol::codes::TOKEN_UNKNOWN.failure()
        } else {
            failure
        })
    }

    /// As `token_facts`, to begin a poll with: while the user's group tells of ended tokens it is not asked for each poll of each minute.
    ///
    /// Until it looks again by `token_facts`, such a poll may be told that nothing came, as one that had waited on, and nothing else.
    pub async fn poll_token_facts(
        &self,
        user: UserId,
        hash: TokenHash,
        trace: u128,
    ) -> Result<Arc<TokenFacts>, Failure> {
        let group = self.metadata.group_of(user.slot());
        let Some(group) = group.filter(|group| self.notices.is_told(*group)) else {
            return Box::pin(self.token_facts(user, hash, trace)).await;
        };
        let now = self.seams.clock.wall();
        let asking = match self.poll_tokens.get(&hash, self.seams.clock.monotonic()) {
            // Of a slot that went over to another group, that one tells only what it ended itself.
            Ok((home, facts)) if home == group && facts.user.user == user && now < facts.expires_at => {
                return Ok(facts);
            }
            Ok(_) => None,
            Err(asking) => Some(asking),
        };
        let facts = Box::pin(self.token_facts(user, hash, trace)).await?;
        if let Some(asking) = asking {
            self.poll_tokens.put(hash, (group, Arc::clone(&facts)), asking);
        }
        Ok(facts)
    }

    /// An account by its id.
    pub async fn user(&self, principal: &Principal, trace: u128) -> Result<UserRecord, Failure> {
        match self
            .metadata
            .query(&Query::User(UserQuery::ById(principal.user)), trace)
            .await?
            .0
        {
            QueryAnswer::User(record) => Ok(record),
            _ => expect(None),
        }
    }

    /// What the caller's home drive holds.
    pub async fn usage(&self, caller: &Caller) -> Result<Usage, Failure> {
        match self.ask(caller, caller.home, DriveAsk::Usage).await? {
            QueryAnswer::Usage(usage) => Ok(usage),
            _ => expect(None),
        }
    }

    /// What this gateway needs to cut, seal and open in a drive.
    pub async fn drive_facts(&self, caller: &Caller, drive: DriveId) -> Result<DriveFacts, Failure> {
        match self.ask(caller, drive, DriveAsk::Facts).await? {
            QueryAnswer::Drive(facts) => Ok(facts),
            _ => expect(None),
        }
    }

    /// The key of digests in a drive, as 64 letters of hex.
    pub async fn digest_key_hex(&self, caller: &Caller, drive: DriveId) -> Result<String, Failure> {
        let facts = self.drive_facts(caller, drive).await?;
        let seal = self.seals.of(&facts)?;
        Ok(model::digest::Digest(*seal.digest_key().expose()).to_hex())
    }
}

/// Whether the caller administers the cluster.
pub fn require_admin(caller: &Caller) -> Result<(), Failure> {
    if caller.principal.is_admin {
        Ok(())
    } else {
        Err(codes::ADMIN_ONLY.failure())
    }
}
