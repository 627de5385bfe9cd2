//! In whose name requests are sent.

use std::fmt;

use capstan_model::{Failure, FailureKind};

use super::profile::{Profile, ProfileFile};
use super::text::header;

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// Keys that were given.
    Keys(S3Keys),
    /// Keys of a profile; its files are read again when the keys are refused.
    Profile {
        /// What the files say now.
        keys: S3Keys,
        /// Where they were read.
        file: ProfileFile,
    },
    /// A token that somebody vouches for (a Kubernetes service account on EKS), changed for
    /// temporary keys.
    WebIdentity {
        /// File with the token; read again whenever keys run out.
        token_file: String,
        /// The role to take.
        role: String,
        /// What the session is called in the cloud's logs.
        session: Option<String>,
        /// The service that changes tokens for keys, if not AWS's of the region.
        endpoint: Option<String>,
    },
    /// A container of ECS asks the agent of its machine.
    Task {
        /// Path at the agent.
        path: String,
    },
    /// A pod of EKS asks the agent of its node.
    Pod {
        /// The agent's address.
        url: String,
        /// File with what it is asked with.
        token_file: String,
    },
    /// The metadata service of a cloud machine.
    Metadata {
        /// Its address, if not the usual one.
        endpoint: Option<String>,
    },
}

/// A key pair; its secret parts are not shown by `Debug`.
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

impl S3Credentials {
    /// The first that is set: keys, a profile, a web identity, a container's, the metadata service.
    /// `None` if nothing is.
    pub(super) fn find(
        get: &impl Fn(&str) -> Option<String>,
        profile: &Profile,
    ) -> Result<Option<S3Credentials>, Failure> {
        if let Some(keys) = keys(get)? {
            return Ok(Some(S3Credentials::Keys(keys)));
        }
        // What a profile that nobody named cannot give may come from elsewhere.
        let from_profile = match profile.credentials() {
            Err(_) if !profile.is_named() => None,
            outcome => outcome?,
        };
        if from_profile.is_some() {
            return Ok(from_profile);
        }
        if let Some(token_file) = get("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role = get("AWS_ROLE_ARN").ok_or_else(|| {
                usage("AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN: set both")
            })?;
            return Ok(Some(S3Credentials::WebIdentity {
                token_file,
                role,
                session: get("AWS_ROLE_SESSION_NAME"),
                endpoint: get("AWS_ENDPOINT_URL_STS"),
            }));
        }
        if let Some(path) = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return Ok(Some(S3Credentials::Task { path }));
        }
        if let Some(url) = get("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            let token_file = get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").ok_or_else(|| {
                usage(
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI is set without \
                     AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: set both",
                )
            })?;
            return Ok(Some(S3Credentials::Pod { url, token_file }));
        }
        let allowed = get("CAPSTAN_S3_METADATA").is_some_and(|value| value == "1");
        Ok(allowed.then(|| S3Credentials::Metadata {
            endpoint: get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        }))
    }

    /// Whom they are of, for people.
    pub(super) fn whose(&self) -> &'static str {
        match self {
            S3Credentials::Keys(_) => "the environment",
            S3Credentials::Profile { .. } => "the profile",
            S3Credentials::WebIdentity { .. } => "the token service",
            S3Credentials::Task { .. } => "the agent of ECS",
            S3Credentials::Pod { .. } => "the agent of EKS",
            S3Credentials::Metadata { .. } => "the metadata service",
        }
    }

    /// The same, without blanks round their parts.
    ///
    /// # Errors
    /// [`FailureKind::Usage`] if a part cannot stand in a header.
    pub(super) fn checked(self) -> Result<S3Credentials, Failure> {
        Ok(match self {
            S3Credentials::Keys(keys) => S3Credentials::Keys(keys.checked("the environment")?),
            S3Credentials::Profile { keys, file } => {
                S3Credentials::Profile { keys: keys.checked(file.described())?, file }
            }
            other => other,
        })
    }
}

impl S3Keys {
    /// The same, without blanks round their parts, if these can stand in a header.
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

fn keys(get: &impl Fn(&str) -> Option<String>) -> Result<Option<S3Keys>, Failure> {
    match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            Ok(Some(S3Keys { id, secret, token: get("AWS_SESSION_TOKEN") }))
        }
        (None, None) => Ok(None),
        _ => Err(usage("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are needed both, one is set")),
    }
}

pub(super) fn usage(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, what)
}
