//! A server's tickets.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rand::Rng;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use super::password::{self, MAX_LEN, Password};
use super::{CONFIG_TICKET, Lapse, NewTicket, Permissions, TicketError, TicketInfo};

/// Valid tickets at a time.
const MAX_VALID: usize = 1024;
/// Lapsed tickets that are remembered, so that whoever presents one is told what is wrong with it.
const MAX_LAPSED: usize = 256;
const MAX_ID: usize = 64;
const MAX_LABEL: usize = 256;

/// What is kept of a password: its hash under a key that never leaves the process.
#[derive(Clone)]
struct Digest([u8; 32]);

impl Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What of a ticket never changes; a session keeps it beyond the ticket's end.
pub(crate) struct Ticket {
    pub(crate) id: String,
    pub(crate) label: String,
    pub(crate) permissions: Permissions,
    digest: Digest,
}

impl Ticket {
    /// Whether the client presented this ticket.
    pub(crate) fn is(&self, presented: &Presented) -> bool {
        let digest = presented.0.as_ref();
        digest.is_some_and(|digest| bool::from(self.digest.ct_eq(digest)))
    }
}

/// What a client sent as its ticket; `None` inside if it is no ticket at all.
pub(crate) struct Presented(Option<Digest>);

/// What a presented ticket turned out to be.
pub(crate) enum Recognised {
    Valid(Arc<Ticket>),
    Lapsed(Arc<Ticket>, Lapse),
    Unknown,
}

struct Entry {
    ticket: Arc<Ticket>,
    expires: Option<Instant>,
    uses_left: Option<u32>,
    used: u64,
    revoked: bool,
}

impl Entry {
    fn lapse(&self, now: Instant) -> Option<Lapse> {
        if self.revoked {
            Some(Lapse::Revoked)
        } else if self.uses_left == Some(0) {
            Some(Lapse::Used)
        } else if self.expires.is_some_and(|end| end <= now) {
            Some(Lapse::Expired)
        } else {
            None
        }
    }

    fn is_valid(&self, now: Instant) -> bool {
        self.lapse(now).is_none()
    }

    fn info(&self, now: Instant) -> TicketInfo {
        TicketInfo {
            id: self.ticket.id.clone(),
            label: self.ticket.label.clone(),
            permissions: self.ticket.permissions.clone(),
            lapse: self.lapse(now),
            expires_in: self.expires.map(|end| end.saturating_duration_since(now)),
            uses_left: self.uses_left,
            used: self.used,
        }
    }
}

/// All tickets of a server. No two have the same id or the same password.
pub(crate) struct TicketSet {
    key: Zeroizing<[u8; 32]>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// In the order in which they were added.
    entries: Vec<Entry>,
    numbered: u64,
}

