//! `caraway check`.

use std::fmt::Write;

use clap::Args;

use super::{ConfigFile, print};
use crate::config::boot::Firmware;
use crate::config::spice::Auth;
use crate::config::units::Size;
use crate::config::{BootSpec, MachineSpec};
use crate::exit::{Exit, Failure};

/// What would run.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the config with every default and address filled in.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn act(&self) -> Result<Exit, Failure> {
        let spec = self.config.load()?;
        if self.json {
            let config = serde_json::to_string_pretty(&spec.to_config())
                .map_err(|error| Failure::of(Exit::Internal, &error))?;
            return print(&format!("{config}\n"));
        }
        print(&table(&spec))
    }
}

/// The machine as people read it.
fn table(spec: &MachineSpec) -> String {
    let mut text = String::new();
    for (key, value) in facts(spec) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{key:<10} {value}");
    }
    let chipset = [
        ["00:00.0", "", "host bridge", "q35"],
        ["00:1f.0", "", "LPC bridge", "ich9"],
    ];
    let mut rows: Vec<[String; 4]> = chipset.map(|row| row.map(String::from)).into();
    rows.extend(spec.pci_devices().into_iter().map(|entry| {
        [
            entry.address.to_string(),
            entry.id,
            entry.kind.to_owned(),
            entry.detail,
        ]
    }));
    rows.sort();
    let widest = rows
        .iter()
        .map(|row| row[1].len())
        .max()
        .unwrap_or(0)
        .max(2);
    let _ = writeln!(
        text,
        "\n{:<8} {:<widest$} {:<13} detail",
        "address", "id", "device"
    );
    for [address, id, kind, detail] in rows {
        let _ = writeln!(text, "{address:<8} {id:<widest$} {kind:<13} {detail}");
    }
    for note in &spec.notes {
        let _ = writeln!(text, "\nnote: {note}");
    }
    text
}

fn facts(spec: &MachineSpec) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("machine", format!("{} ({})", spec.name, spec.uuid)),
        ("cpus", spec.cpus.to_string()),
        ("memory", format!("{}{}", Size(spec.memory), spec.ram)),
    ];
    match &spec.boot {
        BootSpec::Firmware { name, path } => facts.push((
            "firmware",
            match name {
                Firmware::Path(_) => path.display().to_string(),
                named => format!("{named} ({})", path.display()),
            },
        )),
        BootSpec::Kernel {
            path,
            initrd,
            cmdline,
        } => {
            facts.push(("kernel", path.display().to_string()));
            if let Some(initrd) = initrd {
                facts.push(("initrd", initrd.display().to_string()));
            }
            facts.push(("cmdline", format!("{cmdline:?}")));
        }
    }
    facts.push(("serial", spec.serial.to_string()));
    match &spec.spice {
        None => facts.push(("spice", "none".to_owned())),
        Some(spice) => {
            let auth = match spice.auth {
                Auth::None => "open to all",
                Auth::Password => "with a password",
                Auth::Ticket => "with tickets",
            };
            for listen in &spice.listen {
                facts.push(("spice", format!("{listen} ({auth})")));
            }
            for listen in spice.tls.iter().flat_map(|tls| &tls.listen) {
                facts.push(("spice tls", format!("{listen} ({auth})")));
            }
            if let Some(console) = &spice.console {
                facts.push(("console", console.display().to_string()));
            }
        }
    }
    if let Some(port) = spec.debug_exit {
        facts.push(("debug exit", format!("port {port} ({port:#x})")));
    }
    let word = |value: serde_json::Result<serde_json::Value>| {
        value
            .ok()
            .and_then(|v| v.as_str().map(String::from))
            .unwrap_or_default()
    };
    facts.push((
        "on",
        format!(
            "poweroff: {}, reset: {}, panic: {}",
            word(serde_json::to_value(spec.on_poweroff)),
            word(serde_json::to_value(spec.on_reset)),
            word(serde_json::to_value(spec.on_panic)),
        ),
    ));
    facts
}
