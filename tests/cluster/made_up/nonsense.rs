//! What no request should have: values of a wrong type, length or form, and bodies that are no JSON.
//!
//! Not here: where it is put (`maker`).

use super::dice::Dice;
use super::written::{CUT_ESCAPE, UNPAIRED, written};
use serde_json::{Value, json};

/// Longer than any path or name, and with its request still shorter than a head may be.
const LONG: usize = 5_000;
/// Deeper than a parser of JSON goes.
const DEEP: usize = 300;

/// Headers that some operation knows, sent to others too.
pub(crate) const MORE_HEADERS: [(&str, &[&str]); 15] = [
    (
        "range",
        &[
            "bytes=0-0",
            "bytes=-1",
            "bytes=5-2",
            "bytes=0-0,2-3",
            "bytes=18446744073709551615-",
            "lines=1-2",
        ],
    ),
    ("if-range", &["\"x\"", "Sat, 01 Jan 2000 00:00:00 GMT"]),
    ("if-match", &["*", "\"x\"", "", "W/\"x\"", "x,,"]),
    ("if-none-match", &["*", "\"x\"", "", "W/\"x\""]),
    (
        "content-range",
        &[
            "bytes 0-6/*",
            "bytes */*",
            "bytes */7",
            "bytes 0-6/7",
            "bytes 9-0/1",
            "bytes 0-18446744073709551615/*",
            "x",
        ],
    ),
    ("idempotency-key", &["once", "", "\u{e9}"]),
    ("holdfast-age-hour", &["0", "1", "-1", "4294967296"]),
    (
        "upload-offset",
        &["0", "7", "-1", "18446744073709551615", "18446744073709551616"],
    ),
    ("upload-length", &["0", "7", "-1", "18446744073709551615"]),
    ("upload-defer-length", &["1", "0"]),
    (
        "upload-checksum",
        &["sha1 !", "md5 AAAA", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    ),
    ("upload-metadata", &["filename", "path L2E=", "path *", "\u{e9}"]),
    ("tus-resumable", &["1.0.0", "0.2.2"]),
    ("x-upload-content-length", &["0", "7", "-1", "18446744073709551615"]),
    ("x-http-method-override", &["DELETE", "PATCH", "GET"]),
];

/// What does not belong into an address or a header.
pub(crate) fn wrong_text(dice: &mut Dice) -> String {
    let long = "l".repeat(LONG);
    let unpaired = format!("a{UNPAIRED}");
    let cut = format!("a{CUT_ESCAPE}");
    let texts = [
        "",
        " ",
        "-1",
        "0",
        "18446744073709551615",
        "18446744073709551616",
        "1e3",
        "1.5",
        "null",
        "true",
        "\0",
        "a\0b",
        "../..",
        "[]",
        "{}",
        "'\"<>&;",
        "\u{e9}\u{301}\u{202e}",
        "\r\nx: y",
        &long,
        &unpaired,
        &cut,
    ];
    (*dice.one(&texts)).to_owned()
}

/// What a field seldom is.
pub(crate) fn wrong_value(dice: &mut Dice) -> Value {
    let mut nested = json!(1);
    for _ in 0..40 {
        nested = json!([nested]);
    }
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\0"),
        json!("/a\0b"),
        json!(".."),
        json!("/a/../b"),
        json!("\u{e9}\u{301}\u{202e}\u{ffff}"),
        json!(format!("/{UNPAIRED}")),
        json!(format!("a{CUT_ESCAPE}")),
        json!("l".repeat(LONG)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"a": [1]}),
        nested,
    ];
    dice.one(&values).clone()
}

/// `value` as a body of which one thing is wrong.
pub(crate) fn damaged(dice: &mut Dice, mut value: Value) -> Vec<u8> {
    match dice.below(14) {
        0 => {
            let text = written(&value);
            text[..text.len() / 2].to_vec()
        }
        1 => Vec::new(),
        2 => b"{\"path\":\"/\xff\xfe\"}".to_vec(),
        3 => ["[".repeat(DEEP), "]".repeat(DEEP)].concat().into_bytes(),
        4 => written(&wrong_value(dice)),
        5 | 6 => {
            if let Some(fields) = value.as_object_mut() {
                fields.insert("nobody knows".to_owned(), json!(1));
            }
            written(&value)
        }
        7 | 8 => {
            if let Some(fields) = value.as_object_mut().filter(|fields| !fields.is_empty()) {
                let names: Vec<String> = fields.keys().cloned().collect();
                let name: &String = dice.one(&names);
                fields.remove(name);
            }
            written(&value)
        }
        _ => {
            let mut places = Vec::new();
            gather_places(&value, String::new(), &mut places);
            let wrong = wrong_value(dice);
            let at: &String = dice.one(&places);
            if let Some(place) = value.pointer_mut(at) {
                *place = wrong;
            }
            written(&value)
        }
    }
}

/// Every place of `value`, as pointers into it; the whole of it is the last.
fn gather_places(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, field)| gather_places(field, format!("{at}/{name}"), places)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(number, item)| gather_places(item, format!("{at}/{number}"), places)),
        _ => {}
    }
    places.push(at);
}
