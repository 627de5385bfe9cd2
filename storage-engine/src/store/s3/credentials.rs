//! In whose name requests are sent.

use std::fmt;

use capstan_model::{Failure, FailureKind};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::profile::Profile;

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// Keys that were given.
    Keys(S3Keys),
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

    /// Tells the client.
    pub(super) fn apply(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        use AmazonS3ConfigKey as Key;
        let settings = match self {
            S3Credentials::Keys(S3Keys { id, secret, token }) => vec![
                (Key::AccessKeyId, Some(id)),
                (Key::SecretAccessKey, Some(secret)),
                (Key::Token, token.as_ref()),
            ],
            S3Credentials::WebIdentity { token_file, role, session, endpoint } => vec![
                (Key::WebIdentityTokenFile, Some(token_file)),
                (Key::RoleArn, Some(role)),
                (Key::RoleSessionName, session.as_ref()),
                (Key::StsEndpoint, endpoint.as_ref()),
            ],
            S3Credentials::Task { path } => {
                vec![(Key::ContainerCredentialsRelativeUri, Some(path))]
            }
            S3Credentials::Pod { url, token_file } => vec![
                (Key::ContainerCredentialsFullUri, Some(url)),
                (Key::ContainerAuthorizationTokenFile, Some(token_file)),
            ],
            S3Credentials::Metadata { endpoint } => {
                vec![(Key::MetadataEndpoint, endpoint.as_ref())]
            }
        };
        settings
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
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
