//! The certificate that viewers are shown, and how it is changed under way.

use std::sync::Arc;

use caraway_spice::tls::{Identity, Tls};

use crate::command::{ApiError, ErrorCode, TlsInfo};
use crate::config::{MachineSpec, TlsSpec};
use crate::exit::Failure;

/// The certificate of a machine whose viewers come by TLS.
pub(super) struct Certificate {
    files: TlsSpec,
    tls: Arc<Tls>,
    identity: Identity,
}

impl Certificate {
    /// Reads the files that the config names, if it names any.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub(super) fn load(spec: &MachineSpec) -> Result<Option<Self>, Failure> {
        let Some(files) = spec.spice.as_ref().and_then(|spice| spice.tls.as_ref()) else {
            return Ok(None);
        };
        let identity = files.identity().map_err(|problem| spec.error(*problem))?;
        Ok(Some(Self {
            files: files.clone(),
            tls: Tls::new(&identity),
            identity,
        }))
    }

    /// What the listeners show.
    pub(super) fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    pub(super) fn files(&self) -> &TlsSpec {
        &self.files
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Reads the files again, and shows what is in them from the next connection on.
    ///
    /// # Errors
    /// One of them is not what it should be; what was shown before is shown further.
    pub(super) fn reload(&mut self) -> Result<TlsInfo, ApiError> {
        self.identity = self.files.identity().map_err(|problem| ApiError {
            path: Some(problem.path.to_string()),
            hint: problem.hint,
            ..ApiError::new(ErrorCode::BadCertificate, problem.message)
        })?;
        self.tls.replace(&self.identity);
        Ok(self.info())
    }

    pub(super) fn info(&self) -> TlsInfo {
        let expires = jiff::Timestamp::try_from(self.identity.expires());
        TlsInfo {
            listeners: Vec::new(),
            subject: self.identity.subject().to_owned(),
            // Every time that a certificate can have is one that can be shown.
            expires: expires.unwrap_or(jiff::Timestamp::MAX).to_string(),
        }
    }
}
