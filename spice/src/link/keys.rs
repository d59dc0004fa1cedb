//! RSA keys made ahead, one for each link.
//!
//! The protocol fixes RSA with 1024 bits, PKCS #1 OAEP and SHA-1 for the ticket. Every link gets a
//! key of its own, and a key decrypts one ticket at most: timing attacks on RSA decryption, which
//! the `rsa` crate is known for (RUSTSEC-2023-0071, "Marvin"), need thousands of decryptions with
//! the same key and so find nothing to measure here.
//!
//! Making a key takes some twenty milliseconds, so a thread of its own keeps a few in store, and
//! rests as long as it works, so that a flood of links costs half a processor at most. Such a flood
//! empties the store and then waits for that thread; nobody else waits for it. Where no password is
//! asked for, nothing is ever decrypted, and links of a flood do not wait either: they get the public
//! half of an earlier key, whose private half is gone.

use std::thread;
use std::time::{Duration, Instant};

use rsa::pkcs8::EncodePublicKey;
use rsa::{Oaep, RsaPrivateKey};
use sha1::Sha1;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// Bytes of the DER `SubjectPublicKeyInfo` of an RSA key with 1024 bits.
pub(crate) const PUBLIC_KEY_LEN: usize = 162;
/// Bytes of an encrypted ticket.
pub(crate) const TICKET_LEN: usize = 128;

const BITS: usize = 1024;
/// Keys in store: the channels of two clients that come at once.
const STORE: usize = 8;
/// How long a link without a password waits for a key of its own.
const SPARE_TIME: Duration = Duration::from_secs(3);

/// A DER `SubjectPublicKeyInfo`.
pub(crate) type PublicKey = [u8; PUBLIC_KEY_LEN];

/// The key of one link.
pub(crate) struct LinkKey {
    private: RsaPrivateKey,
    pub(crate) public: PublicKey,
}

impl LinkKey {
    fn generate() -> Option<Self> {
        let private = RsaPrivateKey::new(&mut rand::thread_rng(), BITS).ok()?;
        let der = private.to_public_key().to_public_key_der().ok()?;
        let public = der.as_bytes().try_into().ok()?;
        Some(Self { private, public })
    }

    /// Decrypts the one ticket of this key's link. `None` if it was not encrypted for this key.
    pub(crate) fn decrypt(self, ticket: &[u8; TICKET_LEN]) -> Option<Vec<u8>> {
        self.private.decrypt(Oaep::new::<Sha1>(), ticket).ok()
    }
}

/// The store of keys, and the thread that fills it until the store is dropped.
pub(crate) struct KeyStore {
    keys: Mutex<mpsc::Receiver<LinkKey>>,
    /// What [`KeyStore::take_public`] gave away last.
    spare: parking_lot::Mutex<Option<PublicKey>>,
}

impl KeyStore {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, keys) = mpsc::channel(STORE);
        thread::Builder::new()
            .name("spice-keys".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || fill(&sender))?;
        Ok(Self {
            keys: Mutex::new(keys),
            spare: parking_lot::Mutex::default(),
        })
    }

    /// A key that nobody had before; waits until there is one. `None` if the thread is gone.
    pub(crate) async fn take(&self) -> Option<LinkKey> {
        self.keys.lock().await.recv().await
    }

    /// The public half of a key whose private half nobody has: a new one if one can be had soon,
    /// else the last one again. `None` if the thread is gone.
    pub(crate) async fn take_public(&self) -> Option<PublicKey> {
        let spare = *self.spare.lock();
        let public = match spare {
            None => self.take().await?.public,
            Some(spare) => match self.keys.try_lock() {
                Ok(mut keys) => match timeout(SPARE_TIME, keys.recv()).await {
                    Ok(key) => key?.public,
                    Err(_) => spare,
                },
                // Others wait already: this is a flood.
                Err(_) => spare,
            },
        };
        *self.spare.lock() = Some(public);
        Some(public)
    }
}

fn fill(sender: &mpsc::Sender<LinkKey>) {
    let mut made = 0;
    while !sender.is_closed() {
        let start = Instant::now();
        let Some(key) = LinkKey::generate() else {
            continue;
        };
        // The first keys are wanted soon.
        if made < STORE {
            made += 1;
        } else {
            thread::sleep(start.elapsed());
        }
        if sender.blocking_send(key).is_err() {
            return;
        }
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
        let (sender, keys) = mpsc::channel(LINKS);
        for _ in 0..LINKS {
            let _ = sender.try_send(LinkKey {
                private: key.private.clone(),
                public: key.public,
            });
        }
        Self {
            keys: Mutex::new(keys),
            spare: parking_lot::Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rsa::RsaPublicKey;
    use rsa::pkcs8::DecodePublicKey;

    use super::*;

    #[test]
    fn a_ticket_for_the_public_key_is_decrypted() {
        let key = LinkKey::generate().expect("keys can be made");
        let public = RsaPublicKey::from_public_key_der(&key.public).expect("it is DER");
        let ticket = public
            .encrypt(&mut rand::thread_rng(), Oaep::new::<Sha1>(), b"secret\0")
            .expect("it fits");
        let ticket = ticket
            .as_slice()
            .try_into()
            .expect("it has the size of the key");
        assert_eq!(key.decrypt(ticket).as_deref(), Some(b"secret\0".as_slice()));
    }

    #[test]
    fn noise_is_no_ticket() {
        let key = LinkKey::generate().expect("keys can be made");
        assert_eq!(key.decrypt(&[0x55; TICKET_LEN]), None);
    }

    #[test]
    fn every_link_gets_another_key() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let store = KeyStore::start().expect("a thread can be started");
        runtime.expect("a runtime can be made").block_on(async {
            let (a, b) = (store.take().await, store.take().await);
            assert_ne!(a.map(|key| key.public), b.map(|key| key.public));
        });
    }

    #[test]
    fn links_without_a_password_do_not_wait_for_a_slow_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let (sender, keys) = mpsc::channel(1);
        let store = KeyStore {
            keys: Mutex::new(keys),
            spare: parking_lot::Mutex::default(),
        };
        let only = LinkKey::generate().expect("keys can be made");
        let public = only.public;
        runtime.expect("a runtime can be made").block_on(async {
            assert!(sender.send(only).await.is_ok());
            for _ in 0..3 {
                assert_eq!(store.take_public().await, Some(public));
            }
        });
    }
}
