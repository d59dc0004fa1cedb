//! `channels`: the ports of the virtio console.

use std::collections::BTreeSet;

use super::Checker;
use crate::config::Config;
use crate::config::endpoint::ChannelTo;
use crate::config::link::Channel;
use crate::config::path::{JsonPath, at};
use crate::config::spec::{ConsoleSpec, PortSpec};

/// Ports of one console; each takes two of a virtio device's queues.
const MOST: usize = 30;
/// Bytes of a port's name; udev makes a file of it.
const NAME: usize = 255;

impl Checker<'_> {
    /// The console that carries the channels, if there are any.
    pub(super) fn channels(&mut self, config: &Config) -> Option<ConsoleSpec> {
        let channels = &config.channels;
        if channels.is_empty() {
            return None;
        }
        if channels.len() > MOST {
            let message = format!("a machine can't have {} channels", channels.len());
            self.bad(at!("channels"), message, format!("use at most {MOST}"));
        }
        let agents: Vec<usize> = (0..channels.len())
            .filter(|index| channels[*index].to == ChannelTo::SpiceAgent)
            .collect();
        if let (Some(first), None) = (agents.first(), &config.spice) {
            let hint = "add `spice`, or remove the channel";
            let path = at!("channels", *first, "to");
            self.bad(path, "there is no SPICE server for the agent", hint);
        }
        if let [first, second, ..] = agents.as_slice() {
            let message = format!("channels[{first}] is the SPICE agent's already");
            let hint = "a machine has one agent for all viewers; remove one of the two";
            self.bad(at!("channels", *second, "to"), message, hint);
        }
        let guest_agents: Vec<usize> = (0..channels.len())
            .filter(|index| channels[*index].to == ChannelTo::GuestAgent)
            .collect();
        if let [first, second, ..] = guest_agents.as_slice() {
            let message = format!("channels[{first}] is the guest agent's already");
            let hint = "a guest has one such agent; remove one of the two";
            self.bad(at!("channels", *second, "to"), message, hint);
        }
        let mut names = BTreeSet::new();
        let ports = channels.iter().enumerate().map(|(index, channel)| {
            let path = at!("channels", index);
            self.name_of_port(&channel.name, &mut names, path.then("name"));
            PortSpec {
                name: channel.name.clone(),
                to: self.end_of_port(channel, path.then("to")),
            }
        });
        let ports = ports.collect();
        let path = at!("channels");
        Some(ConsoleSpec {
            id: self.id(&None, "channels", "channels", &path),
            address: self.address(None, None, &path)?,
            ports,
        })
    }

    fn name_of_port<'a>(&mut self, name: &'a str, names: &mut BTreeSet<&'a str>, path: JsonPath) {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if name.is_empty() || name.len() > NAME || !name.bytes().all(plain) {
            let message = format!("{name:?} is not a port's name");
            let hint = format!(
                "use 1 to {NAME} ASCII characters without spaces and `/`, such as \
                 \"org.example.port.0\""
            );
            self.bad(path, message, hint);
        } else if !names.insert(name) {
            let message = format!("another channel is called \"{name}\" already");
            self.bad(path, message, "give each channel a name of its own");
        }
    }

    fn end_of_port(&mut self, channel: &Channel, place: JsonPath) -> ChannelTo {
        match &channel.to {
            agent @ (ChannelTo::SpiceAgent | ChannelTo::GuestAgent) => agent.clone(),
            ChannelTo::Unix(path) => ChannelTo::Unix(self.socket(path, place)),
            ChannelTo::File(path) => ChannelTo::File(self.new_file(path, place)),
        }
    }
}
