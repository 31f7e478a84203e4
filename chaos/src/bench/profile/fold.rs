//! Samples of `perf script` as stacks that people can read, each with its count.
//!
//! A stack is role, kind of thread, then functions from the outside in. Names lose generics and closures; plumbing (runtime, futures,
//! allocator's and standard library's wrappers) is left out above the innermost frame; what a foreign package or the kernel does within
//! is one frame by its entrance and one by the innermost function.
//! Pure. Invariant: no sample is dropped, so shares are of all that was recorded.

use std::collections::BTreeMap;

/// Frames whose functions say nothing about where time goes: who calls is seen above them, what they call below.
const PLUMBING: [&str; 14] = [
    "tokio",
    "std",
    "core",
    "alloc",
    "futures_util",
    "futures_core",
    "tracing",
    "mio",
    "tower",
    "tower_service",
    "axum_core",
    "http_body_util",
    "http_body",
    "hyper_util",
];
/// Foreign packages whose inner calls are one frame.
const FOREIGN: [&str; 6] = ["hyper", "axum", "openraft", "rocksdb", "quinn", "quinn_udp"];
/// How a system call enters the kernel, and how its functions' names begin.
const KERNEL_ENTRANCES: [&str; 4] = [
    "entry_SYSCALL_64_after_hwframe",
    "entry_SYSCALL_64",
    "do_syscall_64",
    "x64_sys_call",
];
const CALL_PREFIXES: [&str; 5] = ["__x64_sys_", "__se_sys_", "ksys_", "__sys_", "do_"];
/// The beginnings of threads.
const BEGINNINGS: [&str; 4] = ["clone3", "start_thread", "_start", "__libc_start_main"];

/// Stacks with the number of their samples.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) stacks: BTreeMap<Vec<String>, u64>,
}

impl Folded {
    /// All samples.
    pub(super) fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }
}

/// Reads the text of `perf script -F comm,pid,tid,ip,sym`. A process that is not in `roles` is called by its command.
pub(super) fn fold(script: &str, roles: &BTreeMap<u32, String>) -> Folded {
    let mut folded = Folded::default();
    let mut head: Option<(String, String)> = None;
    let mut frames: Vec<Frame> = Vec::new();
    // The empty line at the end closes the last sample.
    for line in script.lines().chain([""]) {
        if line.trim().is_empty() {
            if let Some((role, thread)) = head.take() {
                let mut stack = vec![role, thread];
                stack.extend(readable(&frames));
                *folded.stacks.entry(stack).or_default() += 1;
            }
            frames.clear();
        } else if line.starts_with([' ', '\t']) && head.is_some() {
            frames.push(Frame::read(line));
        } else {
            head = header(line, roles);
        }
    }
    folded
}

/// `comm pid/tid`, where a command may hold blanks.
fn header(line: &str, roles: &BTreeMap<u32, String>) -> Option<(String, String)> {
    let line = line.trim_end().trim_end_matches(':').trim_end();
    let (command, ids) = line.rsplit_once(char::is_whitespace)?;
    let pid: u32 = ids.split_once('/')?.0.parse().ok()?;
    let thread = kind_of_thread(command.trim());
    let role = roles.get(&pid).cloned().unwrap_or_else(|| thread.clone());
    Some((role, thread))
}

/// Threads of one kind differ by a number at the end.
fn kind_of_thread(name: &str) -> String {
    let kind = name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
    if kind.is_empty() {
        name.to_owned()
    } else {
        kind.to_owned()
    }
}

/// One line of a stack.
struct Frame {
    is_kernel: bool,
    name: String,
}

impl Frame {
    fn read(line: &str) -> Self {
        let (address, name) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        Self {
            // The upper half of the address space.
            is_kernel: address.len() == 16 && address.starts_with("ffff"),
            name: name.trim().to_owned(),
        }
    }

    fn is_unknown(&self) -> bool {
        self.name.is_empty() || self.name == "[unknown]"
    }
}

