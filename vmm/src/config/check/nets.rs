//! `nets`.

use std::collections::BTreeMap;

use caraway_virtio::net::Limits;
use uuid::Uuid;

use super::Checker;
use crate::config::net::{FlowLimits, MacAddress, Net, NetSpec, NetTo, TapRef};
use crate::config::path::{JsonPath, at};

/// `IFNAMSIZ` without the final zero.
const INTERFACE_NAME: usize = 15;
/// `ETH_MIN_MTU` of Linux, and the most that virtio has room for.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;
/// All are served by one thread.
const QUEUES: std::ops::RangeInclusive<u32> = 1..=8;
/// Those below are standard input, output and error.
const FIRST_DESCRIPTOR: i32 = 3;

impl Checker<'_> {
    pub(super) fn nets(&mut self, nets: &[Net], machine: Uuid) -> Vec<NetSpec> {
        let mut taken = BTreeMap::new();
        let specs = nets.iter().enumerate().filter_map(|(index, net)| {
            let path = at!("nets", index);
            let id = self.id(&net.id, &format!("net{index}"), "net", &path);
            let address = self.address(net.address, None, &path);
            let queues = self.number(net.queues.unwrap_or(1), QUEUES, path.then("queues"));
            let mtu = net.mtu.map(|mtu| self.number(mtu, MTU, path.then("mtu")));
            let limits = net.limits.unwrap_or_default();
            let flow = path.then("limits");
            let receive = self.flow(limits.receive, &flow.then("receive"));
            let transmit = self.flow(limits.transmit, &flow.then("transmit"));
            let to = self.end_of_net(net, queues, &path, &mut taken);
            Some(NetSpec {
                mac: net.mac.unwrap_or_else(|| MacAddress::of(machine, &id)),
                id,
                address: address?,
                mtu,
                queues,
                receive,
                transmit,
                to: to?,
            })
        });
        specs.collect()
    }

    fn number(&mut self, value: u32, range: std::ops::RangeInclusive<u32>, place: JsonPath) -> u16 {
        if !range.contains(&value) {
            let hint = format!("use {} to {}", range.start(), range.end());
            self.bad(place, format!("{value} is out of range"), hint);
        }
        u16::try_from(value).unwrap_or(u16::MAX)
    }

    fn flow(&mut self, limits: Option<FlowLimits>, place: &JsonPath) -> Limits {
        let checked = limits.unwrap_or_default().check(place);
        checked.unwrap_or_else(|problem| {
            self.note(*problem);
            Limits::default()
        })
    }

    fn end_of_net(
        &mut self,
        net: &Net,
        queues: u16,
        path: &JsonPath,
        taken: &mut BTreeMap<String, JsonPath>,
    ) -> Option<NetTo> {
        let place = path.then("tap");
        let to = match &net.tap {
            None => {
                let hint = "add `\"tap\": \"tap0\"`, the name of a tap interface";
                self.bad(path.clone(), "the card is joined to nothing", hint);
                return None;
            }
            Some(TapRef::Name(name)) => {
                let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
                if !(1..=INTERFACE_NAME).contains(&name.len()) || !name.bytes().all(plain) {
                    let message = format!("{name:?} is not a network interface's name");
                    let hint = format!("use 1 to {INTERFACE_NAME} characters, such as \"tap0\"");
                    self.bad(place.clone(), message, hint);
                }
                NetTo::Tap(name.clone())
            }
            Some(TapRef::Descriptor(tap)) => {
                if tap.fd < FIRST_DESCRIPTOR {
                    let message = format!("{} is not a tap's descriptor", tap.fd);
                    let hint = format!("use {FIRST_DESCRIPTOR} or more");
                    self.bad(place.then("fd"), message, hint);
                }
                if queues > 1 {
                    let message = "a descriptor is that of one queue";
                    let hint = "use 1, or name the tap by its name";
                    self.bad(path.then("queues"), message, hint);
                }
                NetTo::TapFd(tap.fd)
            }
        };
        if let Some(other) = taken.insert(to.to_string(), place.clone()) {
            let message = format!("the {to} is already that of {other}");
            self.bad(place, message, "give each card a tap of its own");
        }
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::config::{ConfigErrors, Document, Host, MachineSpec};

    fn check(nets: Value) -> Result<MachineSpec, ConfigErrors> {
        let config = json!({ "boot": { "kernel": "/proc/self/exe" }, "nets": nets });
        let document = Document::new(&config.to_string(), Path::new("/"));
        let host = Host {
            memory: 0,
            firmware: Vec::new(),
        };
        document.check(&document.parse()?, &host)
    }

    #[test]
    fn what_is_not_given_is_filled_in_and_stays() {
        let limits = json!({ "receive": { "bytes": { "rate": "10M" } } });
        let spec = check(json!([
            { "tap": "tap0", "mtu": 9000, "queues": 2, "limits": limits },
            { "id": "other", "tap": { "fd": 7 }, "mac": "52:54:00:12:34:56" },
        ]))
        .unwrap();

        let filled = serde_json::to_value(spec.to_config()).unwrap()["nets"].take();
        let again = check(filled).unwrap();

        assert_eq!(spec.nets[0].id, "net0");
        assert_eq!(spec.nets[1].mac.to_string(), "52:54:00:12:34:56");
        assert_eq!(again.nets, spec.nets);
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_its_place() {
        for (net, path, words) in [
            (json!({}), "nets[0]", "joined to nothing"),
            (json!({ "tap": "a/b" }), "nets[0].tap", "a/b"),
            (json!({ "tap": "" }), "nets[0].tap", "name"),
            (json!({ "tap": "sixteen-letters-" }), "nets[0].tap", "name"),
            (json!({ "tap": 3 }), "nets[0].tap", "tap0"),
            (json!({ "tap": { "fd": 2 } }), "nets[0].tap.fd", "2"),
            (
                json!({ "tap": { "fd": 9 }, "queues": 2 }),
                "nets[0].queues",
                "one queue",
            ),
            (json!({ "tap": "t", "queues": 0 }), "nets[0].queues", "0"),
            (json!({ "tap": "t", "queues": 9 }), "nets[0].queues", "9"),
            (json!({ "tap": "t", "mtu": 67 }), "nets[0].mtu", "67"),
            (json!({ "tap": "t", "mtu": 65536 }), "nets[0].mtu", "65536"),
            (
                json!({ "tap": "t", "mac": "52:54" }),
                "nets[0].mac",
                "52:54",
            ),
            (
                json!({ "tap": "t", "mac": "01:00:00:00:00:01" }),
                "nets[0].mac",
                "group",
            ),
            (
                json!({ "tap": "t", "limits": { "transmit": { "packets": { "rate": 0 } } } }),
                "nets[0].limits.transmit.packets.rate",
                "nothing would ever pass",
            ),
        ] {
            let errors = check(json!([net])).unwrap_err();

            let [problem] = errors.problems() else {
                panic!("{errors}");
            };
            assert_eq!(problem.path.to_string(), path, "{errors}");
            assert!(problem.message.contains(words), "{errors}");
        }
    }

    #[test]
    fn two_cards_do_not_share_a_tap() {
        let errors = check(json!([{ "tap": "tap0" }, { "tap": "tap0" }])).unwrap_err();

        let text = errors.to_string();
        assert!(
            text.contains("nets[1].tap") && text.contains("nets[0].tap"),
            "{text}"
        );
    }
}
