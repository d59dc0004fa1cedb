//! The command line.

mod check;
mod ctl;
mod demo;
mod run;
mod tls;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, Host};
use crate::exit::{Exit, Failure};
use crate::logging::{self, LogFormat};

/// Runs virtual machines that serve their own desktop over SPICE.
#[derive(Debug, Parser)]
#[command(
    name = "caraway",
    version,
    max_term_width = 100,
    subcommand_required = true
)]
pub struct Cli {
    /// How errors and logs look on standard error.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Log more; twice or three times for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a machine in the foreground, its serial port on the terminal; Ctrl-] leaves.
    Run(run::Run),
    /// Say what would run, with every default and address filled in, and start nothing.
    Check(check::Check),
    /// Print the JSON Schema of the config.
    Schema,
    /// Say what this host can and can't do, and the fix for each.
    Doctor(Doctor),
    /// Run the built-in guest on a SPICE display; needs no file at all.
    Demo(demo::Demo),
    /// Ask something of a running machine through its API socket.
    Ctl(ctl::Ctl),
    /// Make certificates for viewers that come by TLS.
    Tls(tls::Tls),
    /// Print the completion script of a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Doctor {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// A config file's place.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The machine's JSON file; `-` reads standard input.
    #[arg(value_name = "CONFIG")]
    path: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<config::MachineSpec, Failure> {
        Ok(config::load(&self.path, &Host::probe())?)
    }
}

/// Does what the command line says; errors are on standard error when it returns.
#[must_use]
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be said if even that can't be written.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
        }
    };
    logging::start(cli.log_format, cli.verbose);
    cli.verb.act(cli.log_format).unwrap_or_else(|failure| {
        show(&failure, cli.log_format);
        failure.exit()
    })
}

impl Verb {
    fn act(self, format: LogFormat) -> Result<Exit, Failure> {
        match self {
            Self::Run(run) => run.act(format),
            Self::Check(check) => check.act(),
            Self::Schema => print(&config::json_schema()),
            Self::Doctor(doctor) => {
                let findings = crate::doctor::examine(&Host::probe());
                print(&match doctor.json {
                    true => crate::doctor::to_json(&findings),
                    false => crate::doctor::to_text(&findings),
                })?;
                Ok(crate::doctor::exit(&findings))
            }
            Self::Demo(demo) => demo.act(),
            Self::Ctl(ctl) => ctl.act(),
            Self::Tls(tls) => tls.act(),
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "caraway", &mut script);
                print_bytes(&script)
            }
        }
    }
}

fn show(failure: &Failure, format: LogFormat) {
    let text = match format {
        LogFormat::Text => failure.to_string(),
        LogFormat::Json => failure.to_json().to_string(),
    };
    // Nothing can be said if even that can't be written.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

fn print(text: &str) -> Result<Exit, Failure> {
    print_bytes(text.as_bytes())
}

/// A reader that went away early (`caraway schema | head`) is no failure.
fn print_bytes(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        Err(error) => Err(Failure::of(Exit::Resource, &error)),
    }
}
