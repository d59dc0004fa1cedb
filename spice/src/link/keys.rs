//! RSA keys made ahead.
//!
//! The protocol fixes RSA with 1024 bits, PKCS #1 OAEP and SHA-1 for the ticket. A key decrypts one
//! ticket at most: timing attacks on RSA decryption, which the `rsa` crate is known for
//! (RUSTSEC-2023-0071, "Marvin"), need thousands of decryptions with the same key and so find
//! nothing to measure here, and a recorded ticket opens nothing a second time.
//!
//! Making a key takes some twenty milliseconds, so a thread of its own keeps a few in store. It runs
//! at a low priority, and rests between two keys unless somebody waits: the guest and the viewers
//! come first.
//!
//! A link borrows a key and gives it back if nothing was decrypted with it, because its client left
//! before its ticket came, or because nobody asks for passwords. Such a key goes out again only when
//! there is no fresh one. So every link has a key of its own at any usual pace, and in a flood only
//! tickets use keys up: connections that come and go, however many, cost none.
//!
//! A server that asks for no passwords decrypts nothing. Its links all get [`NOBODYS`], to which nobody
//! has the other half: what a viewer encrypts with it, a password for another machine maybe, stays secret.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rsa::pkcs8::EncodePublicKey;
use rsa::{Oaep, RsaPrivateKey};
use sha1::Sha1;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Bytes of the DER `SubjectPublicKeyInfo` of an RSA key with 1024 bits.
pub(crate) const PUBLIC_KEY_LEN: usize = 162;
/// Bytes of an encrypted ticket.
pub(crate) const TICKET_LEN: usize = 128;

const BITS: usize = 1024;
/// Keys in store: the channels of a few clients that come at once.
const STORE: usize = 16;
/// How nice the thread is to others: where all want the processor, it gets a tenth.
const NICE: i32 = 10;
/// How much longer the thread rests than it works while there are keys: it takes a fifth of a
/// processor then.
const REST: u32 = 4;
/// How long it rests if the system has no random numbers.
const DROUGHT: Duration = Duration::from_secs(1);

/// A DER `SubjectPublicKeyInfo`.
pub(crate) type PublicKey = [u8; PUBLIC_KEY_LEN];

/// The modulus RSA-1024 of the RSA Factoring Challenge, whose factors were destroyed when it was made; with
/// the exponent 65537.
const NOBODYS: PublicKey = {
    let mut key = [0; PUBLIC_KEY_LEN];
    // SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING { SEQUENCE { INTEGER, INTEGER } } }
    let (start, rest) = key.split_at_mut(29);
    start.copy_from_slice(&[
        0x30, 0x81, 0x9f, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
        0x01, 0x05, 0x00, 0x03, 0x81, 0x8d, 0x00, 0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00,
    ]);
    let (modulus, exponent) = rest.split_at_mut(RSA_1024.len());
    modulus.copy_from_slice(&RSA_1024);
    exponent.copy_from_slice(&[0x02, 0x03, 0x01, 0x00, 0x01]);
    key
};

const RSA_1024: [u8; BITS / 8] = [
    0xc0, 0x57, 0x48, 0xbb, 0xfb, 0x5a, 0xcd, 0x7e, 0x5a, 0x77, 0xdc, 0x03, 0xd9, 0xec, 0x7d, 0x8b,
    0xb9, 0x57, 0xc1, 0xb9, 0x5d, 0x9b, 0x20, 0x60, 0x90, 0xd8, 0x3f, 0xd1, 0xb6, 0x74, 0x33, 0xce,
    0x83, 0xea, 0xd7, 0x37, 0x6c, 0xcf, 0xd6, 0x12, 0xc7, 0x29, 0x01, 0xf4, 0xce, 0x0a, 0x2e, 0x07,
    0xe3, 0x22, 0xd4, 0x38, 0xea, 0x4f, 0x34, 0x64, 0x75, 0x55, 0xd6, 0x2d, 0x04, 0x14, 0x0e, 0x10,
    0x84, 0xe9, 0x99, 0xbb, 0x4c, 0xd5, 0xf9, 0x47, 0xa7, 0x66, 0x74, 0x00, 0x9e, 0x23, 0x18, 0x54,
    0x9f, 0xd1, 0x02, 0xc5, 0xf7, 0x59, 0x6e, 0xdc, 0x33, 0x2a, 0x0d, 0xde, 0xe3, 0xa3, 0x55, 0x18,
    0x6b, 0x9a, 0x04, 0x6f, 0x0f, 0x96, 0xa2, 0x79, 0xc1, 0x44, 0x8a, 0x91, 0x51, 0x54, 0x9d, 0xc6,
    0x63, 0xda, 0x8a, 0x6e, 0x89, 0xcf, 0x8f, 0x51, 0x1b, 0xae, 0xd6, 0x45, 0x0d, 0xa2, 0xc1, 0xcb,
];

