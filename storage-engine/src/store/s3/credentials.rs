//! Credentials for requests to a bucket.

use capstan_model::Failure;

use super::keys::{S3Keys, usage};
use super::profile::{Profile, ProfileCredentials, ProfileFile};

/// The source of the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// Explicit keys.
    Keys(S3Keys),
    /// Keys of a profile; its files are read again when the server refuses the keys.
    Profile {
        /// The current keys in the files.
        keys: S3Keys,
        /// The files.
        file: ProfileFile,
    },
    /// A signed token (a Kubernetes service account on EKS), exchanged for temporary keys.
    WebIdentity {
        /// File with the token; read again whenever keys expire.
        token_file: String,
        /// The role to assume.
        role: String,
        /// Name of the session in the cloud's logs.
        session: Option<String>,
        /// The token service, if it is not the regional one of AWS.
        endpoint: Option<String>,
    },
    /// The agent of an ECS container's machine.
    Task {
        /// Path at the agent.
        path: String,
    },
    /// The agent of an EKS pod's node.
    Pod {
        /// The agent's address.
        url: String,
        /// File with the authorization token for the agent.
        token_file: String,
    },
    /// The metadata service of a cloud machine.
    Metadata {
        /// Its address, if not the usual one.
        endpoint: Option<String>,
    },
}

impl S3Credentials {
    /// The first that is set: keys, a profile, a web identity, a container agent, the metadata service. `None` if
    /// nothing is set.
    pub(super) fn find(
        get: &impl Fn(&str) -> Option<String>,
        profile: &Profile,
    ) -> Result<Option<S3Credentials>, Failure> {
        if let Some(keys) = keys(get)? {
            return Ok(Some(S3Credentials::Keys(keys)));
        }
        // If the default profile has no credentials, another source may have them.
        let from_profile = match profile.credentials() {
            Err(_) if !profile.is_named() => None,
            outcome => outcome?,
        };
        if let Some(found) = from_profile {
            return Ok(Some(found.into()));
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

    /// Description of the source, for messages.
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

    /// The same, with blanks trimmed.
    ///
    /// # Errors
    /// [`FailureKind::Usage`](capstan_model::FailureKind::Usage) if a part is not valid in a header.
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

impl From<ProfileCredentials> for S3Credentials {
    fn from(found: ProfileCredentials) -> S3Credentials {
        match found {
            ProfileCredentials::Keys { keys, file } => S3Credentials::Profile { keys, file },
            ProfileCredentials::WebIdentity { token_file, role, session } => {
                S3Credentials::WebIdentity { token_file, role, session, endpoint: None }
            }
        }
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
