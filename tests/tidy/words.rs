//! Words that do not occur: names that say nothing, notes to oneself, and leftovers.

use crate::tree::{Fault, Source};
use syn::visit::{self, Visit};

// Written apart, so that this file passes its own check.
const NOTES: [&str; 4] = [
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("dbg", "!("),
    concat!("TO", "DO"),
];
const EMPTY_NAMES: [&str; 5] = [
    concat!("Man", "ager"),
    concat!("Help", "er"),
    concat!("Ut", "il"),
    concat!("Com", "mon"),
    concat!("Mi", "sc"),
];

struct Names<'a> {
    path: &'a str,
    faults: Vec<Fault>,
}

impl Names<'_> {
    fn check(&mut self, name: &syn::Ident) {
        let text = name.to_string();
        let parts = parts(&text);
        for empty in EMPTY_NAMES {
            let banned = empty.to_lowercase();
            if parts
                .iter()
                .any(|part| *part == banned || *part == format!("{banned}s"))
            {
                self.faults.push(Fault::new(
                    self.path,
                    name.span().start().line,
                    format!("the name {text} says nothing ({empty})"),
                ));
            }
        }
    }
}

fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter.is_uppercase() {
            parts.push(String::new());
        }
        if letter != '_' {
            parts.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
    }
    parts
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check(&item.ident);
        visit::visit_item_struct(self, item);
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.check(&item.ident);
        visit::visit_item_enum(self, item);
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.check(&item.ident);
        visit::visit_item_trait(self, item);
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.check(&item.ident);
        visit::visit_item_mod(self, item);
    }
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.check(&signature.ident);
        visit::visit_signature(self, signature);
    }
}

/// Notes to oneself anywhere, empty words in our own names.
pub(crate) fn banned(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for note in NOTES.iter().filter(|note| line.contains(**note)) {
            faults.push(Fault::new(
                &source.path,
                number + 1,
                format!("{note} has no place here; open an issue"),
            ));
        }
    }
    if let Ok(file) = syn::parse_file(&source.text) {
        let mut visitor = Names {
            path: &source.path,
            faults,
        };
        visitor.visit_file(&file);
        return visitor.faults;
    }
    faults
}