pub(crate) struct LinkKey {
    private: RsaPrivateKey,
    public: PublicKey,
}

impl LinkKey {
    pub(crate) fn generate() -> Option<Self> {
        let private = RsaPrivateKey::new(&mut rand::thread_rng(), BITS).ok()?;
        let der = private.to_public_key().to_public_key_der().ok()?;
        let public = der.as_bytes().try_into().ok()?;
        Some(Self { private, public })
    }
}

/// Where links get their keys from.
pub(crate) enum Keys {
    /// Each link gets one of its own, to decrypt its ticket.
    Store(KeyStore),
    /// All links get the same, with which nothing can be decrypted.
    Nobodys,
}

impl Keys {
    /// A key that has decrypted nothing; waits until there is one, and those who came first go
    /// first. `None` if the store is closed.
    pub(crate) async fn take(&self) -> Option<Lease> {
        match self {
            Self::Store(store) => store.take().await,
            Self::Nobodys => Some(Lease {
                key: None,
                public: NOBODYS,
            }),
        }
    }
}

/// Zeros that a ticket is moved by at most: one of 16 million has more.
const MAX_MISPLACED: usize = 2;

/// A key that one link has for itself; back in its store when dropped.
pub(crate) struct Lease {
    /// `None` after it has decrypted, and if it is not for that.
    key: Option<(LinkKey, Arc<Shared>)>,
    public: PublicKey,
}

impl Lease {
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Decrypts a ticket, after which the key is gone. `None` if it was not encrypted for this key.
    ///
    /// spice-html5 leaves out the zeros that one of 256 tickets begins with, and has them follow it instead.
    pub(crate) fn decrypt(mut self, ticket: &[u8; TICKET_LEN]) -> Option<Zeroizing<Vec<u8>>> {
        let (key, _) = self.key.take()?;
        let zeros = ticket.iter().rev().take_while(|byte| **byte == 0).count();
        let mut plains = (0..=zeros.min(MAX_MISPLACED)).filter_map(|misplaced| {
            let mut ticket = *ticket;
            ticket.rotate_right(misplaced);
            key.private.decrypt(Oaep::new::<Sha1>(), &ticket).ok()
        });
        plains.next().map(Zeroizing::new)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((key, store)) = self.key.take() {
            store.put(key, |stock| &mut stock.seen);
        }
    }
}

/// The store of keys, and the thread that fills it until the store is dropped.
pub(crate) struct KeyStore {
    shared: Arc<Shared>,
}

struct Shared {
    stock: Mutex<Stock>,
    /// The thread's bell.
    taken: Condvar,
    /// As many permits as there are keys, but for those on their way to who has waited longest.
    ready: Semaphore,
}

#[derive(Default)]
struct Stock {
    /// Keys that nobody has seen.
    fresh: VecDeque<LinkKey>,
    /// Keys that links gave back, the one that was seen longest ago first.
    seen: VecDeque<LinkKey>,
    /// No key is wanted any more.
    closed: bool,
}

impl Stock {
    fn take(&mut self) -> Option<LinkKey> {
        self.fresh.pop_front().or_else(|| self.seen.pop_front())
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.seen.is_empty()
    }
}

