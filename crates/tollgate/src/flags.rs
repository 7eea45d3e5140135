//! The command line, as `docs/cli.md` lists it. Each flag of `run` is also a variable `TOLLGATE_<NAME>`; the flag wins.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use tollgate_ledger::Column;

/// An AI gateway that reads Higress's YAML.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve
    Run(RunFlags),
    /// Serve an example against the built-in mock LLM
    Demo(DemoFlags),
    /// Read the configuration and print what is wrong with it
    Check(CheckFlags),
    /// Say which route, plugins and upstream a request gets, and why
    Explain(ExplainFlags),
    /// Serve the mock LLM alone
    MockLlm(MockFlags),
    /// One conversation as a tree of requests, tools and attempts
    Conversation(ConversationFlags),
    /// What requests have used and cost: the usage ledger
    Usage(UsageFlags),
    /// List the built-in plugins
    Plugins(PluginsFlags),
}

/// Where the configuration comes from and how it is read.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFlags {
    /// Directory (or file) of YAML or JSON documents, read recursively and watched; repeatable
    #[arg(long, value_name = "DIR", env = "TOLLGATE_CONFIG", value_delimiter = ',')]
    pub config: Vec<PathBuf>,
    /// The system namespace
    #[arg(
        long,
        value_name = "NS",
        default_value = "higress-system",
        env = "TOLLGATE_NAMESPACE"
    )]
    pub namespace: String,
    /// Ingress class to serve; empty serves every Ingress
    #[arg(long, value_name = "NAME", default_value = "", env = "TOLLGATE_INGRESS_CLASS")]
    pub ingress_class: String,
    /// Replace ${NAME} in documents with environment variables
    #[arg(long, env = "TOLLGATE_ENVSUBST", value_parser = FalseyValueParser::new())]
    pub envsubst: bool,
}

