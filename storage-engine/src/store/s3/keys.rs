//! Key pairs.

use std::fmt;

use capstan_model::{Failure, FailureKind};

use super::text::header;

/// A key pair; `Debug` hides its secret parts.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token, for temporary keys.
    pub token: Option<String>,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl S3Keys {
    /// The same, with blanks trimmed, if the parts are valid in a header.
    pub(super) fn checked(self, whose: &str) -> Result<S3Keys, Failure> {
        let part = |what: &str, text: &str| header(&format!("the {what} of {whose}"), text);
        let token = self.token.map(|token| part("session token", &token)).transpose()?;
        Ok(S3Keys {
            id: part("access key", &self.id)?,
            secret: part("secret access key", &self.secret)?,
            token: token.filter(|token| !token.is_empty()),
        })
    }
}

/// Settings that cannot be used.
pub(super) fn usage(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, what)
}
