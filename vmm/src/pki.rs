//! Certificates of one's own: a CA, and a server's certificate that it vouches for.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// Days that a CA is good for.
const CA_DAYS: i64 = 3650;
/// Hours before now from which certificates are valid, for clocks that are late.
const EARLY: i64 = 24;
const ORGANIZATION: &str = "Caraway";

/// Certificates can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// There are files already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A file can't be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name is neither that of a host nor an address.
    #[error("{0:?} is neither a host's name nor an IP address")]
    Name(String),
    /// The CA that is there can't be used.
    #[error("the CA in {} cannot sign", folder.display())]
    Ca {
        /// Where it is.
        folder: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// Nothing that depends on what was given.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where the files go; made if it is not there.
    pub folder: PathBuf,
    /// The server's name: the common name of its certificate.
    pub name: String,
    /// Names and addresses by which viewers reach it.
    pub reached_by: Vec<String>,
    /// Days that the server's certificate is good for.
    pub days: u16,
    /// Replace what is there.
    pub force: bool,
    /// Sign with the CA that is there, instead of making one.
    pub keep_ca: bool,
}

/// The files that were made, or that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// What viewers are to trust.
    pub ca: PathBuf,
    /// The CA's secret; the server does not need it.
    pub ca_key: PathBuf,
    /// What the server shows.
    pub certificate: PathBuf,
    /// Its secret.
    pub key: PathBuf,
}

impl Files {
    fn in_folder(folder: &Path) -> Self {
        Self {
            ca: folder.join("ca-cert.pem"),
            ca_key: folder.join("ca-key.pem"),
            certificate: folder.join("server-cert.pem"),
            key: folder.join("server-key.pem"),
        }
    }
}

/// Makes a CA and a server's certificate, as PEM files; the keys are for their owner only.
///
/// # Errors
///
/// Files are there and are not to be replaced, a name is none, or the folder can't be written.
pub fn make(wish: &Wish) -> Result<Files, PkiError> {
    let files = Files::in_folder(&wish.folder);
    let mut new = vec![&files.certificate, &files.key];
    if !wish.keep_ca {
        new.extend([&files.ca, &files.ca_key]);
    }
    if let Some(there) = new.iter().find(|path| !wish.force && path.exists()) {
        return Err(PkiError::Exists((*there).clone()));
    }
    let server = server(wish)?;
    let key = KeyPair::generate()?;
    let signed = if wish.keep_ca {
        server.signed_by(&key, &kept_ca(&wish.folder, &files)?)?
    } else {
        let ca = CertifiedIssuer::self_signed(ca(&wish.name), KeyPair::generate()?)?;
        create(&wish.folder)?;
        write(&files.ca_key, &ca.key().serialize_pem(), SECRET)?;
        write(&files.ca, &ca.pem(), OPEN)?;
        server.signed_by(&key, &ca)?
    };
    write(&files.key, &key.serialize_pem(), SECRET)?;
    write(&files.certificate, &signed.pem(), OPEN)?;
    Ok(files)
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("{name} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_DAYS);
    params
}

fn server(wish: &Wish) -> Result<CertificateParams, PkiError> {
    let names = wish.reached_by.iter().map(|name| alternative(name));
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.collect::<Result<_, _>>()?;
    params.distinguished_name = subject(&wish.name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, wish.days.into());
    Ok(params)
}

fn alternative(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
    let bad = || PkiError::Name(name.to_owned());
    if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
        return Err(bad());
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, ORGANIZATION);
    subject.push(DnType::CommonName, name);
    subject
}

fn valid_for(params: &mut CertificateParams, days: i64) {
    let now = Timestamp::now();
    let day = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    params.not_before = day(now
        .saturating_sub(SignedDuration::from_hours(EARLY))
        .unwrap_or(now));
    params.not_after = day(now
        .saturating_add(SignedDuration::from_hours(24 * days))
        .unwrap_or(now));
}

fn kept_ca(folder: &Path, files: &Files) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|source| file_error(path, source));
    let (certificate, key) = (read(&files.ca)?, read(&files.ca_key)?);
    KeyPair::from_pem(&key)
        .and_then(|key| Issuer::from_ca_cert_pem(&certificate, key))
        .map_err(|source| PkiError::Ca {
            folder: folder.to_owned(),
            source,
        })
}

const SECRET: u32 = 0o600;
const OPEN: u32 = 0o644;

fn create(folder: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(folder).map_err(|source| file_error(folder, source))
}

/// Puts a file into its place at once, so that nobody reads half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let failed = |source| file_error(path, source);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let mut how = OpenOptions::new();
    let how = how.write(true).create_new(true).mode(mode);
    let written = how
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It is no use to anybody.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

fn file_error(path: &Path, source: io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use caraway_spice::tls::Identity;

    use super::*;

    fn wish(folder: &tempfile::TempDir) -> Wish {
        Wish {
            folder: folder.path().join("tls"),
            name: "desk, 1".into(),
            reached_by: vec!["desk.example".into(), "10.0.0.1".into(), "::1".into()],
            days: 30,
            force: false,
            keep_ca: false,
        }
    }

    fn identity(files: &Files) -> Identity {
        Identity::load(&files.certificate, &files.key, Some(&files.ca)).unwrap()
    }

    #[test]
    fn what_is_made_is_an_identity() {
        let folder = tempfile::tempdir().unwrap();

        let files = make(&wish(&folder)).unwrap();

        assert_eq!(identity(&files).subject(), r"O=Caraway,CN=desk\, 1");
    }

    #[test]
    fn only_the_owner_may_read_the_keys() {
        let folder = tempfile::tempdir().unwrap();

        let files = make(&wish(&folder)).unwrap();

        for (path, mode) in [
            (&files.ca_key, 0o600),
            (&files.key, 0o600),
            (&files.ca, 0o644),
        ] {
            let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            // The umask may take more away.
            assert_eq!(found & !mode, 0, "{}: {found:o}", path.display());
            assert_ne!(found & 0o400, 0);
        }
    }

    #[test]
    fn nothing_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let files = make(&wish(&folder)).unwrap();
        let before = fs::read(&files.key).unwrap();

        assert!(matches!(make(&wish(&folder)), Err(PkiError::Exists(_))));
        assert_eq!(fs::read(&files.key).unwrap(), before);

        let force = true;
        make(&Wish {
            force,
            ..wish(&folder)
        })
        .unwrap();
        assert_ne!(fs::read(&files.key).unwrap(), before);
    }

    #[test]
    fn a_certificate_can_be_renewed_under_the_same_ca() {
        let folder = tempfile::tempdir().unwrap();
        let files = make(&wish(&folder)).unwrap();
        let (ca, before) = (
            fs::read(&files.ca).unwrap(),
            fs::read(&files.certificate).unwrap(),
        );

        let (force, keep_ca) = (true, true);
        make(&Wish {
            force,
            keep_ca,
            ..wish(&folder)
        })
        .unwrap();

        assert_eq!(fs::read(&files.ca).unwrap(), ca);
        assert_ne!(fs::read(&files.certificate).unwrap(), before);
        identity(&files);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "a b", "http://x", "größe"] {
            let reached_by = vec![name.to_owned()];
            let made = make(&Wish {
                reached_by,
                ..wish(&folder)
            });
            assert!(matches!(made, Err(PkiError::Name(_))), "{name:?}");
        }
    }
}