impl TicketSet {
    pub(crate) fn new() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rand::thread_rng().fill(&mut *key);
        Self {
            key,
            inner: Mutex::default(),
        }
    }

    /// A set of one ticket without end or limit.
    pub(crate) fn with_first(password: Password) -> Self {
        let set = Self::new();
        let first = NewTicket {
            id: Some(CONFIG_TICKET.to_owned()),
            ..NewTicket::new(password)
        };
        // Nothing in an empty set is in its way.
        let _ = set.add(first, Instant::now());
        set
    }

    /// Takes a ticket as sent by a client, decrypted; `None` if it could not be decrypted.
    pub(crate) fn present(&self, plain: Option<&[u8]>) -> Presented {
        let text = plain.and_then(password::in_ticket);
        Presented(text.map(|text| self.digest(text)))
    }

    /// The time does not depend on the text, which is at most [`MAX_LEN`] bytes.
    fn digest(&self, text: &[u8]) -> Digest {
        let mut padded = Zeroizing::new([0; MAX_LEN + 1]);
        padded[..text.len()].copy_from_slice(text);
        let hash = Sha256::new_with_prefix(*self.key).chain_update(*padded);
        Digest(hash.finalize().into())
    }

    /// Adds a ticket. A lapsed one of the same id or password is forgotten.
    pub(crate) fn add(&self, new: NewTicket, now: Instant) -> Result<TicketInfo, TicketError> {
        if let Some(id) = &new.id {
            check_id(id)?;
        }
        if new.label.len() > MAX_LABEL || new.label.chars().any(char::is_control) {
            return Err(TicketError::BadLabel);
        }
        let digest = self.digest(new.password.reveal().as_bytes());
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let valid = |entry: &&Entry| entry.is_valid(now);
        let id = match new.id {
            Some(id) => {
                let mut others = inner.entries.iter().filter(valid);
                if others.any(|entry| entry.ticket.id == id) {
                    return Err(TicketError::IdTaken(id));
                }
                id
            }
            None => inner.next_id(),
        };
        let mut same = Choice::from(0);
        for entry in inner.entries.iter().filter(valid) {
            same |= entry.ticket.digest.ct_eq(&digest);
        }
        if bool::from(same) {
            return Err(TicketError::PasswordTaken);
        }
        if inner.entries.iter().filter(valid).count() >= MAX_VALID {
            return Err(TicketError::Full(MAX_VALID));
        }
        inner.forget(now, &id, &digest);
        let entry = Entry {
            ticket: Arc::new(Ticket {
                id,
                label: new.label,
                permissions: new.permissions,
                digest,
            }),
            // What is beyond the clock's reach is for ever.
            expires: new.lifetime.and_then(|time| now.checked_add(time)),
            uses_left: new.uses.map(Into::into),
            used: 0,
            revoked: false,
        };
        let info = entry.info(now);
        inner.entries.push(entry);
        Ok(info)
    }

    /// Finds the ticket that a client presented. Every ticket is compared, whichever it is.
    pub(crate) fn recognise(&self, presented: &Presented, now: Instant) -> Recognised {
        let Some(digest) = &presented.0 else {
            return Recognised::Unknown;
        };
        let inner = self.inner.lock();
        let mut found = u64::MAX;
        for (index, entry) in (0..).zip(&inner.entries) {
            found.conditional_assign(&index, entry.ticket.digest.ct_eq(digest));
        }
        let entry = usize::try_from(found).ok();
        match entry.and_then(|index| inner.entries.get(index)) {
            None => Recognised::Unknown,
            Some(entry) => match entry.lapse(now) {
                None => Recognised::Valid(entry.ticket.clone()),
                Some(lapse) => Recognised::Lapsed(entry.ticket.clone(), lapse),
            },
        }
    }

    /// Uses a ticket for a new session. It may have lapsed since it was recognised.
    pub(crate) fn redeem(&self, ticket: &Arc<Ticket>, now: Instant) -> Result<(), Lapse> {
        let mut inner = self.inner.lock();
        let mut entries = inner.entries.iter_mut();
        let entry = entries
            .find(|entry| Arc::ptr_eq(&entry.ticket, ticket))
            .ok_or(Lapse::Revoked)?;
        if let Some(lapse) = entry.lapse(now) {
            return Err(lapse);
        }
        entry.uses_left = entry.uses_left.map(|left| left.saturating_sub(1));
        entry.used += 1;
        Ok(())
    }

    /// Lets no new session be had with the ticket of this id.
    pub(crate) fn revoke(&self, id: &str) -> Result<Arc<Ticket>, TicketError> {
        let mut inner = self.inner.lock();
        let mut entries = inner.entries.iter_mut();
        let entry = entries
            .find(|entry| entry.ticket.id == id)
            .ok_or_else(|| TicketError::Unknown(id.to_owned()))?;
        entry.revoked = true;
        Ok(entry.ticket.clone())
    }

    /// All that are remembered, in the order in which they were added.
    pub(crate) fn list(&self, now: Instant) -> Vec<TicketInfo> {
        let inner = self.inner.lock();
        inner.entries.iter().map(|entry| entry.info(now)).collect()
    }
}

impl Inner {
    fn next_id(&mut self) -> String {
        loop {
            self.numbered += 1;
            let id = format!("ticket-{}", self.numbered);
            if self.entries.iter().all(|entry| entry.ticket.id != id) {
                return id;
            }
        }
    }

