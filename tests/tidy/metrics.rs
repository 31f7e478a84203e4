//! Metrics: the page and the code tell the same, and what is registered is also changed.
//!
//! A metric is a constant of a file called metrics.rs; naming it in `ALL` registers it. It counts as changed where a function of the
//! same package, tests aside, names it and changes a metric of its kind, itself or through a function or a field of the same file.
//! Not here: whether it is changed at the right moment (each package's own tests).

use crate::tree::{Fault, Source, is_of_tests};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

const PAGE: &str = "docs/metrics.md";
const FILE: &str = "/src/metrics.rs";

/// A constant that defines a metric.
#[derive(Debug)]
struct Metric {
    constant: String,
    name: String,
    kind: &'static str,
    labels: Vec<String>,
    help: String,
    path: String,
    line: usize,
}

/// Differences between the metrics of `sources` and the rows of `page`, in both directions.
pub(crate) fn page_differs(sources: &[Source], page: &str) -> Vec<Fault> {
    let metrics = defined(sources);
    let mut rows: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for (number, line) in page.lines().enumerate() {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        // Only the tables of metrics have four columns.
        if cells.len() == 6 && cells[1].starts_with('`') {
            rows.insert(cells[1].replace('`', ""), (number + 1, cells[2..5].to_vec()));
        }
    }
    let mut faults = Vec::new();
    for metric in &metrics {
        let told = vec![metric.kind.to_owned(), labels_text(&metric.labels), metric.help.clone()];
        match rows.remove(&metric.name) {
            None => faults.push(Fault::new(
                &metric.path,
                metric.line,
                format!("{PAGE} lacks `{}`", metric.name),
            )),
            Some((line, cells)) if cells != told => faults.push(Fault::new(
                PAGE,
                line,
                format!("says {cells:?} of `{}`; the code says {told:?}", metric.name),
            )),
            Some(_) => {}
        }
    }
    for (name, (line, _)) in rows {
        faults.push(Fault::new(PAGE, line, format!("no code defines `{name}`")));
    }
    faults
}

fn labels_text(labels: &[String]) -> String {
    if labels.is_empty() {
        return "-".to_owned();
    }
    let quoted: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    quoted.join(" ")
}

/// Metrics that no `ALL` registers, that nothing changes, or that are defined outside of a metrics.rs.
pub(crate) fn idle(sources: &[Source]) -> Vec<Fault> {
    let metrics = defined(sources);
    let mut faults = Vec::new();
    let mut changes: BTreeSet<(String, String)> = BTreeSet::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let package = package_of(&source.path);
        if source.path.ends_with(FILE) {
            let registered = source.text.split_once("const ALL").map_or("", |(_, list)| list);
            for metric in metrics.iter().filter(|metric| metric.path == source.path) {
                let is_named = registered.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
                if !is_named.into_iter().any(|word| word == metric.constant) {
                    faults.push(Fault::new(
                        &source.path,
                        metric.line,
                        format!("`{}` is not in ALL", metric.constant),
                    ));
                }
            }
            continue;
        }
        let uses = Uses::of(source);
        for line in &uses.defined {
            faults.push(Fault::new(
                &source.path,
                *line,
                "a metric is defined outside of metrics.rs",
            ));
        }
        let own = metrics.iter().filter(|metric| package_of(&metric.path) == package);
        for metric in own.filter(|metric| uses.names_and_changes(&metric.constant, changing(metric.kind))) {
            changes.insert((package.to_owned(), metric.constant.clone()));
        }
    }
    for metric in &metrics {
        let key = (package_of(&metric.path).to_owned(), metric.constant.clone());
        if !changes.contains(&key) {
            faults.push(Fault::new(
                &metric.path,
                metric.line,
                format!("nothing changes `{}`", metric.name),
            ));
        }
    }
    faults
}

fn changing(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["inc", "inc_by"],
        "gauge" => &["set", "add", "sub", "inc", "dec"],
        _ => &["observe", "start_timer"],
    }
}

fn is_test(path: &str) -> bool {
    !path.contains("src/") || path.contains("/tests/") || path.ends_with("tests.rs") || path.starts_with("chaos/")
}

fn package_of(path: &str) -> &str {
    path.split_once("src/").map_or(path, |(package, _)| package)
}

fn defined(sources: &[Source]) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(FILE)) {
        let file = syn::parse_file(&source.text).expect("a source of the project parses");
        for item in file.items {
            if let syn::Item::Const(item) = item
                && let syn::Expr::Call(call) = item.expr.as_ref()
                && let Some(kind) = kind_of(call)
            {
                let text = |at: usize| match call.args.get(at) {
                    Some(syn::Expr::Lit(syn::ExprLit {
                        lit: syn::Lit::Str(text),
                        ..
                    })) => text.value(),
                    _ => String::new(),
                };
                metrics.push(Metric {
                    constant: item.ident.to_string(),
                    name: text(0),
                    kind,
                    labels: labels_of(call.args.get(2)),
                    help: text(1),
                    path: source.path.clone(),
                    line: item.ident.span().start().line,
                });
            }
        }
    }
    metrics
}

