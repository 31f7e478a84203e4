//! Which package is the only door to which library.

use crate::tree::{Fault, Source, is_of_tests};
use syn::visit::{self, Visit};

struct Door {
    /// First part of the path, or the first two.
    library: &'static [&'static str],
    /// Paths that may name it begin with one of these.
    allowed: &'static [&'static str],
}

const ATTACKERS: [&str; 2] = ["chaos/", "tests/"];

// Libraries are written as parts, so that no line of this file names one as a path.
const DOORS: &[Door] = &[
    Door {
        library: &["quinn"],
        allowed: &["crates/rpc/"],
    },
    Door {
        library: &["rcgen"],
        allowed: &["crates/rpc/"],
    },
    Door {
        library: &["rustls"],
        allowed: &["crates/rpc/", "gateway/", "client-sdk/src/http.rs"],
    },
    Door {
        library: &["rocksdb"],
        allowed: &["crates/kv/"],
    },
    Door {
        library: &["openraft"],
        allowed: &["metadata-raft/"],
    },
    Door {
        library: &["axum"],
        allowed: &["gateway/src/http", "gateway/src/serve", "gateway/tests"],
    },
    Door {
        library: &["blake3"],
        allowed: &["crates/codec/"],
    },
    Door {
        library: &["aes_gcm", "ring"],
        allowed: &["crates/codec/"],
    },
    Door {
        library: &["reed_solomon_erasure"],
        allowed: &["crates/codec/"],
    },
    Door {
        library: &["zstd"],
        allowed: &["crates/codec/"],
    },
    Door {
        library: &["fastcdc"],
        allowed: &["crates/codec/"],
    },
    Door {
        library: &["utoipa"],
        allowed: &["crates/api/", "gateway/src/http"],
    },
    Door {
        library: &["std", "fs"],
        allowed: &[
            "crates/disk/",
            "crates/kv/",
            "crates/daemon/",
            "client-sdk/src/sync",
            "src/",
        ],
    },
    Door {
        library: &["tokio", "fs"],
        allowed: &["crates/disk/", "crates/daemon/", "client-sdk/src/sync", "src/"],
    },
];

const FRONTS: [&str; 4] = [
    "gateway/src/http",
    "gateway/src/s3",
    "gateway/src/dav",
    "gateway/src/web",
];
const NOT_IN_FRONTS: [&str; 3] = ["rpc", "codec", "placement"];

struct Paths<'a> {
    source: &'a Source,
    faults: Vec<Fault>,
}

impl Paths<'_> {
    fn check(&mut self, parts: &[String], line: usize) {
        let path = self.source.path.as_str();
        let is_test = ATTACKERS.iter().any(|folder| path.starts_with(folder))
            || path.contains("/tests/")
            // Programs that measure a package: they start processes and read what those take.
            || path.contains("/examples/")
            || path.ends_with("tests.rs");
        for door in DOORS {
            let is_named =
                parts.len() >= door.library.len() && door.library.iter().zip(parts).all(|(want, have)| want == have);
            if is_named && !is_test && !door.allowed.iter().any(|allowed| path.starts_with(allowed)) {
                self.faults.push(Fault::new(
                    path,
                    line,
                    format!("`{}` is named outside of its door", door.library.join("::")),
                ));
            }
        }
        let in_front = FRONTS.iter().any(|front| path.starts_with(front)) && !is_test;
        if in_front
            && parts
                .first()
                .is_some_and(|first| NOT_IN_FRONTS.contains(&first.as_str()))
            && parts.len() > 1
        {
            self.faults
                .push(Fault::new(path, line, format!("a front names `{}`", parts[0])));
        }
    }

    fn walk(&mut self, tree: &syn::UseTree, above: &[String], line: usize) {
        let mut here = above.to_vec();
        match tree {
            syn::UseTree::Path(path) => {
                here.push(path.ident.to_string());
                self.walk(&path.tree, &here, line);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.walk(item, &here, line)),
            syn::UseTree::Name(name) => {
                here.push(name.ident.to_string());
                self.check(&here, line);
            }
            syn::UseTree::Rename(name) => {
                here.push(name.ident.to_string());
                self.check(&here, line);
            }
            syn::UseTree::Glob(_) => self.check(&here, line),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_of_tests(item) {
            visit::visit_item_mod(self, item);
        }
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let line = item.use_token.span.start().line;
        self.walk(&item.tree, &[], line);
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.check(&parts, line);
        }
        visit::visit_path(self, path);
    }
}

/// Names of libraries outside of the package that is their door, and of inner packages in fronts.
pub(crate) fn foreign_names(source: &Source) -> Vec<Fault> {
    let Ok(file) = syn::parse_file(&source.text) else {
        return Vec::new();
    };
    let mut visitor = Paths {
        source,
        faults: Vec::new(),
    };
    visitor.visit_file(&file);
    visitor.faults
}
