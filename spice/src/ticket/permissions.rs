//! What a session may do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::protocol::ChannelKind;

/// What a session may do: what its ticket grants, less what the sharing of the display takes away.
///
/// Looking is always allowed. Everything that reaches the guest from a client, or the client from
/// the guest's clipboard and files, has a permission of its own, which the channel that carries it
/// asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Keys, pointer, microphone, ports: whatever acts on the guest. Without it, a session is
    /// view-only.
    pub input: bool,
    /// The clipboard, in both directions.
    pub clipboard: bool,
    /// Files, by the agent and by shared folders.
    pub file_transfer: bool,
    /// USB devices of the client.
    pub usb: bool,
    /// The kinds of channel that may be opened, beside the main channel; all of them if `None`.
    pub channels: Option<BTreeSet<ChannelKind>>,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self {
        input: true,
        clipboard: true,
        file_transfer: true,
        usb: true,
        channels: None,
    };

    /// Looking and listening.
    pub const VIEW_ONLY: Self = Self {
        input: false,
        clipboard: false,
        file_transfer: false,
        usb: false,
        channels: None,
    };

    /// What both allow.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            input: self.input && other.input,
            clipboard: self.clipboard && other.clipboard,
            file_transfer: self.file_transfer && other.file_transfer,
            usb: self.usb && other.usb,
            channels: match (&self.channels, &other.channels) {
                (Some(ours), Some(theirs)) => Some(ours & theirs),
                (ours, theirs) => ours.as_ref().or(theirs.as_ref()).cloned(),
            },
        }
    }

    /// Whether a channel of this kind may be opened.
    #[must_use]
    pub fn allows(&self, kind: ChannelKind) -> bool {
        let listed = match &self.channels {
            Some(channels) => channels.contains(&kind),
            None => true,
        };
        match kind {
            // Without it there is no session.
            ChannelKind::Main => true,
            // A session that is view-only has an inputs channel too, for clients wait for the state
            // of the lamps; what they send on it goes nowhere.
            ChannelKind::Display
            | ChannelKind::Cursor
            | ChannelKind::Inputs
            | ChannelKind::Playback => listed,
            ChannelKind::Record | ChannelKind::Port => listed && self.input,
            ChannelKind::WebDav => listed && self.file_transfer,
            ChannelKind::UsbRedir => listed && self.usb,
        }
    }
}

impl Default for Permissions {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(kinds: &[ChannelKind]) -> Permissions {
        Permissions {
            channels: Some(kinds.iter().copied().collect()),
            ..Permissions::ALL
        }
    }

    #[test]
    fn the_main_channel_is_always_allowed() {
        assert!(only(&[]).allows(ChannelKind::Main));
    }

    #[test]
    fn a_list_allows_what_is_on_it_and_nothing_else() {
        let permissions = only(&[ChannelKind::Display]);

        assert!(permissions.allows(ChannelKind::Display));
        assert!(!permissions.allows(ChannelKind::Inputs));
    }

    #[test]
    fn two_together_allow_what_both_do() {
        let one = only(&[ChannelKind::Display, ChannelKind::Cursor]);
        let two = Permissions {
            usb: false,
            ..only(&[ChannelKind::Display, ChannelKind::Inputs])
        };

        let both = one.and(&two);

        assert_eq!(
            both,
            Permissions {
                usb: false,
                ..only(&[ChannelKind::Display])
            }
        );
        assert_eq!(Permissions::ALL.and(&both), both);
    }

    #[test]
    fn what_is_not_said_is_allowed() {
        let permissions: Permissions = serde_json::from_str(r#"{ "input": false }"#).expect("JSON");

        assert_eq!(
            permissions,
            Permissions {
                input: false,
                ..Permissions::ALL
            }
        );
    }
}
