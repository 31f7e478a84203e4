//! Users, devices and tokens.

use super::{Bench, code, row, username};
use crate::state::age::Times;
use kv::overlay::Overlay;
use model::authorize::Principal;
use model::id::{DeviceId, DriveId, UserId};
use model::time::WallTime;
use protocol::frame;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{DriveAsk, UserQuery};
use protocol::metadata::user::{NewDrive, NewToken, TokenFacts, TokenHash, UserCommand};
use protocol::metadata::watch::MovedScope;
use protocol::metadata::{Command, Envelope, Query, QueryAnswer};
use protocol::wire_error::Failure;

fn token(bench: &Bench, secret: u8, now: u64) -> Result<TokenFacts, Failure> {
    let ask = UserQuery::Token {
        user: bench.owner.user,
        hash: TokenHash([secret; 32]),
        now: WallTime(now),
    };
    match bench.query(&Query::User(ask))? {
        QueryAnswer::Token(facts) => Ok(facts),
        other => panic!("{other:?}"),
    }
}

fn new(secret: u8, expires: u64) -> NewToken {
    NewToken {
        hash: TokenHash([secret; 32]),
        expires_at: WallTime(expires),
    }
}

/// Another account, which administers the cluster.
pub(super) fn admin(bench: &Bench) -> Principal {
    let mut admin = bench.owner;
    admin.user.0 ^= 1;
    admin.is_admin = true;
    admin
}

fn issue(bench: &mut Bench, device: Option<DeviceId>, access: u8, refresh: u8) -> Result<(), Failure> {
    let user = bench.owner.user;
    let end = bench.wall + 3_600_000;
    let command = UserCommand::IssueTokens {
        user,
        device,
        access: new(access, end),
        refresh: Some(new(refresh, end * 2)),
        scope: String::new(),
    };
    bench.run(Command::User(command)).map(|_| ())
}

/// Leaves a device and tokens.
pub(super) fn furnish(bench: &mut Bench) {
    let user = bench.owner.user;
    let device = DeviceId::new(user.slot(), 3);
    let name = "laptop".to_owned();
    bench
        .run(Command::User(UserCommand::RegisterDevice { user, device, name }))
        .unwrap();
    issue(bench, Some(device), 1, 2).unwrap();
}

/// shows: SC-in-1 scale=1/2
#[test]
fn a_taken_username_is_refused_and_a_login_finds_the_hash() {
    let mut bench = Bench::new(1 << 30);
    let again = bench.create_user("ada", 5);
    assert_eq!(code(bench.run(Command::User(again))), "user_exists");
    let elsewhere = bench.create_user("bob", 5);
    let failure = bench.run(Command::User(elsewhere)).unwrap_err();
    assert!(
        ["malformed_command", "not_mine"].contains(&failure.code.as_str()),
        "{failure}"
    );
    let QueryAnswer::Login(login) = bench.query(&Query::User(UserQuery::Login(username()))).unwrap() else {
        panic!()
    };
    assert_eq!(
        (login.password_hash.as_str(), login.user.home),
        ("$argon2id$", bench.drive)
    );
    bench.sound();
}

#[test]
fn tokens_end_by_the_wall_and_rotation_ends_the_old_one() {
    let mut bench = Bench::new(1 << 30);
    issue(&mut bench, None, 1, 2).unwrap();
    let now = bench.wall;
    assert_eq!(token(&bench, 1, now).unwrap().principal, bench.owner);
    assert_eq!(code(token(&bench, 1, now + 3_600_001)), "token_expired");
    assert_eq!(code(token(&bench, 9, now)), "token_unknown");
    let user = bench.owner.user;
    let rotate = |old: u8, access: u8, refresh: u8| {
        Command::User(UserCommand::RotateTokens {
            user,
            old_refresh: TokenHash([old; 32]),
            access: new(access, now + 9_000_000),
            refresh: new(refresh, now + 9_000_000),
        })
    };
    assert_eq!(
        code(bench.run(rotate(1, 3, 4))),
        "token_unknown",
        "an access token gets no pair"
    );
    bench.run(rotate(2, 3, 4)).unwrap();
    assert_eq!(code(bench.run(rotate(2, 5, 6))), "token_unknown");
    assert!(token(&bench, 3, now).is_ok());
    bench
        .run(Command::User(UserCommand::RevokeToken {
            user,
            hash: TokenHash([3; 32]),
        }))
        .unwrap();
    assert_eq!(code(token(&bench, 3, now)), "token_unknown");
}