/// Frames of one sample, innermost first as perf gives them, as a stack from the outside in.
fn readable(frames: &[Frame]) -> Vec<String> {
    let mut stack: Vec<String> = Vec::new();
    let kernel = frames.iter().take_while(|frame| frame.is_kernel).count();
    let (kernel, user) = frames.split_at(kernel);
    let known: Vec<String> = user
        .iter()
        .rev()
        .filter(|frame| !frame.is_unknown())
        .map(|frame| plain(&frame.name))
        .filter(|name| !BEGINNINGS.contains(&name.as_str()))
        .collect();
    for (at, name) in known.iter().enumerate() {
        let is_innermost = kernel.is_empty() && at + 1 == known.len();
        let package = package(name);
        if PLUMBING.contains(&package) && !is_innermost {
            continue;
        }
        let is_within = FOREIGN.contains(&package) && stack.last().is_some_and(|last| self::package(last) == package);
        if stack.last() != Some(name) && (!is_within || is_innermost) {
            stack.push(name.clone());
        }
    }
    if let Some(innermost) = kernel.first() {
        stack.push(entrance(kernel));
        stack.push(format!("{} (kernel)", innermost.name));
    }
    if stack.is_empty() {
        stack.push("unknown".to_owned());
    }
    stack
}

/// By what the kernel was entered: the call's name, or the kind of exception.
fn entrance(kernel: &[Frame]) -> String {
    let mut names = kernel.iter().rev().map(|frame| frame.name.as_str());
    // The kernel's own entrance is not always a frame of its own: some calls begin with what carries them out.
    let outermost = names.find(|name| !KERNEL_ENTRANCES.contains(name)).unwrap_or("syscall");
    if outermost.starts_with("asm_exc_page_fault") {
        return "kernel: page fault".to_owned();
    }
    if outermost.starts_with("asm_") {
        return "kernel: interrupt".to_owned();
    }
    let call = CALL_PREFIXES.iter().find_map(|prefix| outermost.strip_prefix(prefix));
    format!("kernel: {}", call.unwrap_or(outermost))
}

/// Up to the first `::`; the whole name where there is none.
pub(super) fn package(name: &str) -> &str {
    name.split("::").next().unwrap_or(name)
}

/// A name without generics, closures and the trait that a method belongs to.
pub(super) fn plain(name: &str) -> String {
    let name = name.trim_start_matches("non-virtual thunk to ");
    let own = match name.strip_prefix('<') {
        Some(inner) => implementation(inner),
        None => name.to_owned(),
    };
    let mut text = without_generics(&own);
    for closure in ["::{{closure}}", "{{vtable.shim}}"] {
        text = text.replace(closure, "");
    }
    text
}

