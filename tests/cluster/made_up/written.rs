//! Values as bytes: in JSON, in an address, in a header; also such as no `String` holds.

use serde_json::Value;

/// Stands for an unpaired surrogate.
pub(crate) const UNPAIRED: char = '\u{e000}';
/// Stands for an escape that is cut off.
pub(crate) const CUT_ESCAPE: char = '\u{e001}';

/// As it stands in an address or a header.
pub(crate) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// JSON, in which the marks have become what they stand for.
pub(crate) fn written(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    text.replace(UNPAIRED, "\\ud800")
        .replace(CUT_ESCAPE, "\\u12")
        .into_bytes()
}

/// For a part of an address.
pub(crate) fn encoded(text: &str) -> String {
    let mut written = String::new();
    for letter in text.chars() {
        match letter {
            UNPAIRED => written.push_str("%ED%A0%80"),
            CUT_ESCAPE => written.push_str("%1"),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => written.push(letter),
            _ => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    written.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    written
}