#[test]
fn a_revoked_device_and_another_password_end_tokens_at_once() {
    let mut bench = Bench::new(1 << 30);
    let user = bench.owner.user;
    let device = DeviceId::new(user.slot(), 3);
    assert_eq!(code(issue(&mut bench, Some(device), 1, 2)), "device_not_found");
    let name = "laptop".to_owned();
    bench
        .run(Command::User(UserCommand::RegisterDevice { user, device, name }))
        .unwrap();
    issue(&mut bench, Some(device), 1, 2).unwrap();
    issue(&mut bench, None, 3, 4).unwrap();
    bench
        .run(Command::User(UserCommand::RevokeDevice { user, device }))
        .unwrap();
    let now = bench.wall;
    assert_eq!(code(token(&bench, 1, now)), "device_revoked");
    assert!(token(&bench, 3, now).is_ok());
    let patch = |principal, password: Option<&str>, quota_bytes, is_disabled| {
        let password_hash = password.map(str::to_owned);
        Command::User(UserCommand::PatchUser {
            principal,
            user,
            quota_bytes,
            is_disabled,
            password_hash,
        })
    };
    bench.run(patch(bench.owner, Some("other"), None, None)).unwrap();
    assert_eq!(code(token(&bench, 3, now)), "token_unknown");
    assert_eq!(code(bench.run(patch(bench.owner, None, Some(5), None))), "denied");
    let admin = admin(&bench);
    bench.run(patch(admin, None, Some(5), Some(true))).unwrap();
    assert_eq!(code(issue(&mut bench, None, 5, 6)), "user_disabled");
    assert_eq!(code(bench.put("/f", None, &[row("a", 1)])), "user_disabled");
    bench.run(patch(admin, None, None, Some(false))).unwrap();
    assert_eq!(code(bench.put("/f", None, &[row("a", 6)])), "quota_exceeded");
    bench.put("/f", None, &[row("a", 5)]).unwrap();
    bench.sound();
}

/// Who is told of when this command is applied, which is then forgotten.
fn told_of(bench: &Bench, command: Command) -> Vec<Option<UserId>> {
    let envelope = Envelope {
        request_id: None,
        wall: WallTime(bench.wall),
        command,
    };
    let bytes = frame::encode(&envelope).unwrap();
    let mut tx = Overlay::new(&bench.kv);
    let applied = bench.state.apply_noting(&mut tx, &mut Times::default(), 77, &bytes);
    applied.unwrap().moved.iter().map(MovedScope::user).collect()
}

#[test]
fn whoever_waits_is_told_of_what_may_end_a_users_tokens_and_of_nothing_else() {
    let mut bench = Bench::new(1 << 30);
    furnish(&mut bench);
    let (user, owner, admin) = (bench.owner.user, bench.owner, admin(&bench));
    let device = DeviceId::new(user.slot(), 3);
    let patch = |principal, quota_bytes, is_disabled, password: Option<&str>| {
        let password_hash = password.map(str::to_owned);
        UserCommand::PatchUser {
            principal,
            user,
            quota_bytes,
            is_disabled,
            password_hash,
        }
    };
    let hash = TokenHash([9; 32]);
    let ends = [
        UserCommand::RevokeToken { user, hash },
        UserCommand::RevokeDevice { user, device },
        patch(owner, None, None, Some("other")),
        patch(admin, None, Some(true), None),
        UserCommand::DeleteUser { principal: admin, user },
    ];
    for command in ends {
        let told = told_of(&bench, Command::User(command.clone()));
        assert!(told.contains(&Some(user)), "{command:?}");
    }
    let leaves = [
        patch(admin, Some(7), Some(false), None),
        // Refused: nobody deletes the own account.
        UserCommand::DeleteUser { principal: owner, user },
        UserCommand::IssueTokens {
            user,
            device: None,
            access: new(7, u64::MAX),
            refresh: None,
            scope: String::new(),
        },
    ];
    for command in leaves {
        let told = told_of(&bench, Command::User(command.clone()));
        assert!(told.is_empty(), "{command:?}");
    }
}

fn delete(bench: &Bench) -> Command {
    let (principal, user) = (admin(bench), bench.owner.user);
    Command::User(UserCommand::DeleteUser { principal, user })
}

fn enable(bench: &Bench) -> Command {
    Command::User(UserCommand::PatchUser {
        principal: admin(bench),
        user: bench.owner.user,
        quota_bytes: None,
        is_disabled: Some(false),
        password_hash: None,
    })
}

fn sweep_trash(bench: &Bench) -> Command {
    let drive = bench.drive;
    Command::Drive(DriveCommand::SweepTrash { drive, job: 77 })
}

