//! Who may do what: one pure function, run in the owner's group and nowhere else.
//!
//! Invariant: whoever is not entitled to read learns nothing (`NotFound`); whoever may read and not write is `Denied`.
//! Not here: who the caller is (the gateway checks the token, the user's group its revocation).

use crate::error_kind::ErrorKind;
use crate::id::{DeviceId, EntryId, UserId};
use serde::{Deserialize, Serialize};

/// Who asks: the verified owner of a token, never something a body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The account.
    pub user: UserId,
    /// The installed client, when the token belongs to one.
    pub device: Option<DeviceId>,
    /// Whether the account administers the cluster.
    pub is_admin: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// See, list, download.
    Read,
    /// Create, change, move, delete.
    Write,
    /// What is the owner's alone: give others access, say how long versions are kept.
    Share,
}

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read.
    Viewer,
    /// Read and write.
    Editor,
    /// Everything.
    Owner,
}

/// A grant on an entry that applies to everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// On what.
    pub entry: EntryId,
    /// To whom.
    pub user: UserId,
    /// What it allows; never `Owner`.
    pub permission: Permission,
}

/// What `principal` may do to an entry whose ancestors (itself included) are `path`, in a drive of `owner` with `grants`.
///
/// `None` when it may not even know that the entry exists. The highest of several grants counts. Cost O(path x grants).
#[must_use]
pub fn permission(principal: &Principal, owner: UserId, path: &[EntryId], grants: &[Grant]) -> Option<Permission> {
    if principal.user == owner {
        return Some(Permission::Owner);
    }
    grants
        .iter()
        .filter(|grant| grant.user == principal.user && path.contains(&grant.entry))
        .map(|grant| grant.permission)
        .max()
}

/// Decides `action`; the error is `NotFound` for whoever may not read and `Denied` for whoever may.
pub fn authorize(
    principal: &Principal,
    action: Action,
    owner: UserId,
    path: &[EntryId],
    grants: &[Grant],
) -> Result<Permission, ErrorKind> {
    let held = permission(principal, owner, path, grants).ok_or(ErrorKind::NotFound)?;
    let needed = match action {
        Action::Read => Permission::Viewer,
        Action::Write => Permission::Editor,
        Action::Share => Permission::Owner,
    };
    if held >= needed {
        Ok(held)
    } else {
        Err(ErrorKind::Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Grant, Permission, Principal, authorize};
    use crate::error_kind::ErrorKind;
    use crate::id::{DriveId, EntryId, UserId};

    #[test]
    fn the_matrix_of_roles_and_actions() {
        let (owner, editor, viewer, other) = (UserId(1), UserId(2), UserId(3), UserId(4));
        let entry = |number| EntryId {
            drive: DriveId(9),
            number,
        };
        let grants = [
            Grant {
                entry: entry(5),
                user: editor,
                permission: Permission::Editor,
            },
            Grant {
                entry: entry(5),
                user: viewer,
                permission: Permission::Viewer,
            },
        ];
        let inside = [entry(1), entry(5), entry(7)];
        let outside = [entry(1), entry(6)];
        let check = |user, action, path: &[EntryId]| {
            authorize(
                &Principal {
                    user,
                    device: None,
                    is_admin: true,
                },
                action,
                owner,
                path,
                &grants,
            )
        };
        assert_eq!(check(owner, Action::Share, &outside), Ok(Permission::Owner));
        assert_eq!(check(editor, Action::Write, &inside), Ok(Permission::Editor));
        assert_eq!(check(editor, Action::Share, &inside), Err(ErrorKind::Denied));
        assert_eq!(check(viewer, Action::Read, &inside), Ok(Permission::Viewer));
        assert_eq!(check(viewer, Action::Write, &inside), Err(ErrorKind::Denied));
        assert_eq!(check(viewer, Action::Read, &outside), Err(ErrorKind::NotFound));
        assert_eq!(
            check(other, Action::Read, &inside),
            Err(ErrorKind::NotFound),
            "an admin of the cluster reads no drive"
        );
    }
}
