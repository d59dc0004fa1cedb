//! The generated files that are checked in are those that this build generates.
//!
//! `CARAWAY_REGENERATE=1 cargo test -p caraway --test generated` writes them anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::path::Path;

fn assert_current(file: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../resources")
        .join(file);
    if std::env::var_os("CARAWAY_REGENERATE").is_some() {
        std::fs::write(&path, generated).unwrap();
    }

    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();

    assert!(
        checked_in == generated,
        "resources/{file} is not what this build generates; write it anew with\n  \
         CARAWAY_REGENERATE=1 cargo test -p caraway --test generated"
    );
}

#[test]
fn the_schema_of_the_config_is_current() {
    assert_current("config.schema.json", &caraway::config::json_schema());
}

#[test]
fn the_description_of_the_api_is_current() {
    assert_current("openapi.json", &caraway::api::openapi_json());
}

#[test]
fn the_description_of_the_api_has_every_verb() {
    let description: serde_json::Value =
        serde_json::from_str(&caraway::api::openapi_json()).unwrap();

    for (method, verb) in caraway::api::VERBS {
        let path = format!("{}{verb}", caraway::api::ROOT);
        let operation = &description["paths"][&path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path}");
    }
}
