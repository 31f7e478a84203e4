//! An error and its causes in one line, each told once.
//!
//! Invariant: nothing that a cause says is lost. Errors of libraries name their cause themselves, because where they are logged only
//! they are shown; in a chain that cause would follow once more.
//! Not here: where errors end (`main`, and the tasks that go on without what failed).

/// The line: the outermost error first, causes behind it, without those that stand there already.
#[must_use]
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line += ": ";
            line += &text;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::one_line;
    use anyhow::anyhow;
    use std::error::Error;
    use std::fmt;

    /// Tells its cause and has it, as the errors of libraries do.
    #[derive(Debug)]
    struct Start(std::io::Error);

    impl fmt::Display for Start {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "start node: {}", self.0)
        }
    }

    impl Error for Start {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn every_cause_is_told_and_none_of_them_twice() {
        let plain = anyhow!("no such file").context("read a").context("start");
        assert_eq!(one_line(&plain), "start: read a: no such file");
        let telling = anyhow::Error::from(Start(std::io::Error::other("disk full"))).context("serve");
        assert_eq!(one_line(&telling), "serve: start node: disk full");
        assert_eq!(one_line(&anyhow!("alone")), "alone");
    }
}