#[test]
fn a_deleted_account_ends_at_once_and_is_as_before_when_enabled_in_time() {
    let mut bench = Bench::with_epoch(1 << 30, 3_600_000);
    let (user, owner, admin) = (bench.owner.user, bench.owner, admin(&bench));
    bench.mkdir("/a").unwrap();
    bench.put("/a/f", None, &[row("x", 10)]).unwrap();
    furnish(&mut bench);
    let (delete, enable, sweep) = (delete(&bench), enable(&bench), sweep_trash(&bench));
    let by = |principal| Command::User(UserCommand::DeleteUser { principal, user });
    assert_eq!(code(bench.run(by(owner))), "denied");
    let stranger = Principal {
        is_admin: false,
        ..admin
    };
    assert_eq!(code(bench.run(by(stranger))), "user_not_found");
    let own = Principal {
        is_admin: true,
        ..owner
    };
    assert_eq!(code(bench.run(by(own))), "own_account");

    bench.run(delete.clone()).unwrap();
    let now = bench.wall;
    assert_eq!(code(token(&bench, 1, now)), "user_disabled");
    assert_eq!(code(bench.get("/a/f")), "user_disabled");
    assert_eq!(code(bench.mkdir("/b")), "user_disabled");
    let again = bench.create_user("ada", 5);
    assert_eq!(code(bench.run(Command::User(again))), "user_exists");
    bench.sound();

    // Enabled again in time it is as before, but for the tokens; also years of wrong clocks later.
    bench.advance(29 * 24 * 3_600_000);
    bench.wall += 365 * 24 * 3_600_000;
    assert!(bench.sweep(sweep).unwrap().is_done);
    bench.run(enable).unwrap();
    bench.get("/a/f").unwrap();
    bench.sound();
}

#[test]
fn what_is_left_of_an_account_after_its_age_is_no_key_no_name_and_no_content() {
    let mut bench = Bench::with_epoch(1 << 30, 3_600_000);
    let user = bench.owner.user;
    bench.mkdir("/a").unwrap();
    bench.put("/a/f", None, &[row("x", 10)]).unwrap();
    let trashed = bench.put("/g", None, &[row("y", 5)]).unwrap().view.entry.id;
    bench.trash(trashed).unwrap();
    furnish(&mut bench);
    let now = bench.wall;
    let (delete, enable, sweep) = (delete(&bench), enable(&bench), sweep_trash(&bench));
    bench.run(delete.clone()).unwrap();
    bench.advance(15 * 24 * 3_600_000);
    bench.run(delete.clone()).unwrap();
    bench.advance(15 * 24 * 3_600_000);
    while !bench.sweep(sweep.clone()).unwrap().is_done {}
    let QueryAnswer::Drive(facts) = bench.ask_as(None, DriveAsk::Facts).unwrap() else {
        panic!()
    };
    assert!(
        facts.wrapped_key.is_empty() && facts.kek_id.is_empty(),
        "the key is destroyed"
    );
    assert_eq!(
        code(bench.query(&Query::User(UserQuery::Login(username())))),
        "user_not_found"
    );
    assert_eq!(code(bench.query(&Query::User(UserQuery::ById(user)))), "user_not_found");
    assert_eq!(code(token(&bench, 1, now)), "token_unknown");
    assert_eq!(code(bench.run(enable)), "user_not_found");
    assert_eq!(code(bench.run(delete)), "user_not_found");
    bench.finish_job(77);
    bench.reap();
    let QueryAnswer::Usage(usage) = bench.ask_as(None, DriveAsk::Usage).unwrap() else {
        panic!()
    };
    assert_eq!((usage.files, usage.folders, usage.charged_bytes), (0, 0, 0));
    bench.sound();
    // No byte of the state still holds the name or a token's hash.
    let everything = bench.everything();
    let holds = |needle: &[u8]| {
        let has = |hay: &[u8]| hay.windows(needle.len()).any(|part| part == needle);
        everything.iter().any(|(key, value)| has(key) || has(value))
    };
    assert!(!holds(b"ada") && !holds(b"laptop") && !holds(&[1; 32]));

    next_of_the_name(&mut bench);
}

/// The name is free; its next owner gets nothing of the first.
fn next_of_the_name(bench: &mut Bench) {
    let user = bench.owner.user;
    let UserCommand::CreateUser {
        name,
        home,
        password_hash,
        ..
    } = bench.create_user("ada", 100)
    else {
        panic!()
    };
    let home = NewDrive {
        drive: DriveId(bench.drive.0 ^ 1),
        ..home
    };
    let next = Command::User(UserCommand::CreateUser {
        name,
        user: UserId(user.0 ^ 2),
        home,
        password_hash,
        is_admin: false,
    });
    bench.run(next).unwrap();
    bench.sound();
}
