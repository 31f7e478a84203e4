//! Which calls a process takes: for its cluster, meant for it, and of a role that may make them.
//!
//! Both transports ask here before a message is decoded, and run the handler from here.

use crate::transport::Handler;
use futures_util::FutureExt;
use model::error_kind::ErrorKind;
use model::id::ClusterId;
use model::process::ProcessId;
use protocol::frame::{Answer, Call, RequestHead};
use protocol::wire_error::Failure;
use std::panic::AssertUnwindSafe;
use tracing::Instrument;

/// Whether `own` of `cluster` takes a call with `head` from `caller`, who is who the certificate says.
///
/// Errors: `Denied` `other_cluster`, `Denied` `other_target`, `Denied` `role_not_allowed`, in this order of checks.
pub(crate) fn check_request(
    own: ProcessId,
    cluster: ClusterId,
    caller: ProcessId,
    head: &RequestHead,
) -> Result<(), Failure> {
    if head.cluster != cluster {
        let detail = format!(
            "the message is for cluster {}, this is {cluster}; correct the caller's configuration",
            head.cluster
        );
        return Err(Failure::new(ErrorKind::Denied, "other_cluster", detail));
    }
    if head.target != own {
        let detail = format!(
            "the message is for {}, this is {own}; ask for the process's address again",
            head.target
        );
        return Err(Failure::new(ErrorKind::Denied, "other_target", detail));
    }
    if !head.method.is_allowed(caller.role) {
        let detail = format!(
            "{caller} may not call {:?}; use a certificate of a role that may",
            head.method
        );
        return Err(Failure::new(ErrorKind::Denied, "role_not_allowed", detail));
    }
    Ok(())
}

/// Runs the handler of `own`; its panic becomes a failure of kind `Bug`, so that no call takes a process down.
///
/// What a client's request causes runs in a span with its id, so that one id finds the lines of every process that took part. Calls
/// between replicas and of workers are caused by no request and have none: they are many, and their span would say nothing.
pub(crate) async fn run_handler(
    handler: &dyn Handler,
    own: ProcessId,
    caller: ProcessId,
    call: Call,
) -> Result<Answer, Failure> {
    if call.request_id == 0 {
        return run_caught(handler, caller, call).await;
    }
    let (method, id) = (call.method, call.request_id);
    let span = tracing::info_span!("call", request_id = %format_args!("{id:032x}"), process = %own, ?method);
    let handling = async {
        let result = run_caught(handler, caller, call).await;
        let code = result.as_ref().err().map(|failure| failure.code.as_str());
        tracing::debug!(%caller, code, "call answered");
        result
    };
    handling.instrument(span).await
}

async fn run_caught(handler: &dyn Handler, caller: ProcessId, call: Call) -> Result<Answer, Failure> {
    let method = call.method;
    // Unwind safety: what the handler shares with others is its own to keep whole, and the call itself is dropped.
    AssertUnwindSafe(handler.handle(caller, call))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!(?method, %caller, "handler panicked");
            Err(Failure::bug(
                "the call met a bug; report it with the log of this process",
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::check_request;
    use model::id::ClusterId;
    use model::process::{ProcessId, Role};
    use protocol::frame::{Method, RequestHead};

    const OWN: ProcessId = ProcessId {
        role: Role::Node,
        number: 1,
    };

    fn check(cluster: u128, target: ProcessId, caller: Role, method: Method) -> Result<(), String> {
        let head = RequestHead {
            cluster: ClusterId(cluster),
            target,
            method,
            deadline_ms: 1,
            request_id: 0,
        };
        let caller = ProcessId {
            role: caller,
            number: 5,
        };
        check_request(OWN, ClusterId(7), caller, &head).map_err(|failure| failure.code)
    }

    /// shows: F41 scale=1/2
    #[test]
    fn each_role_may_make_its_own_calls_and_no_others() {
        for method in Method::ALL {
            for role in [Role::Node, Role::Metadata, Role::Gateway, Role::Admin] {
                let expected = if method.is_allowed(role) {
                    Ok(())
                } else {
                    Err("role_not_allowed".to_owned())
                };
                assert_eq!(check(7, OWN, role, method), expected, "{role:?} {method:?}");
            }
        }
    }

    #[test]
    fn a_message_for_another_cluster_or_target_is_refused() {
        assert_eq!(
            check(8, OWN, Role::Gateway, Method::Ping),
            Err("other_cluster".to_owned())
        );
        for other in [
            ProcessId {
                role: Role::Node,
                number: 2,
            },
            ProcessId {
                role: Role::Metadata,
                number: 1,
            },
        ] {
            assert_eq!(
                check(7, other, Role::Gateway, Method::Ping),
                Err("other_target".to_owned())
            );
        }
    }
}
