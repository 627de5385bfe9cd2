//! Server-side encryption, in addition to the bucket's default or instead of it.

use std::fmt;

use capstan_model::Failure;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::keys::usage;
use super::text::header;

/// The kind of server-side encryption. `Debug` hides keys.
#[derive(Clone, PartialEq, Eq)]
pub enum S3Encryption {
    /// With keys of the server (SSE-S3).
    Server,
    /// With a key of the cloud's key service (SSE-KMS).
    Kms {
        /// The key; the account's default if not set.
        key: Option<String>,
        /// In two layers (DSSE-KMS).
        dual: bool,
    },
    /// With this key, sent with each request and not kept by the server (SSE-C): 32 bytes in
    /// base64.
    Customer(String),
}

impl fmt::Debug for S3Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl S3Encryption {
    /// Reads the variables.
    pub(super) fn find(
        get: &impl Fn(&str) -> Option<String>,
    ) -> Result<Option<S3Encryption>, Failure> {
        let kms_key = get("CAPSTAN_S3_KMS_KEY");
        let kms_key = kms_key.map(|key| header("CAPSTAN_S3_KMS_KEY", &key)).transpose()?;
        let customer_key = get("CAPSTAN_S3_CUSTOMER_KEY");
        let way = get("CAPSTAN_S3_ENCRYPTION");
        let found = match way.as_deref() {
            None => None,
            Some("AES256") => Some(S3Encryption::Server),
            Some("aws:kms") => Some(S3Encryption::Kms { key: kms_key.clone(), dual: false }),
            Some("aws:kms:dsse") => Some(S3Encryption::Kms { key: kms_key.clone(), dual: true }),
            Some("sse-c") => Some(S3Encryption::Customer(checked(customer_key.clone())?)),
            Some(other) => {
                return Err(usage(format!(
                    "CAPSTAN_S3_ENCRYPTION is '{other}': write AES256, aws:kms, aws:kms:dsse or sse-c"
                )));
            }
        };
        // An unused key would suggest that it is in use.
        if kms_key.is_some() && !matches!(found, Some(S3Encryption::Kms { .. })) {
            return Err(usage("CAPSTAN_S3_KMS_KEY needs CAPSTAN_S3_ENCRYPTION=aws:kms"));
        }
        if customer_key.is_some() && !matches!(found, Some(S3Encryption::Customer(_))) {
            return Err(usage("CAPSTAN_S3_CUSTOMER_KEY needs CAPSTAN_S3_ENCRYPTION=sse-c"));
        }
        Ok(found)
    }

    /// Configures the client.
    pub(super) fn apply(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        // The type of these keys has no public name.
        let known = |name: &str| -> AmazonS3ConfigKey {
            name.parse().expect("object_store documents this key")
        };
        match self {
            S3Encryption::Customer(key) => builder.with_ssec_encryption(key),
            S3Encryption::Kms { key: Some(key), .. } => builder
                .with_config(known("aws_server_side_encryption"), self.name())
                .with_config(known("aws_sse_kms_key_id"), key),
            _ => builder.with_config(known("aws_server_side_encryption"), self.name()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            S3Encryption::Server => "AES256",
            S3Encryption::Kms { dual: false, .. } => "aws:kms",
            S3Encryption::Kms { dual: true, .. } => "aws:kms:dsse",
            S3Encryption::Customer(_) => "sse-c",
        }
    }
}

/// Checks that a customer's key is 32 bytes in base64.
fn checked(key: Option<String>) -> Result<String, Failure> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
    match key {
        Some(key) if key.len() == 44 && key.strip_suffix('=').is_some_and(digits) => Ok(key),
        _ => Err(usage(
            "CAPSTAN_S3_ENCRYPTION=sse-c needs CAPSTAN_S3_CUSTOMER_KEY, 32 bytes in base64: make one \
             by: openssl rand -base64 32",
        )),
    }
}
