//! A certificate's subject in the form of `host-subject` in viewers' connection files.
//!
//! spice-gtk (`spice_channel`'s `verify_subject`) splits it at commas, takes `\` as an escape, and
//! compares attribute by attribute in the certificate's own order, not in that of RFC 4514.

use std::fmt::Write;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{BmpString, Utf8StringRef};
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef};
use x509_cert::name::RdnSequence;

/// Short names as OpenSSL has them; any other attribute goes by its number, which OpenSSL takes too.
const NAMES: [(&str, &str); 13] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// `C=US,O=Example,CN=host`.
pub(super) fn text(subject: &RdnSequence) -> String {
    let mut text = String::new();
    for attribute in subject.0.iter().flat_map(|set| set.0.iter()) {
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a string can't fail.
        let _ = write!(text, "{}=", name(attribute.oid));
        for letter in value(attribute).chars() {
            if matches!(letter, ',' | '\\') {
                text.push('\\');
            }
            text.push(letter);
        }
    }
    text
}

fn name(oid: ObjectIdentifier) -> String {
    let number = oid.to_string();
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or(number, |(_, name)| (*name).to_owned())
}

/// The value as text, whichever string type holds it; nothing if none does.
fn value(attribute: &AttributeTypeAndValue) -> String {
    let any = &attribute.value;
    let utf8 = any
        .decode_as::<Utf8StringRef>()
        .map(|s| s.as_str().to_owned());
    let printable = |_| {
        any.decode_as::<PrintableStringRef>()
            .map(|s| s.as_str().to_owned())
    };
    let ia5 = |_| {
        any.decode_as::<Ia5StringRef>()
            .map(|s| s.as_str().to_owned())
    };
    let teletex = |_| {
        any.decode_as::<TeletexStringRef>()
            .map(|s| s.as_str().to_owned())
    };
    let bmp = |_| any.decode_as::<BmpString>().map(|s| s.to_string());
    utf8.or_else(printable)
        .or_else(ia5)
        .or_else(teletex)
        .or_else(bmp)
        .unwrap_or_default()
}
