//! `nets`.

use std::collections::BTreeMap;

use caraway_virtio::net::Limits;
use uuid::Uuid;

use super::Checker;
use crate::config::net::{FlowLimits, MacAddress, Net, NetSpec, NetTo, TapRef, User, UserSpec};
use crate::config::path::{JsonPath, at};

/// `IFNAMSIZ` without the final zero.
const INTERFACE_NAME: usize = 15;
/// `ETH_MIN_MTU` of Linux, and the most that virtio has room for.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;
/// All are served by one thread.
const QUEUES: std::ops::RangeInclusive<u32> = 1..=8;
/// Those below are standard input, output and error.
const FIRST_DESCRIPTOR: i32 = 3;
/// Each is two arguments of a program.
const FORWARDS: usize = 256;

/// What only one card can have, and where in the config it is.
pub(super) type Taken = BTreeMap<String, JsonPath>;

impl Checker<'_> {
    pub(super) fn nets(&mut self, nets: &[Net], machine: Uuid) -> Vec<NetSpec> {
        let mut taken = Taken::new();
        let specs = nets.iter().enumerate().filter_map(|(index, net)| {
            self.net(net, index, at!("nets", index), machine, &mut taken)
        });
        specs.collect()
    }

    /// The card at `path`, which is number `index` of a machine of this identity.
    pub(super) fn net(
        &mut self,
        net: &Net,
        index: usize,
        path: JsonPath,
        machine: Uuid,
        taken: &mut Taken,
    ) -> Option<NetSpec> {
        let id = self.id(&net.id, &format!("net{index}"), "net", &path);
        let address = self.address(net.address, None, &path);
        let queues = self.number(net.queues.unwrap_or(1), QUEUES, path.then("queues"));
        let mtu = net.mtu.map(|mtu| self.number(mtu, MTU, path.then("mtu")));
        let limits = net.limits.unwrap_or_default();
        let flow = path.then("limits");
        let receive = self.flow(limits.receive, &flow.then("receive"));
        let transmit = self.flow(limits.transmit, &flow.then("transmit"));
        let to = self.end_of_net(net, queues, &path, taken);
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
        taken: &mut Taken,
    ) -> Option<NetTo> {
        let (key, to) = match (&net.tap, &net.user, &net.passt) {
            (Some(TapRef::Name(name)), None, None) => ("tap", self.tap(name, path.then("tap"))),
            (Some(TapRef::Descriptor(tap)), None, None) => {
                if tap.fd < FIRST_DESCRIPTOR {
                    let message = format!("{} is not a tap's descriptor", tap.fd);
                    let hint = format!("use {FIRST_DESCRIPTOR} or more");
                    self.bad(path.then("tap").then("fd"), message, hint);
                }
                ("tap", NetTo::TapFd(tap.fd))
            }
            (None, Some(user), None) => ("user", self.user(user, path.then("user"), taken)),
            (None, None, Some(socket)) => {
                let place = path.then("passt");
                ("passt", NetTo::Passt(self.socket(&socket.0, place)))
            }
            (None, None, None) => {
                let hint = "add `\"tap\": \"tap0\"`, the name of a tap interface, or `\"user\": {}`, \
                            which needs no rights";
                self.bad(path.clone(), "the card is joined to nothing", hint);
                return None;
            }
            _ => {
                let hint = "keep one of `tap`, `user` and `passt`";
                self.bad(path.clone(), "the card is joined to several things", hint);
                return None;
            }
        };
        if queues > 1 && !matches!(to, NetTo::Tap(_)) {
            let message = "only a tap that is named has several queues";
            let hint = "use 1, or name a tap that was made with `multi_queue`";
            self.bad(path.then("queues"), message, hint);
        }
        if !matches!(to, NetTo::User(_)) {
            for what in to.claims() {
                self.alone(what, path.then(key), taken);
            }
        }
        Some(to)
    }

    /// Notes that `what` is that of `place`, if it is nobody's yet.
    fn alone(&mut self, what: String, place: JsonPath, taken: &mut Taken) {
        if let Some(other) = taken.get(&what) {
            let message = format!("the {what} is already that of {other}");
            self.bad(place, message, "use another one, or none");
        } else {
            taken.insert(what, place);
        }
    }

    fn tap(&mut self, name: &str, place: JsonPath) -> NetTo {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if !(1..=INTERFACE_NAME).contains(&name.len()) || !name.bytes().all(plain) {
            let message = format!("{name:?} is not a network interface's name");
            let hint = format!("use 1 to {INTERFACE_NAME} characters, such as \"tap0\"");
            self.bad(place, message, hint);
        }
        NetTo::Tap(name.to_owned())
    }

    fn user(&mut self, user: &User, place: JsonPath, taken: &mut Taken) -> NetTo {
        if user.forwards.len() > FORWARDS {
            let message = format!("{} forwards are too many", user.forwards.len());
            let hint = format!("keep {FORWARDS} at most");
            self.bad(place.then("forwards"), message, hint);
        }
        // passt has each port once, whatever the address.
        let mut own = BTreeMap::new();
        for (index, forward) in user.forwards.iter().enumerate() {
            let place = place.then("forwards").then(index);
            if forward.host.port() == 0 {
                let message = format!("{:?} has no port", forward.host.to_string());
                self.bad(place.then("host"), message, "use 1 to 65535");
            }
            if forward.guest == 0 {
                self.bad(place.then("guest"), "0 is no port", "use 1 to 65535");
            }
            let (protocol, port) = (forward.protocol, forward.host.port());
            let host = place.then("host");
            self.alone(format!("{protocol} port {port}"), host.clone(), &mut own);
            if own.values().any(|place| *place == host) {
                self.alone(forward.claim(), host, taken);
            }
        }
        NetTo::User(UserSpec {
            forwards: user.forwards.clone(),
            host_access: user.host_access.unwrap_or(false),
        })
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
            { "user": { "forwards": [{ "host": "127.0.0.1:2222", "guest": 22 }] } },
            { "passt": "unix:passt.sock" },
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
            (json!({ "tap": "t", "user": {} }), "nets[0]", "several"),
            (
                json!({ "user": {}, "queues": 2 }),
                "nets[0].queues",
                "queues",
            ),
            (json!({ "passt": "tcp:1" }), "nets[0].passt", "tcp:1"),
            (
                json!({ "user": { "forwards": [{ "host": "127.0.0.1:0", "guest": 22 }] } }),
                "nets[0].user.forwards[0].host",
                "no port",
            ),
            (
                json!({ "user": { "forwards": [{ "host": "[::1]:22", "guest": 0 }] } }),
                "nets[0].user.forwards[0].guest",
                "no port",
            ),
            (
                json!({ "user": { "forwards": [
                    { "host": "127.0.0.1:22", "guest": 1 },
                    { "host": "127.0.0.1:22", "guest": 1, "protocol": "udp" },
                    { "host": "127.0.0.2:22", "guest": 2 },
                ] } }),
                "nets[0].user.forwards[2].host",
                "already",
            ),
            (json!({ "tap": "a/b" }), "nets[0].tap", "a/b"),
            (json!({ "tap": "" }), "nets[0].tap", "name"),
            (json!({ "tap": "sixteen-letters-" }), "nets[0].tap", "name"),
            (json!({ "tap": 3 }), "nets[0].tap", "tap0"),
            (json!({ "tap": { "fd": 2 } }), "nets[0].tap.fd", "2"),
            (
                json!({ "tap": { "fd": 9 }, "queues": 2 }),
                "nets[0].queues",
                "queues",
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
    fn two_cards_do_not_share_a_port() {
        let user = json!({ "user": { "forwards": [{ "host": "127.0.0.1:2222", "guest": 22 }] } });
        let errors = check(json!([user, user])).unwrap_err();

        let text = errors.to_string();
        assert!(text.contains("nets[1].user.forwards[0].host"), "{text}");
        assert!(text.contains("tcp port 127.0.0.1:2222"), "{text}");
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
