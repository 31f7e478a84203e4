//! Lengths, openings, roots, documentation and reachability.

use crate::tree::{Fault, Source};
use std::collections::BTreeSet;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const TABLE_LINES_MAX: usize = 120;
const ROOT_LINES_MAX: usize = 80;

struct Lengths<'a> {
    source: &'a Source,
    faults: Vec<Fault>,
}

impl Lengths<'_> {
    fn check(&mut self, name: &syn::Ident, first: usize, last: usize) {
        let lines: Vec<&str> = self.source.text.lines().collect();
        let above = first.saturating_sub(12);
        let says_table = lines[above..last.min(lines.len())]
            .iter()
            .any(|line| line.contains("flat table"));
        let limit = if says_table {
            TABLE_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        };
        let length = last - first + 1;
        if length > limit {
            self.faults.push(Fault::new(
                &self.source.path,
                first,
                format!("function {name} has {length} lines, at most {limit}"),
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Lengths<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check(
            &item.sig.ident,
            item.sig.span().start().line,
            item.block.span().end().line,
        );
        visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check(
            &item.sig.ident,
            item.sig.span().start().line,
            item.block.span().end().line,
        );
        visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.check(&item.sig.ident, item.sig.span().start().line, block.span().end().line);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Files of at most 600 lines, functions of at most 70, or 120 where they are one flat table and say so.
pub(crate) fn lengths(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    let count = source.text.lines().count();
    if count > FILE_LINES_MAX {
        faults.push(Fault::new(
            &source.path,
            count,
            format!("the file has {count} lines, at most {FILE_LINES_MAX}"),
        ));
    }
    match syn::parse_file(&source.text) {
        Ok(file) => {
            let mut visitor = Lengths { source, faults };
            visitor.visit_file(&file);
            visitor.faults
        }
        Err(error) => vec![Fault::new(
            &source.path,
            error.span().start().line,
            format!("does not parse: {error}"),
        )],
    }
}

/// The first line is `//!` with words behind it.
pub(crate) fn opens_with_purpose(source: &Source) -> Vec<Fault> {
    let first = source.text.lines().next().unwrap_or_default();
    let has_words = first.strip_prefix("//!").is_some_and(|rest| rest.trim().len() > 2);
    if has_words {
        Vec::new()
    } else {
        vec![Fault::new(&source.path, 1, "does not open with `//!` and its purpose")]
    }
}

fn is_root(path: &str) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs")
}

/// lib.rs and main.rs have at most 80 lines; lib.rs is a list of modules.
pub(crate) fn root_is_a_list(source: &Source) -> Vec<Fault> {
    if !is_root(&source.path) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let count = source.text.lines().count();
    if count > ROOT_LINES_MAX {
        faults.push(Fault::new(
            &source.path,
            count,
            format!("has {count} lines, at most {ROOT_LINES_MAX}"),
        ));
    }
    if source.path.ends_with("lib.rs") {
        let file = syn::parse_file(&source.text).unwrap();
        for item in &file.items {
            if !matches!(item, syn::Item::Mod(module) if module.content.is_none()) && !matches!(item, syn::Item::Use(_))
            {
                faults.push(Fault::new(
                    &source.path,
                    item.span().start().line,
                    "lib.rs is a list of modules, without logic",
                ));
            }
        }
    }
    faults
}

struct Documentation<'a> {
    path: &'a str,
    faults: Vec<Fault>,
}

impl Documentation<'_> {
    fn check(&mut self, visibility: &syn::Visibility, attributes: &[syn::Attribute], line: usize, what: &str) {
        let is_documented = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
        if matches!(visibility, syn::Visibility::Public(_)) && !is_documented {
            self.faults.push(Fault::new(
                self.path,
                line,
                format!("public {what} has no documentation"),
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Documentation<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let line = item.span().start().line;
        match item {
            syn::Item::Fn(item) => self.check(&item.vis, &item.attrs, line, "function"),
            syn::Item::Struct(item) => self.check(&item.vis, &item.attrs, line, "struct"),
            syn::Item::Enum(item) => self.check(&item.vis, &item.attrs, line, "enum"),
            syn::Item::Trait(item) => self.check(&item.vis, &item.attrs, line, "trait"),
            syn::Item::Const(item) => self.check(&item.vis, &item.attrs, line, "constant"),
            syn::Item::Type(item) => self.check(&item.vis, &item.attrs, line, "type"),
            syn::Item::Mod(item) if item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg")) => return,
            _ => {}
        }
        visit::visit_item(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check(&item.vis, &item.attrs, item.span().start().line, "function");
    }
    fn visit_field(&mut self, field: &'ast syn::Field) {
        if field.ident.is_some() {
            self.check(&field.vis, &field.attrs, field.span().start().line, "field");
        }
    }
}

/// Public items of `crates/` carry documentation.
pub(crate) fn public_items_are_documented(source: &Source) -> Vec<Fault> {
    let is_library =
        source.path.starts_with("crates/") && source.path.contains("/src/") && !source.path.ends_with("tests.rs");
    let Ok(file) = syn::parse_file(&source.text) else {
        return Vec::new();
    };
    if !is_library {
        return Vec::new();
    }
    let mut visitor = Documentation {
        path: &source.path,
        faults: Vec::new(),
    };
    visitor.visit_file(&file);
    visitor.faults
}

/// Every file below a `src` folder is named by a `mod` of the file above it.
pub(crate) fn all_reachable(sources: &[Source]) -> Vec<Fault> {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for source in sources {
        let Ok(file) = syn::parse_file(&source.text) else {
            continue;
        };
        let stem = source.path.trim_end_matches(".rs");
        let folder = if ["lib", "main", "mod"]
            .iter()
            .any(|root| stem.ends_with(&format!("/{root}")))
        {
            stem.rsplit_once('/').map(|(folder, _)| folder).unwrap_or_default()
        } else {
            stem
        };
        for item in &file.items {
            if let syn::Item::Mod(module) = item {
                named.insert(format!("{folder}/{}.rs", module.ident));
                named.insert(format!("{folder}/{}/mod.rs", module.ident));
            }
        }
    }
    sources
        .iter()
        .filter(|source| source.path.contains("src/") && !is_root(&source.path) && !source.path.contains("/bin/"))
        .filter(|source| !named.contains(&source.path))
        .map(|source| Fault::new(&source.path, 1, "no `mod` names this file"))
        .collect()
}
