//! Logging of a process: one subscriber, for people or for machines, set up once by the binary.
//!
//! Invariants: logs go to standard error, so that a command's output stays clean; colours only to a terminal; with `Json` every line
//! of it is one object, that of a panic or of a failed start too.
//! Not here: what is logged, and the request ids in spans (each service).

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// The environment variable that overrides the configured filter, such as `HOLDFAST_LOG=info,node=debug`.
pub const FILTER_VARIABLE: &str = "HOLDFAST_LOG";

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a terminal.
    #[default]
    Human,
    /// One JSON object a line, with the spans around it, the outermost first.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no log format; write human or json")),
        }
    }
}

/// The format that `init` set up.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Why logging cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The filter cannot be parsed; carries the filter and why.
    Filter(String, String),
    /// The process has a subscriber already.
    AlreadySet,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(filter, why) => {
                write!(
                    f,
                    "parse log filter `{filter}`: {why}; write it as `info` or `info,node=debug`"
                )
            }
            Self::AlreadySet => f.write_str("set up logging: the process has a subscriber already"),
        }
    }
}

impl std::error::Error for LogError {}

/// Sets up logging for the process; `filter` as `info,node=debug`, overridden by `HOLDFAST_LOG`.
///
/// Errors: the filter cannot be parsed; logging was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| filter.to_owned());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(&filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true);
    match format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true)
            .try_init(),
    }
    .map_err(|_| LogError::AlreadySet)?;
    if FORMAT.set(format).is_ok() && format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!(target: "panic", what = %panic, "a thread panicked");
        }));
    }
    Ok(())
}

/// Tells a person or a machine why the process ends: a line of the log when logs are JSON, else plain words.
pub fn tell_end(why: &str) {
    match FORMAT.get() {
        Some(LogFormat::Json) => tracing::error!(why, "holdfast ends"),
        _ => eprintln!("holdfast: {why}"),
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|error| LogError::Filter(filter.to_owned(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{LogError, LogFormat, init, parse_filter};

    #[test]
    fn a_filter_that_cannot_be_parsed_says_how_to_write_one() {
        let error = parse_filter("node=loudest").unwrap_err();
        assert!(error.to_string().contains("write it as"), "{error}");
        assert!(parse_filter("info,node=debug").is_ok());
    }

    #[test]
    fn a_format_is_human_or_json_and_nothing_else() {
        assert_eq!("human".parse(), Ok(LogFormat::Human));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("JSON".parse::<LogFormat>().unwrap_err().contains("write human or json"));
    }

    #[test]
    fn logging_is_set_up_once() {
        init(LogFormat::Human, "error").unwrap();
        assert_eq!(init(LogFormat::Json, "error"), Err(LogError::AlreadySet));
    }
}