    /// Drops the lapsed tickets of this id or password, and the oldest of those beyond the limit.
    fn forget(&mut self, now: Instant, id: &str, digest: &Digest) {
        self.entries.retain(|entry| {
            let same = entry.ticket.id == id || bool::from(entry.ticket.digest.ct_eq(digest));
            !same || entry.is_valid(now)
        });
        let lapsed = self.entries.iter().filter(|entry| !entry.is_valid(now));
        let mut surplus = lapsed.count().saturating_sub(MAX_LAPSED);
        self.entries.retain(|entry| {
            let drop = surplus > 0 && !entry.is_valid(now);
            surplus -= usize::from(drop);
            !drop
        });
    }
}

fn check_id(id: &str) -> Result<(), TicketError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match (1..=MAX_ID).contains(&id.len()) && id.bytes().all(plain) {
        true => Ok(()),
        false => Err(TicketError::BadId(id.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn named(id: &str, password: &str) -> NewTicket {
        NewTicket {
            id: Some(id.to_owned()),
            ..NewTicket::new(Password::new(password).expect("it is short"))
        }
    }

    /// What the set says of a password, in words.
    fn verdict(set: &TicketSet, password: &str, now: Instant) -> String {
        let plain = [password.as_bytes(), b"\0"].concat();
        match set.recognise(&set.present(Some(&plain)), now) {
            Recognised::Valid(ticket) => ticket.id.clone(),
            Recognised::Lapsed(ticket, lapse) => format!("{} {lapse}", ticket.id),
            Recognised::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn what_is_no_ticket_is_nobodys() {
        let set = TicketSet::with_first(Password::new("").expect("it is short"));
        let now = Instant::now();
        assert_eq!(verdict(&set, "", now), "config");
        for plain in [None, Some(b"".as_slice()), Some(b"x"), Some(&[b'x'; 90])] {
            let presented = set.present(plain);
            assert!(matches!(
                set.recognise(&presented, now),
                Recognised::Unknown
            ));
        }
    }

    #[test]
    fn the_clear_password_is_not_kept() {
        let set = TicketSet::with_first(Password::new("secret").expect("it is short"));
        let kept = set.inner.lock().entries[0].ticket.digest.clone();
        assert_ne!(kept.0[..6], *b"secret");
        let other = TicketSet::with_first(Password::new("secret").expect("it is short"));
        assert_ne!(kept.0, other.inner.lock().entries[0].ticket.digest.0);
    }

    #[test]
    fn ids_and_labels_that_cannot_be_shown_are_refused() {
        let set = TicketSet::new();
        let now = Instant::now();
        for id in ["", "a b", "é", &"x".repeat(65)] {
            let error = set.add(named(id, "a"), now).err();
            assert_eq!(error, Some(TicketError::BadId(id.to_owned())));
        }
        for label in ["a\nb".to_owned(), "x".repeat(257)] {
            let new = NewTicket {
                label,
                ..named("a", "a")
            };
            assert_eq!(set.add(new, now).err(), Some(TicketError::BadLabel));
        }
    }

    #[test]
    fn ids_are_made_where_none_is_given() {
        let set = TicketSet::new();
        let now = Instant::now();
        assert!(set.add(named("ticket-1", "a"), now).is_ok());
        let new = NewTicket::new(Password::new("b").expect("it is short"));
        assert_eq!(set.add(new, now).map(|info| info.id), Ok("ticket-2".into()));
    }

    #[test]
    fn valid_and_lapsed_tickets_are_limited() {
        let set = TicketSet::new();
        let now = Instant::now();
        for n in 0..MAX_VALID {
            assert!(
                set.add(named(&format!("t{n}"), &n.to_string()), now)
                    .is_ok()
            );
        }
        let full = set.add(named("one-more", "more"), now).err();
        assert_eq!(full, Some(TicketError::Full(MAX_VALID)));
        for n in 0..MAX_VALID {
            assert!(set.revoke(&format!("t{n}")).is_ok());
        }
        assert!(set.add(named("one-more", "more"), now).is_ok());
        assert_eq!(set.list(now).len(), MAX_LAPSED + 1);
    }

    /// One ticket, with nothing but what its rules say.
    #[derive(Debug, Clone)]
    struct Plain {
        id: String,
        password: String,
        ends: Option<u64>,
        left: Option<u32>,
        revoked: bool,
    }

    impl Plain {
        fn fault(&self, now: u64) -> Option<&'static str> {
            if self.revoked {
                Some("was revoked")
            } else if self.left == Some(0) {
                Some("is used up")
            } else if self.ends.is_some_and(|end| end <= now) {
                Some("has expired")
            } else {
                None
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add {
            id: u8,
            password: u8,
            lifetime: Option<u64>,
            uses: Option<u32>,
        },
        Revoke(u8),
        Connect(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let lifetime = prop::option::of(0u64..8);
        let uses = prop::option::of(1u32..3);
        prop_oneof![
            3 => (0u8..5, 0u8..5, lifetime, uses).prop_map(|(id, password, lifetime, uses)| {
                Step::Add { id, password, lifetime, uses }
            }),
            1 => (0u8..5).prop_map(Step::Revoke),
            4 => (0u8..5).prop_map(Step::Connect),
            1 => (1u64..4).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn the_set_does_what_a_list_would(steps in prop::collection::vec(step(), 0..60)) {
            let set = TicketSet::new();
            let start = Instant::now();
            let mut model: Vec<Plain> = Vec::new();
            let mut clock = 0;
            for step in steps {
                let now = start + Duration::from_secs(clock);
                match step {
                    Step::Add { id, password, lifetime, uses } => {
                        let (id, password) = (id.to_string(), password.to_string());
                        let taken = model.iter().any(|plain| {
                            plain.fault(clock).is_none()
                                && (plain.id == id || plain.password == password)
                        });
                        let new = NewTicket {
                            lifetime: lifetime.map(Duration::from_secs),
                            uses: uses.and_then(NonZeroU32::new),
                            ..named(&id, &password)
                        };
                        prop_assert_eq!(set.add(new, now).is_err(), taken);
                        if !taken {
                            model.retain(|plain| plain.id != id && plain.password != password);
                            let ends = lifetime.map(|time| clock + time);
                            model.push(Plain { id, password, ends, left: uses, revoked: false });
                        }
                    }
                    Step::Revoke(id) => {
                        let id = id.to_string();
                        let known = model.iter_mut().find(|plain| plain.id == id);
                        prop_assert_eq!(set.revoke(&id).is_ok(), known.is_some());
                        if let Some(plain) = known {
                            plain.revoked = true;
                        }
                    }
                    Step::Connect(password) => {
                        let password = password.to_string();
                        let known = model.iter_mut().find(|plain| plain.password == password);
                        let expected = match &known {
                            None => "unknown".to_owned(),
                            Some(plain) => match plain.fault(clock) {
                                Some(fault) => format!("{} {fault}", plain.id),
                                None => plain.id.clone(),
                            },
                        };
                        prop_assert_eq!(verdict(&set, &password, now), expected);
                        let plain = [password.as_bytes(), b"\0"].concat();
                        let presented = set.present(Some(&plain));
                        if let Recognised::Valid(ticket) = set.recognise(&presented, now) {
                            prop_assert!(ticket.is(&presented));
                            prop_assert_eq!(set.redeem(&ticket, now), Ok(()));
                        }
                        if let Some(plain) = known && plain.fault(clock).is_none() {
                            plain.left = plain.left.map(|left| left - 1);
                        }
                    }
                    Step::Wait(seconds) => clock += seconds,
                }
                let now = start + Duration::from_secs(clock);
                let listed: Vec<_> = set.list(now).into_iter().map(|info| {
                    (info.id, info.lapse.map(|lapse| lapse.to_string()), info.uses_left)
                }).collect();
                let expected: Vec<_> = model.iter().map(|plain| {
                    (plain.id.clone(), plain.fault(clock).map(str::to_owned), plain.left)
                }).collect();
                prop_assert_eq!(listed, expected);
            }
        }
    }
}
