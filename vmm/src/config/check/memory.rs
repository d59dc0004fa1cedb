//! `memory`.

use super::Checker;
use crate::config::memory::{HugePages, Memory, MemoryPolicy};
use crate::config::path::{JsonPath, at};
use crate::config::units::{MIB, Size};

const DEFAULT: u64 = 512 * MIB;
const LEAST: u64 = 4 * MIB;

impl Checker<'_> {
    /// Bytes of guest memory, and how the host keeps it.
    pub(super) fn memory(&mut self, memory: &Memory, has_balloon: bool) -> (u64, MemoryPolicy) {
        let Memory(options) = memory;
        let path = at!("memory");
        let policy = MemoryPolicy {
            mergeable: options.mergeable.unwrap_or(false),
            hugepages: options.hugepages,
        };
        let size = match policy == MemoryPolicy::default() {
            // The short form has no key of its own.
            true => path.clone(),
            false => path.then("size"),
        };
        let bytes = options.size.map_or(DEFAULT, Size::bytes);
        let page = policy.hugepages.and_then(HugePages::reserved);
        self.memory_size(bytes, page.map_or(MIB, |page| page.bytes()), size);
        if page.is_some() {
            self.reserved_pages(policy, has_balloon, &path);
        }
        (bytes, policy)
    }

    fn memory_size(&mut self, bytes: u64, step: u64, path: JsonPath) {
        let shown = Size(bytes);
        if bytes < LEAST {
            let message = format!("{shown} of memory is too little");
            self.bad(path, message, format!("use at least {}", Size(LEAST)));
        } else if self.host.memory != 0 && bytes > self.host.memory {
            let host = Size(self.host.memory / MIB * MIB);
            let message = format!("{shown} of memory is more than the host's {host}");
            self.bad(path, message, format!("use at most {host}"));
        } else if !bytes.is_multiple_of(step) {
            let near = Size((bytes / step * step).max(step));
            let message = format!("{shown} of memory is not a multiple of {}", Size(step));
            self.bad(path, message, format!("the nearest is {near}"));
        }
    }

    /// What goes with pages of normal size only.
    fn reserved_pages(&mut self, policy: MemoryPolicy, has_balloon: bool, path: &JsonPath) {
        if policy.mergeable {
            let message = "reserved huge pages are never merged";
            let hint = "remove it, or use `\"hugepages\": \"transparent\"`";
            self.bad(path.then("mergeable"), message, hint);
        }
        if has_balloon {
            let message = "a balloon gives nothing back of huge pages that are reserved";
            let hint = "remove `balloon`, or use `\"transparent\"`";
            self.bad(path.then("hugepages"), message, hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::config::{ConfigErrors, Document, Host, MachineSpec};

    fn check(memory: Value, balloon: bool) -> Result<MachineSpec, ConfigErrors> {
        let mut config = json!({ "boot": { "kernel": "/proc/self/exe" }, "memory": memory });
        if balloon {
            config["balloon"] = json!({});
        }
        let document = Document::new(&config.to_string(), Path::new("/"));
        let host = Host {
            memory: 8 << 30,
            firmware: Vec::new(),
        };
        document.check(&document.parse()?, &host)
    }

    #[test]
    fn both_forms_say_how_much() {
        for (memory, bytes) in [
            (json!("2G"), 2 << 30),
            (json!(64 << 20), 64 << 20),
            (json!({ "size": "1G", "hugepages": "1G" }), 1 << 30),
            (json!({ "mergeable": true }), 512 << 20),
        ] {
            let spec = check(memory.clone(), false).unwrap();

            assert_eq!(spec.memory, bytes, "{memory}");
        }
    }

    #[test]
    fn what_is_filled_in_says_the_same_again() {
        for memory in [
            json!("64M"),
            json!({ "size": "64M", "mergeable": true, "hugepages": "transparent" }),
            json!({ "size": "64M", "hugepages": "2M" }),
        ] {
            let spec = check(memory.clone(), false).unwrap();
            let filled = serde_json::to_value(spec.to_config()).unwrap()["memory"].take();

            assert_eq!(filled, memory);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_its_place() {
        for (memory, balloon, path, words) in [
            (json!("1M"), false, "memory", "too little"),
            (json!({ "size": "9G" }), false, "memory", "more than"),
            (
                json!({ "size": "9G", "mergeable": true }),
                false,
                "memory.size",
                "more than",
            ),
            (
                json!({ "size": "33M", "hugepages": "2M" }),
                false,
                "memory.size",
                "multiple of 2M",
            ),
            (
                json!({ "size": "1536M", "hugepages": "1G" }),
                false,
                "memory.size",
                "multiple of 1G",
            ),
            (
                json!({ "hugepages": "2M", "mergeable": true }),
                false,
                "memory.mergeable",
                "merged",
            ),
            (
                json!({ "hugepages": "2M" }),
                true,
                "memory.hugepages",
                "balloon",
            ),
            (
                json!({ "hugepages": "4M" }),
                false,
                "memory.hugepages",
                "4M",
            ),
            (
                json!({ "mergable": true }),
                false,
                "memory.mergable",
                "mergable",
            ),
            (json!(true), false, "memory", "a size such as"),
            (json!("much"), false, "memory", "much"),
        ] {
            let errors = check(memory.clone(), balloon).unwrap_err();

            let [problem] = errors.problems() else {
                panic!("{errors}");
            };
            assert_eq!(problem.path.to_string(), path, "{errors}");
            assert!(errors.to_string().contains(words), "{errors}");
        }
    }

    #[test]
    fn a_balloon_goes_with_transparent_huge_pages() {
        let memory = json!({ "hugepages": "transparent", "mergeable": true });

        assert!(check(memory, true).is_ok());
    }
}