impl Shared {
    /// Adds a key to a shelf of the stock, if there is room.
    fn put(&self, key: LinkKey, shelf: impl FnOnce(&mut Stock) -> &mut VecDeque<LinkKey>) {
        let mut stock = self.stock.lock();
        let shelf = shelf(&mut stock);
        if shelf.len() < STORE {
            shelf.push_back(key);
            self.ready.add_permits(1);
        }
    }

    /// Waits until another key is due. `false` if none will be.
    fn wait_for_room(&self, rested: Instant) -> bool {
        let mut stock = self.stock.lock();
        while !stock.closed {
            if stock.fresh.len() >= STORE {
                self.taken.wait(&mut stock);
            } else if stock.is_empty() || self.taken.wait_until(&mut stock, rested).timed_out() {
                return true;
            }
        }
        false
    }
}

impl KeyStore {
    /// A store that nobody fills.
    fn empty() -> Self {
        Self {
            shared: Arc::new(Shared {
                stock: Mutex::default(),
                taken: Condvar::new(),
                ready: Semaphore::new(0),
            }),
        }
    }

    /// A store with a thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let store = Self::empty();
        let shared = store.shared.clone();
        thread::Builder::new()
            .name("spice-keys".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || fill(&shared))?;
        Ok(store)
    }

    /// Adds a key that was made elsewhere.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn put(&self, key: LinkKey) {
        self.shared.put(key, |stock| &mut stock.fresh);
    }

    async fn take(&self) -> Option<Lease> {
        let permit = self.shared.ready.acquire().await.ok()?;
        permit.forget();
        let key = self.shared.stock.lock().take()?;
        self.shared.taken.notify_one();
        Some(Lease {
            public: key.public,
            key: Some((key, self.shared.clone())),
        })
    }
}

impl Drop for KeyStore {
    fn drop(&mut self) {
        self.shared.stock.lock().closed = true;
        self.shared.ready.close();
        self.shared.taken.notify_one();
    }
}

fn fill(shared: &Shared) {
    let this = Some(rustix::thread::gettid());
    if let Err(error) = rustix::process::setpriority_process(this, NICE) {
        tracing::debug!(%error, "keys are made at the usual priority");
    }
    let mut rested = Instant::now();
    while shared.wait_for_room(rested) {
        let start = Instant::now();
        match LinkKey::generate() {
            Some(key) => shared.put(key, |stock| &mut stock.fresh),
            None => thread::sleep(DROUGHT),
        }
        rested = Instant::now() + start.elapsed() * REST;
    }
}

/// One key for every link of a fuzz target: making keys takes longer than all else that it does.
#[cfg(fuzzing)]
pub struct FixedKey {
    private: RsaPrivateKey,
    public: PublicKey,
}

#[cfg(fuzzing)]
impl FixedKey {
    /// Makes the key; `None` if the system has no random numbers.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let LinkKey { private, public } = LinkKey::generate()?;
        Some(Self { private, public })
    }

    /// A ticket with this text, as a client makes it.
    #[must_use]
    pub fn ticket(&self, text: &[u8]) -> Option<Vec<u8>> {
        let padding = Oaep::new::<Sha1>();
        let public = self.private.to_public_key();
        public.encrypt(&mut rand::thread_rng(), padding, text).ok()
    }
}

#[cfg(fuzzing)]
impl KeyStore {
    /// A store of this key, for the few links that an input makes.
    pub(crate) fn fixed(key: &FixedKey) -> Self {
        const LINKS: usize = 4;
        let store = Self::empty();
        for _ in 0..LINKS {
            store.put(LinkKey {
                private: key.private.clone(),
                public: key.public,
            });
        }
        store
    }
}