fn labels_of(argument: Option<&syn::Expr>) -> Vec<String> {
    let Some(syn::Expr::Reference(reference)) = argument else {
        return Vec::new();
    };
    let syn::Expr::Array(array) = reference.expr.as_ref() else {
        return Vec::new();
    };
    let text = |element: &syn::Expr| match element {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    };
    array.elems.iter().filter_map(text).collect()
}

/// `Definition::counter(...)` and its like.
fn kind_of(call: &syn::ExprCall) -> Option<&'static str> {
    let syn::Expr::Path(path) = call.func.as_ref() else {
        return None;
    };
    let mut parts = path.path.segments.iter().rev().map(|part| part.ident.to_string());
    let (function, owner) = (parts.next()?, parts.next()?);
    match (owner.as_str(), function.as_str()) {
        ("Definition", "counter") => Some("counter"),
        ("Definition", "gauge") => Some("gauge"),
        ("Definition", "latency") => Some("histogram"),
        _ => None,
    }
}

/// What one function does about metrics.
#[derive(Default)]
struct Function {
    name: String,
    /// Constants of a module `metrics` that it names.
    names: BTreeSet<String>,
    /// Methods and functions that it calls.
    calls: BTreeSet<String>,
    /// Constants named in the value of a field or of a local name, with that.
    fields: BTreeSet<(String, String)>,
}

/// What the functions of a file do about metrics.
#[derive(Default)]
struct Uses {
    functions: Vec<Function>,
    /// Calls of a method on a field, such as `self.free.set(..)`.
    on_fields: BTreeSet<(String, String)>,
    /// Lines where a metric is defined.
    defined: Vec<usize>,
    /// The field whose value is being looked at.
    field: Option<String>,
    depth: usize,
}

impl Uses {
    fn of(source: &Source) -> Self {
        let file = syn::parse_file(&source.text).expect("a source of the project parses");
        let mut uses = Self::default();
        uses.visit_file(&file);
        uses
    }

    fn names_and_changes(&self, constant: &str, methods: &[&str]) -> bool {
        let changes = |function: &Function| methods.iter().any(|method| function.calls.contains(*method));
        let by_other = |function: &Function| {
            let is_called = |other: &&Function| function.calls.contains(&other.name);
            self.functions.iter().filter(is_called).any(changes)
        };
        let by_field = |function: &Function| {
            let fields = function.fields.iter().filter(|(named, _)| named == constant);
            fields.into_iter().any(|(_, field)| {
                let is_changed = |method: &&str| self.on_fields.contains(&(field.clone(), (*method).to_owned()));
                methods.iter().any(is_changed)
            })
        };
        let naming = self
            .functions
            .iter()
            .filter(|function| function.names.contains(constant));
        naming
            .into_iter()
            .any(|function| changes(function) || by_other(function) || by_field(function))
    }

    fn inside(&mut self, name: &syn::Ident, visit: impl FnOnce(&mut Self)) {
        if self.depth == 0 {
            self.functions.push(Function {
                name: name.to_string(),
                ..Function::default()
            });
        }
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }

    fn current(&mut self) -> Option<&mut Function> {
        (self.depth > 0).then(|| self.functions.last_mut()).flatten()
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_of_tests(item) {
            visit::visit_item_mod(self, item);
        }
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.inside(&item.sig.ident, |uses| visit::visit_item_fn(uses, item));
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.inside(&item.sig.ident, |uses| visit::visit_impl_item_fn(uses, item));
    }
    fn visit_field_value(&mut self, value: &'ast syn::FieldValue) {
        if let syn::Member::Named(name) = &value.member {
            let before = self.field.replace(name.to_string());
            visit::visit_field_value(self, value);
            self.field = before;
        }
    }
    fn visit_local(&mut self, local: &'ast syn::Local) {
        // A name that becomes a field of the same name.
        if let syn::Pat::Ident(name) = &local.pat {
            let before = self.field.replace(name.ident.to_string());
            visit::visit_local(self, local);
            self.field = before;
        } else {
            visit::visit_local(self, local);
        }
    }
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if kind_of(call).is_some() {
            let syn::Expr::Path(path) = call.func.as_ref() else {
                return;
            };
            self.defined.push(path.path.segments[0].ident.span().start().line);
        }
        if let syn::Expr::Path(path) = call.func.as_ref()
            && let Some(last) = path.path.segments.last()
            && let Some(function) = self.current()
        {
            function.calls.insert(last.ident.to_string());
        }
        visit::visit_expr_call(self, call);
    }
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        if let syn::Expr::Field(field) = call.receiver.as_ref()
            && let syn::Member::Named(name) = &field.member
        {
            self.on_fields.insert((name.to_string(), method.clone()));
        }
        if let Some(function) = self.current() {
            function.calls.insert(method);
        }
        visit::visit_expr_method_call(self, call);
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if let [.., owner, constant] = parts.as_slice()
            && owner == "metrics"
        {
            let (constant, field) = (constant.clone(), self.field.clone());
            if let Some(function) = self.current() {
                function.fields.extend(field.map(|field| (constant.clone(), field)));
                function.names.insert(constant);
            }
        }
        visit::visit_path(self, path);
    }
}
