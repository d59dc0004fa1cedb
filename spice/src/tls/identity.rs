//! A certificate with its key, read from PEM files and checked before anybody is shown it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::{Decode, EncodePem, pem::LineEnding};

use super::subject;

/// Which of the files something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate and those that vouch for it.
    Certificate,
    /// The certificate's private key.
    Key,
    /// The certificate that viewers are to trust.
    Ca,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Ca => "CA",
        })
    }
}

/// Why files are no [`Identity`].
#[derive(Debug, thiserror::Error)]
#[error("the {file} file {}: {fault}", path.display())]
pub struct TlsError {
    /// Which one.
    pub file: TlsFile,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: TlsFault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// It can't be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// A folder, a FIFO, a device.
    #[error("is no regular file")]
    NotAFile,
    /// Longer than any certificate.
    #[error("is longer than {LIMIT} bytes")]
    TooLong,
    /// No PEM in it, or broken PEM, or PEM of something else.
    #[error("holds no {0} in PEM form (-----BEGIN …-----)")]
    NoPem(&'static str),
    /// The key needs a passphrase.
    #[error("holds an encrypted key")]
    Encrypted,
    /// The PEM is well formed, but its content is not.
    #[error("holds a broken {0}")]
    Broken(&'static str),
    /// The time of the certificate is over.
    #[error("the certificate of {subject} expired at {at}")]
    Expired {
        /// Whose.
        subject: String,
        /// When, in UTC.
        at: String,
    },
    /// The time of the certificate is yet to come.
    #[error("the certificate of {subject} is not valid before {at}")]
    NotYetValid {
        /// Whose.
        subject: String,
        /// From when, in UTC.
        at: String,
    },
    /// The key belongs to another certificate.
    #[error("is not the key of the certificate {}", .0.display())]
    Mismatch(PathBuf),
    /// An algorithm that is not supported, or one too weak.
    #[error("cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
}

impl TlsFault {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable(error) => match error.kind() {
                io::ErrorKind::NotFound => {
                    "`caraway tls init` makes a CA, a certificate and its key"
                }
                io::ErrorKind::PermissionDenied => "let the user who runs this read it",
                _ => "name a file that can be read",
            },
            Self::NotAFile | Self::TooLong => "name a PEM file",
            Self::NoPem(_) | Self::Broken(_) => {
                "look at it with `openssl x509 -in FILE -noout -text` (`openssl pkey` for a key); \
                 `caraway tls init` makes new ones"
            }
            Self::Encrypted => "take its passphrase off: openssl pkey -in FILE -out NEW_FILE",
            Self::Expired { .. } => "renew it; `caraway tls init --force` makes a new one",
            Self::NotYetValid { .. } => "wait, or correct this host's clock",
            Self::Mismatch(_) => {
                "name the key that the certificate was made for; `openssl pkey -in KEY -pubout` and \
                 `openssl x509 -in CERTIFICATE -noout -pubkey` print the same for a pair"
            }
            Self::Unusable(_) => "use an ECDSA P-256 or an RSA key of 2048 bits or more",
        }
    }
}

/// Bytes that a PEM file may have.
const LIMIT: u64 = 1 << 20;

/// A checked certificate with its key, and what viewers must know of it.
#[derive(Debug, Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    subject: String,
    expires: SystemTime,
    ca: Option<String>,
}

impl Identity {
    /// Reads the PEM files of a certificate (with the intermediate ones after it), of its key
    /// (PKCS #8, PKCS #1 or SEC 1, without a passphrase) and, if there is one, of the CA that
    /// viewers are to trust.
    ///
    /// # Errors
    ///
    /// Each [`TlsError`] says which file, and what is wrong with it.
    pub fn load(certificate: &Path, key: &Path, ca: Option<&Path>) -> Result<Self, TlsError> {
        Self::load_at(certificate, key, ca, SystemTime::now())
    }

    fn load_at(
        certificate: &Path,
        key: &Path,
        ca: Option<&Path>,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let of = |file, path: &Path| {
            let path = path.to_owned();
            move |fault| TlsError { file, path, fault }
        };
        let (chain, parsed) =
            certificates(certificate, now).map_err(of(TlsFile::Certificate, certificate))?;
        let trusted = ca
            .map(|path| certificates(path, now).map_err(of(TlsFile::Ca, path)))
            .transpose()?;
        let secret = private_key(key).map_err(of(TlsFile::Key, key))?;
        let config = config(chain, secret).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of(TlsFile::Key, key)(TlsFault::Mismatch(certificate.to_owned()))
            }
            rustls::Error::InvalidCertificate(_) => {
                of(TlsFile::Certificate, certificate)(TlsFault::Unusable(error))
            }
            error => of(TlsFile::Key, key)(TlsFault::Unusable(error)),
        })?;
        let leaf = &parsed[0].tbs_certificate;
        // Whoever signed itself is who is to be trusted.
        let own = parsed.iter().rev().take(1);
        let own = own.filter(|last| last.tbs_certificate.issuer == last.tbs_certificate.subject);
        let vouching: Vec<&Certificate> = match &trusted {
            Some((_, trusted)) => trusted.iter().collect(),
            None => own.collect(),
        };
        let pem: String = vouching
            .iter()
            .filter_map(|certificate| certificate.to_pem(LineEnding::LF).ok())
            .collect();
        Ok(Self {
            config: Arc::new(config),
            subject: subject::text(&leaf.subject),
            expires: leaf.validity.not_after.to_system_time(),
            ca: (!pem.is_empty()).then_some(pem),
        })
    }

    /// The certificate's subject as viewers take it for `host-subject`: `C=US,O=Example,CN=host`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the certificate's time is over.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The PEM text of the certificates that viewers are to trust: the CA that was given, or the
    /// last certificate of the chain if that signed itself.
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// At least one certificate, each of which is valid now.
fn certificates(
    path: &Path,
    now: SystemTime,
) -> Result<(Vec<CertificateDer<'static>>, Vec<Certificate>), TlsFault> {
    const WHAT: &str = "certificate";
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsFault::NoPem(WHAT))?;
    if chain.is_empty() {
        return Err(TlsFault::NoPem(WHAT));
    }
    let mut parsed = Vec::new();
    for certificate in &chain {
        let certificate = Certificate::from_der(certificate).map_err(|_| TlsFault::Broken(WHAT))?;
        let about = &certificate.tbs_certificate;
        let (from, until) = (about.validity.not_before, about.validity.not_after);
        let subject = || subject::text(&about.subject);
        if now < from.to_system_time() {
            let at = from.to_date_time().to_string();
            return Err(TlsFault::NotYetValid {
                subject: subject(),
                at,
            });
        }
        if now > until.to_system_time() {
            let at = until.to_date_time().to_string();
            return Err(TlsFault::Expired {
                subject: subject(),
                at,
            });
        }
        parsed.push(certificate);
    }
    Ok((chain, parsed))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let text = String::from_utf8_lossy(&text);
        let encrypted = text.contains("BEGIN ENCRYPTED") || text.contains("Proc-Type: 4,ENCRYPTED");
        if encrypted {
            TlsFault::Encrypted
        } else {
            TlsFault::NoPem("private key")
        }
    })
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let mut how = OpenOptions::new();
    // Opening a FIFO that nobody writes to would wait for ever.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = how.read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(TlsFault::Unreadable)?;
    if !file.metadata().map_err(TlsFault::Unreadable)?.is_file() {
        return Err(TlsFault::NotAFile);
    }
    let mut text = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(TlsFault::Unreadable)?;
    if text.len() as u64 > LIMIT {
        return Err(TlsFault::TooLong);
    }
    Ok(text)
}