/// `A as B>::m` as `A::m`; the opening bracket is taken off.
fn implementation(inner: &str) -> String {
    let mut depth = 1_usize;
    for (at, character) in inner.char_indices() {
        match character {
            '<' => depth += 1,
            '>' if !inner[..at].ends_with('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let (within, rest) = (&inner[..at], &inner[at + 1..]);
            let own = split_as(within);
            let own = own
                .strip_prefix("impl ")
                .and_then(|own| Some(own.split_once(" for ")?.1))
                .unwrap_or(own);
            let own = own
                .trim_start_matches(['&', '*'])
                .trim_start_matches("mut ")
                .trim_start_matches("dyn ");
            // A type that is itself an implementation's, such as `<X as Y>::Z`.
            let own = own.strip_prefix('<').map_or_else(|| own.to_owned(), implementation);
            return format!("{own}{rest}");
        }
    }
    inner.to_owned()
}

/// What stands before ` as ` outside of any bracket.
fn split_as(within: &str) -> &str {
    let mut depth = 0_usize;
    for (at, character) in within.char_indices() {
        match character {
            '<' => depth += 1,
            '>' if !within[..at].ends_with('-') => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && within[at..].starts_with(" as ") => return &within[..at],
            _ => {}
        }
    }
    within
}

/// Without everything in `<` and `>`, and without the `::` that would stand double then.
fn without_generics(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut depth = 0_usize;
    let mut before = ' ';
    for character in name.chars() {
        match character {
            '<' => depth += 1,
            '>' if before != '-' && depth > 0 => depth -= 1,
            _ if depth == 0 => text.push(character),
            _ => {}
        }
        before = character;
    }
    while text.contains("::::") {
        text = text.replace("::::", "::");
    }
    text.trim_end_matches("::").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{fold, plain};
    use std::collections::BTreeMap;

    fn check(name: &str, expected: &str) {
        assert_eq!(plain(name), expected, "{name}");
    }

    #[test]
    fn names_lose_generics_closures_and_traits() {
        check("memcpy", "memcpy");
        check("codec::cut::Cutter::push", "codec::cut::Cutter::push");
        check(
            "gateway::http::upload::upload::{{closure}}",
            "gateway::http::upload::upload",
        );
        check(
            "<kv::rocks::RocksKv as kv::seam::Kv>::write",
            "kv::rocks::RocksKv::write",
        );
        check(
            "<alloc::vec::Vec<T> as alloc::vec::spec_from_iter::SpecFromIter<T,I>>::from_iter",
            "alloc::vec::Vec::from_iter",
        );
        check("<impl a::B for c::D<dyn e::F>>::decrypt", "c::D::decrypt");
        check(
            "quinn_proto::crypto::rustls::<impl quinn_proto::crypto::PacketKey for alloc::boxed::Box<dyn x>>::decrypt",
            "quinn_proto::crypto::rustls::decrypt",
        );
        check(
            "rocksdb::InlineSkipList<rocksdb::Key const&>::Find<true>",
            "rocksdb::InlineSkipList::Find",
        );
        check(
            "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            "core::ops::function::FnOnce::call_once",
        );
        check(
            "<&mio::net::tcp::stream::TcpStream as std::io::Read>::read",
            "mio::net::tcp::stream::TcpStream::read",
        );
        check("<F as a::B<fn(x) -> y>>::call", "F::call");
        check("", "");
        check("<", "");
    }

    const SCRIPT: &str = "\
tokio-rt-worker  1665/1846 \n\
\t           95227 malloc\n\
\t          ed08e1 <kv::rocks::RocksSnapshot as kv::seam::KvRead>::scan\n\
\t          d4ac5a core::ops::function::FnOnce::call_once{{vtable.shim}}\n\
\t          1098eb clone3\n\
\n\
disk-12  7/8 \n\
\tffffffff82203249 copy_folio\n\
\tffffffff821ef690 do_pwritev\n\
\tffffffff821ef691 do_syscall_64\n\
\tffffffff81000130 entry_SYSCALL_64_after_hwframe\n\
\t          10a974 [unknown]\n\
\t          1e69df disk::journal::append\n\
\n\
other thread  9/9 \n\
\n\
disk-9  7/8 \n\
\tffffffff82203249 clear_page_erms\n\
\tffffffff82203259 asm_exc_page_fault\n\
\t          1e69df memcpy\n\
\n";

    #[test]
    fn a_script_is_folded_into_readable_stacks_and_no_sample_is_lost() {
        let roles = BTreeMap::from([(1665, "metadata".to_owned()), (7, "node".to_owned())]);
        let folded = fold(SCRIPT, &roles);
        let stacks: Vec<String> = folded.stacks.keys().map(|stack| stack.join(";")).collect();
        assert_eq!(
            stacks,
            [
                "metadata;tokio-rt-worker;kv::rocks::RocksSnapshot::scan;malloc",
                "node;disk;disk::journal::append;kernel: pwritev;copy_folio (kernel)",
                "node;disk;memcpy;kernel: page fault;clear_page_erms (kernel)",
                "other thread;other thread;unknown",
            ]
        );
        assert_eq!(folded.samples(), 4);
        assert_eq!(fold("", &roles).samples(), 0);
    }
}