/// Listeners and limits.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeFlags {
    /// Plain HTTP/1.1 and h2c; `off` disables, port 0 picks one
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:10000",
        env = "TOLLGATE_HTTP"
    )]
    pub http: Listen,
    /// HTTPS, opened when a certificate is configured
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:10443",
        env = "TOLLGATE_HTTPS"
    )]
    pub https: Listen,
    /// Metrics, health, configuration dump
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:15020",
        env = "TOLLGATE_ADMIN"
    )]
    pub admin: Listen,
    /// Web console and its API
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8001",
        env = "TOLLGATE_CONSOLE"
    )]
    pub console: Listen,
    /// Written state
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./tollgate-data",
        env = "TOLLGATE_DATA"
    )]
    pub data: PathBuf,
    /// Data-plane threads; the default is the number of cores
    #[arg(long, value_name = "N", env = "TOLLGATE_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Client connections per worker; further ones are closed at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50_000,
        env = "TOLLGATE_MAX_CONNECTIONS"
    )]
    pub max_connections: u32,
    /// Connect elsewhere, keeping name, SNI and certificate check; repeatable
    #[arg(
        long,
        value_name = "HOST:PORT:ADDR[:PORT]",
        env = "TOLLGATE_RESOLVE",
        value_delimiter = ','
    )]
    pub resolve: Vec<String>,
    /// Another place for the module images whose names begin so; the longest that fits; repeatable
    #[arg(
        long,
        value_name = "REGISTRY[/PATH]=REGISTRY[/PATH]",
        env = "TOLLGATE_WASM_MIRROR",
        value_delimiter = ','
    )]
    pub wasm_mirror: Vec<tollgate_modules::Mirror>,
    /// A limit of modules, by its name in docs/wasm.md, in the place of its default; repeatable
    #[arg(
        long,
        value_name = "NAME=VALUE",
        env = "TOLLGATE_WASM_LIMIT",
        value_delimiter = ','
    )]
    pub wasm_limit: Vec<tollgate_wasm::Limit>,
    /// Redis for limits and quotas whose config names none: redis://, rediss://, redis+cluster://, redis+sentinel://;
    /// the default is this process's memory
    #[arg(long, value_name = "URL", env = "TOLLGATE_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// Access log: `-` is standard output, `off` none
    #[arg(long, value_name = "PATH", default_value = "-", env = "TOLLGATE_ACCESS_LOG")]
    pub access_log: String,
    /// Level of the program's own log on standard error
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "TOLLGATE_LOG", value_parser = log_filter)]
    pub log: String,
    /// Seconds that open requests get to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30, env = "TOLLGATE_DRAIN")]
    pub drain: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunFlags {
    #[command(flatten)]
    pub config: ConfigFlags,
    #[command(flatten)]
    pub serve: ServeFlags,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoFlags {
    /// Directory of `examples/` to serve
    #[arg(long, value_name = "NAME", default_value = "ai-proxy")]
    pub example: String,
    #[command(flatten)]
    pub serve: ServeFlags,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CheckFlags {
    #[command(flatten)]
    pub config: ConfigFlags,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainFlags {
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Method
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub method: Option<String>,
    /// Header; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Body; makes the method POST
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    pub data: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// The request's URL
    pub url: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MockFlags {
    /// Where to listen; port 0 picks one
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9000",
        env = "TOLLGATE_MOCK_LISTEN"
    )]
    pub listen: SocketAddr,
    /// Milliseconds between streamed events
    #[arg(long, value_name = "MS", default_value_t = 20, env = "TOLLGATE_MOCK_PACE")]
    pub pace: u64,
    /// Serve TLS with a certificate for this name; repeatable
    #[arg(long, value_name = "NAME")]
    pub tls: Vec<String>,
    /// Write the certificate authority of `--tls` here (for SSL_CERT_FILE)
    #[arg(long, value_name = "FILE")]
    pub ca_out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DataFlags {
    /// Directory that a gateway writes its state to
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./tollgate-data",
        env = "TOLLGATE_DATA"
    )]
    pub data: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UsageFlags {
    #[command(flatten)]
    pub data: DataFlags,
    /// Sum by these columns instead of over all: consumer, route, model, model_requested, vendor, source, status,
    /// termination, attempts, arm, conversation, currency, hour, day, month
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', value_parser = sum_column, conflicts_with = "rows")]
    pub by: Vec<Column>,
    /// One line a request instead of sums
    #[arg(long)]
    pub rows: bool,
    /// From this time on: an age (30m, 24h, 7d) or a date (2026-11-28, 2026-11-28T12:00:00Z)
    #[arg(long, value_name = "AGE|DATE", value_parser = moment)]
    pub since: Option<SystemTime>,
    /// Before this time
    #[arg(long, value_name = "AGE|DATE", value_parser = moment)]
    pub until: Option<SystemTime>,
    /// A JSON array of objects
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Comma-separated, with a header
    #[arg(long)]
    pub csv: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ConversationFlags {
    #[command(flatten)]
    pub data: DataFlags,
    /// A JSON array of objects, in the tree's order
    #[arg(long)]
    pub json: bool,
    /// The conversation's id, as `tollgate usage --by conversation` shows it
    pub id: String,
}

fn sum_column(name: &str) -> Result<Column, String> {
    Column::to_sum_by(name).ok_or_else(|| {
        let names: Vec<_> = Column::all_to_sum_by().map(|column| column.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// An age before now, or a date; without a time of day its midnight, without a zone UTC.
fn moment(text: &str) -> Result<SystemTime, String> {
    let expected = || "expected an age such as 30m, 24h, 7d, or a date such as 2026-11-28".to_owned();
    if let Some((number, unit)) = text.split_at_checked(text.len().saturating_sub(1))
        && let Some((_, seconds)) = UNITS.iter().find(|(name, _)| *name == unit)
        && let Ok(number) = number.parse::<u64>()
    {
        let age = Duration::from_secs(number.checked_mul(*seconds).ok_or_else(expected)?);
        return tollgate_base::clock::wall().checked_sub(age).ok_or_else(expected);
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Ok(stamp.into());
    }
    let civil = text.parse::<DateTime>().map_err(|_| expected())?;
    let stamp = Offset::UTC.to_timestamp(civil).map_err(|_| expected())?;
    Ok(stamp.into())
}

/// Units of an age, in seconds.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];

#[derive(Debug, Clone, Args)]
pub(crate) struct PluginsFlags {
    /// The modules that a running gateway has, instead
    #[arg(long)]
    pub live: bool,
    /// Admin address of that gateway
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:15020",
        env = "TOLLGATE_ADMIN"
    )]
    pub admin: SocketAddr,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

/// A level, or `TARGET=LEVEL,…`. A lone word that is no level would count as a target and switch everything off.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    if is_level || (text.contains('=') && tracing_subscriber::EnvFilter::try_new(text).is_ok()) {
        return Ok(text.to_owned());
    }
    Err(format!("expected one of {}, or TARGET=LEVEL", LEVELS.join(", ")))
}

/// A listening address, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| "expected IP:PORT or `off`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_of_modules() {
        let parsed = |value: &str| {
            let line = ["tollgate", "run", "--wasm-limit", value];
            Cli::try_parse_from(line).map_err(|fault| fault.to_string())
        };
        assert!(parsed("wasm_memory_limit=64MiB").is_ok());
        for (bad, told) in [
            (
                "wasm_memory=64MiB",
                "expected one of wasm_module_limit, wasm_memory_limit,",
            ),
            (
                "wasm_stream_time=1h",
                "expected a time of 1 ms to 3600 s, such as 100ms or 10s",
            ),
            ("wasm_calls_limit", "expected NAME=VALUE"),
        ] {
            let fault = parsed(bad).unwrap_err();
            for part in ["--wasm-limit", bad, told] {
                assert!(fault.contains(part), "{part} in {fault}");
            }
        }
    }

    #[test]
    fn log_levels() {
        for good in ["info", "DEBUG", "off", "info,hyper=debug", "tollgate_proxy=trace"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "hyper=loud", "="] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        let at = |text: &str| moment(text).map(|time| Timestamp::try_from(time).unwrap().to_string());
        assert_eq!(at("2026-11-28").as_deref(), Ok("2026-11-28T00:00:00Z"));
        assert_eq!(at("2026-11-28T12:30").as_deref(), Ok("2026-11-28T12:30:00Z"));
        assert_eq!(
            at("2026-11-28T12:30:00+01:00").as_deref(),
            Ok("2026-11-28T11:30:00Z")
        );
        assert!(moment("24h").unwrap() < moment("1m").unwrap());
        for bad in [
            "",
            "h",
            "24",
            "-1h",
            "1y",
            "yesterday",
            "2026-13-01",
            "99999999999999999w",
            "é",
        ] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listeners() {
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert!(
            "127.0.0.1:0"
                .parse::<Listen>()
                .is_ok_and(|listen| listen.0.is_some())
        );
        assert!("nowhere".parse::<Listen>().is_err());
    }
}
