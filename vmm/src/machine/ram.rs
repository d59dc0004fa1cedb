//! Guest RAM, as the config has the host keep it.

use caraway_arch::memory::{self, Advice, MemoryError};
use caraway_arch::{GuestMemory, Layout};

use crate::config::memory::{HugePages, MemoryPolicy};
use crate::doctor;
use crate::exit::{Exit, Failure};

/// Makes the RAM of `layout`.
///
/// # Errors
/// The host has not as much, or can't do with it what the config says.
pub(super) fn create(layout: &Layout, policy: MemoryPolicy) -> Result<GuestMemory, Failure> {
    let memory = memory::create(layout, policy.backing()).map_err(|error| failed(&error))?;
    let transparent = policy.hugepages == Some(HugePages::Transparent);
    for (wanted, advice) in [
        (policy.mergeable, Advice::Merge),
        (transparent, Advice::HugePages),
    ] {
        if wanted {
            memory::advise(&memory, advice).map_err(|error| failed(&error))?;
        }
    }
    // Both may be switched on later.
    if policy.mergeable && !doctor::ksm_runs() {
        tracing::warn!("no pages are merged: {}", doctor::KSM_FIX);
    }
    if transparent && !doctor::huge_pages_are_found() {
        tracing::warn!("no huge pages are used: {}", doctor::HUGE_PAGES_FIX);
    }
    Ok(memory)
}

fn failed(error: &MemoryError) -> Failure {
    let (exit, key, hint) = match error {
        MemoryError::HugePages {
            size,
            wanted,
            reserved,
            free,
        } => {
            let count = reserved + wanted - free;
            let file = size.folder().join("nr_hugepages");
            let command = format!("reserve them: echo {count} > {}", file.display());
            (Exit::Resource, "memory.hugepages", command)
        }
        MemoryError::NoHugePages(size) => {
            let hint = format!(
                "use another size or \"transparent\"; {} is what this host lacks",
                size.folder().display()
            );
            (Exit::Unsupported, "memory.hugepages", hint)
        }
        MemoryError::Advice { advice, .. } => {
            let key = match advice {
                Advice::Merge => "memory.mergeable",
                Advice::HugePages => "memory.hugepages",
            };
            let hint = "remove it, or use a kernel that can; `caraway doctor` tells".to_owned();
            (Exit::Unsupported, key, hint)
        }
        _ => {
            let hint = "give the guest less memory, or close something on the host";
            (Exit::Config, "memory", hint.to_owned())
        }
    };
    Failure::of(exit, error).context(key).hint(hint)
}
