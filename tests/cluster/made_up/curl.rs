//! A request as a line for a shell, to send it again by hand.
//!
//! `$URL` and `$TOKEN` stand for the gateway's address and the sender's token.
//! Not here: who sent it, and what came back (`made_up`).

use super::maker::MadeUp;
use reqwest::Method;

/// Longer bytes that are no text are the content of some file, and others do as well.
const BYTES_MAX: usize = 6_000;

/// The line.
pub(crate) fn curl(request: &MadeUp, has_token: bool) -> String {
    let mut line = String::new();
    if let Some(body) = &request.body {
        let is_text = std::str::from_utf8(body).is_ok();
        line = match is_text || body.len() <= BYTES_MAX {
            true => format!("printf -- '{}' | ", escaped(body)),
            false => format!("head -c {} /dev/urandom | ", body.len()),
        };
    }
    line.push_str("curl -i --path-as-is");
    if request.method == Method::HEAD {
        line.push_str(" -I");
    } else {
        line.push_str(&format!(" -X {}", request.method));
    }
    if has_token {
        line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    for (name, value) in &request.headers {
        // Without a value, curl would leave the header away.
        let header = match value.as_bytes() {
            [] => format!("{name};"),
            value => format!("$(printf -- '{name}: {}')", escaped(value)),
        };
        let quote = if value.is_empty() { '\'' } else { '"' };
        line.push_str(&format!(" -H {quote}{header}{quote}"));
    }
    if request.body.is_some() {
        line.push_str(" --data-binary @-");
    }
    format!("{line} \"$URL\"'{}'", request.path)
}

/// For the format of `printf` between single quotes.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\'' | b'%' | b'\\' | 0..=31 | 127.. => text.push_str(&format!("\\{byte:03o}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

#[test]
fn a_line_carries_any_byte_of_a_request() {
    let request = MadeUp {
        method: Method::PUT,
        path: "/a/7?b=%27".to_owned(),
        headers: vec![
            ("x-one".to_owned(), "5 %\"'".parse().unwrap()),
            ("x-none".to_owned(), "".parse().unwrap()),
        ],
        body: Some(b"it's\0\xff".to_vec()),
    };
    let expected = "printf -- 'it\\047s\\000\\377' | curl -i --path-as-is -X PUT -H \"Authorization: Bearer $TOKEN\" \
                    -H \"$(printf -- 'x-one: 5 \\045\"\\047')\" -H 'x-none;' --data-binary @- \"$URL\"'/a/7?b=%27'";
    assert_eq!(curl(&request, true), expected);
    let asking = MadeUp {
        method: Method::HEAD,
        path: "/a".to_owned(),
        headers: Vec::new(),
        body: None,
    };
    assert_eq!(curl(&asking, false), "curl -i --path-as-is -I \"$URL\"'/a'");
    let long = MadeUp {
        body: Some(vec![0xff; BYTES_MAX + 1]),
        ..asking
    };
    assert!(curl(&long, false).starts_with("head -c 6001 /dev/urandom | curl"));
}