#[cfg(test)]
mod tests {
    use rsa::RsaPublicKey;
    use rsa::pkcs8::DecodePublicKey;

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime can be made").block_on(work)
    }

    fn store_of(keys: usize) -> KeyStore {
        let store = KeyStore::empty();
        for _ in 0..keys {
            store.put(LinkKey::generate().expect("keys can be made"));
        }
        store
    }

    #[test]
    fn a_ticket_for_the_public_key_is_decrypted() {
        let store = store_of(1);
        let key = run(store.take()).expect("there is one");
        let public = RsaPublicKey::from_public_key_der(key.public()).expect("it is DER");
        let ticket = public
            .encrypt(&mut rand::thread_rng(), Oaep::new::<Sha1>(), b"secret\0")
            .expect("it fits");
        let ticket = ticket
            .as_slice()
            .try_into()
            .expect("it has the size of the key");
        let plain = key.decrypt(ticket).expect("it is for this key");
        assert_eq!(plain.as_slice(), b"secret\0");
    }

    #[test]
    fn a_ticket_whose_first_zero_comes_last_is_decrypted() {
        let store = store_of(1);
        let key = run(store.take()).expect("there is one");
        let public = RsaPublicKey::from_public_key_der(key.public()).expect("it is DER");
        let mut random = rand::thread_rng();
        let mut ticket: [u8; TICKET_LEN] = std::iter::repeat_with(|| {
            let ticket = public.encrypt(&mut random, Oaep::new::<Sha1>(), b"secret\0");
            let ticket = ticket.expect("it fits");
            <[u8; TICKET_LEN]>::try_from(ticket).expect("it has the size of the key")
        })
        .find(|ticket| ticket[0] == 0)
        .expect("one of 256 is so");
        ticket.rotate_left(1);

        let plain = key.decrypt(&ticket).expect("it is for this key");

        assert_eq!(plain.as_slice(), b"secret\0");
    }

    #[test]
    fn noise_is_no_ticket() {
        let store = store_of(1);
        let key = run(store.take()).expect("there is one");
        assert!(key.decrypt(&[0x55; TICKET_LEN]).is_none());
    }

    #[test]
    fn a_key_that_decrypted_does_not_come_back() {
        let store = store_of(1);
        let key = run(store.take()).expect("there is one");
        key.decrypt(&[0x55; TICKET_LEN]);
        assert_eq!(store.shared.ready.available_permits(), 0);
        assert!(store.shared.stock.lock().is_empty());
    }

    #[test]
    fn a_key_that_decrypted_nothing_goes_out_again_after_the_fresh_ones() {
        let store = store_of(2);
        let take = || *run(store.take()).expect("there is one").public();
        let (first, second, third) = (take(), take(), take());
        assert_ne!(first, second);
        assert_eq!(first, third);
    }

    #[test]
    fn links_at_the_same_time_have_different_keys() {
        let store = KeyStore::start().expect("a thread can be started");
        let (one, two) = run(async { (store.take().await, store.take().await) });
        assert_ne!(one.map(|key| *key.public()), two.map(|key| *key.public()));
    }

    #[test]
    fn where_nobody_asks_for_passwords_all_links_have_a_key_that_decrypts_nothing() {
        let take = || run(Keys::Nobodys.take()).expect("there is always one");
        let links = [take(), take()];
        let public = RsaPublicKey::from_public_key_der(links[0].public()).expect("it is DER");
        let ticket = public
            .encrypt(&mut rand::thread_rng(), Oaep::new::<Sha1>(), b"secret\0")
            .expect("it fits");
        let ticket: [u8; TICKET_LEN] = ticket.try_into().expect("it has the size of the key");

        let same = links[0].public() == links[1].public();
        let decrypted = links.map(|link| link.decrypt(&ticket).is_some());

        assert!(same);
        assert_eq!(decrypted, [false; 2]);
    }

    #[test]
    fn the_store_holds_no_more_than_its_limit() {
        let store = store_of(STORE + 1);
        assert_eq!(store.shared.stock.lock().fresh.len(), STORE);
        assert_eq!(store.shared.ready.available_permits(), STORE);
    }

    #[test]
    fn whoever_waits_for_a_closed_store_is_told() {
        let store = KeyStore::empty();
        store.shared.ready.close();
        assert!(run(store.take()).is_none());
    }
}
