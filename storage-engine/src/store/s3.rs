//! Reaching a bucket: options, credentials, the client.
//!
//! Nothing is guessed: credentials come from what is set, and the metadata service of a cloud
//! machine is asked only if that was allowed, because on any other machine the question
//! hangs for seconds and ends in words about an address nobody knows.

use std::fmt;
use std::time::Duration;

use capstan_model::{Failure, FailureKind};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

/// How a bucket is reached.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Key pair and session token.
    pub keys: Option<S3Keys>,
    /// Region; `us-east-1` if not set, which servers other than AWS mostly do not look at.
    pub region: Option<String>,
    /// Another server than AWS: `http://…` or `https://…`. Its buckets are addressed by
    /// path, not by host name.
    pub endpoint: Option<String>,
    /// A web identity (Kubernetes service account on EKS): token file and role.
    pub web_identity: Option<(String, String)>,
    /// Where a container asks for credentials (ECS, EKS pod identity): key as object_store
    /// names it, and value.
    pub container: Vec<(AmazonS3ConfigKey, String)>,
    /// The machine's metadata service may be asked for credentials.
    pub metadata_service: bool,
    /// PEM file of certificate authorities to trust beside the system's.
    pub ca_bundle: Option<String>,
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

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("keys", &self.keys)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("metadata_service", &self.metadata_service)
            .finish_non_exhaustive()
    }
}

impl S3Options {
    /// What the environment says:
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | keys |
    /// | `AWS_PROFILE`, `AWS_SHARED_CREDENTIALS_FILE` | keys from that file (`~/.aws/credentials`, profile `default`) |
    /// | `AWS_REGION`, `AWS_DEFAULT_REGION` | region |
    /// | `CAPSTAN_S3_ENDPOINT`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` | another server, the first that is set |
    /// | `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN` | web identity |
    /// | `AWS_CONTAINER_CREDENTIALS_…` | container credentials |
    /// | `CAPSTAN_S3_METADATA=1` | the metadata service may be asked |
    /// | `AWS_CA_BUNDLE` | PEM file of further certificate authorities |
    ///
    /// # Errors
    ///
    /// Half a key pair, or a named profile that cannot be read.
    pub fn from_env() -> Result<S3Options, Failure> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`S3Options::from_env`], from any source of variables.
    ///
    /// # Errors
    ///
    /// As for [`S3Options::from_env`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<S3Options, Failure> {
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let container = [
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
            ),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
            ),
        ];
        Ok(S3Options {
            keys: keys_from(&get)?,
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
            endpoint: first(&["CAPSTAN_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            web_identity: get("AWS_WEB_IDENTITY_TOKEN_FILE").zip(get("AWS_ROLE_ARN")),
            container: container
                .into_iter()
                .filter_map(|(name, key)| get(name).map(|value| (key, value)))
                .collect(),
            metadata_service: get("CAPSTAN_S3_METADATA").is_some_and(|value| value == "1"),
            ca_bundle: get("AWS_CA_BUNDLE"),
        })
    }

    /// The client for one bucket. Nothing is asked of the server yet.
    ///
    /// Requests have no time limit of their own: the store sets one by size.
    pub(crate) fn connect(&self, bucket: &str) -> Result<AmazonS3, Failure> {
        let known =
            self.keys.is_some() || self.web_identity.is_some() || !self.container.is_empty();
        if !known && !self.metadata_service {
            return Err(Failure::new(
                FailureKind::Permission,
                format!(
                    "no credentials for bucket '{bucket}': set AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), or CAPSTAN_S3_METADATA=1 to ask the \
                     metadata service of this machine"
                ),
            ));
        }
        let endpoint = self.endpoint.as_deref().map(endpoint).transpose()?;
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut client = ClientOptions::new()
            .with_allow_http(plain)
            .with_timeout_disabled()
            .with_connect_timeout(Duration::from_secs(10))
            .with_pool_idle_timeout(Duration::from_secs(60));
        for certificate in self.certificates()? {
            client = client.with_root_certificate(certificate);
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // The layers' SHA-256 are in the catalog: hashing a body twice buys nothing.
            .with_unsigned_payload(true)
            .with_retry(retries())
            .with_client_options(client);
        if let Some(keys) = &self.keys {
            builder = builder.with_access_key_id(&keys.id).with_secret_access_key(&keys.secret);
            if let Some(token) = &keys.token {
                builder = builder.with_token(token);
            }
        } else if let Some((file, role)) = &self.web_identity {
            builder = builder
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file)
                .with_config(AmazonS3ConfigKey::RoleArn, role);
        } else {
            for (key, value) in &self.container {
                builder = builder.with_config(*key, value);
            }
        }
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
        } else {
            builder = builder.with_virtual_hosted_style_request(!bucket.contains('.'));
        }
        builder.build().map_err(|error| {
            Failure::caused_by(
                FailureKind::Usage,
                format!("the options for bucket '{bucket}' do not fit together"),
                error,
            )
        })
    }

    fn certificates(&self) -> Result<Vec<Certificate>, Failure> {
        let Some(path) = &self.ca_bundle else { return Ok(Vec::new()) };
        let pem = std::fs::read(path)
            .map_err(|error| Failure::io(format!("read AWS_CA_BUNDLE {path}"), error))?;
        Certificate::from_pem_bundle(&pem).map_err(|error| {
            Failure::caused_by(
                FailureKind::Usage,
                format!("AWS_CA_BUNDLE {path} holds no certificates in PEM"),
                error,
            )
        })
    }
}

/// A server's address, without a slash at its end.
fn endpoint(text: &str) -> Result<&str, Failure> {
    let usable = url::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if usable {
        return Ok(text.trim_end_matches('/'));
    }
    Err(Failure::new(
        FailureKind::Usage,
        format!("'{text}' is not an S3 endpoint: write http://host:port or https://host"),
    ))
}

/// Retries of single requests that the server turned away or that did not reach it: a few
/// seconds' worth. The store tries operations again on top, each with its own time limit;
/// who must not give up (a recorder) keeps its data and calls again.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(25),
    }
}

fn keys_from(get: &impl Fn(&str) -> Option<String>) -> Result<Option<S3Keys>, Failure> {
    let usage = |what: String| Failure::new(FailureKind::Usage, what);
    match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            return Ok(Some(S3Keys { id, secret, token: get("AWS_SESSION_TOKEN") }));
        }
        (None, None) => {}
        _ => {
            return Err(usage(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are needed both, one is set"
                    .to_owned(),
            ));
        }
    }
    let named = get("AWS_PROFILE");
    let file = get("AWS_SHARED_CREDENTIALS_FILE")
        .or_else(|| get("HOME").map(|home| format!("{home}/.aws/credentials")));
    let text = match file.as_ref().map(std::fs::read_to_string) {
        Some(Ok(text)) => text,
        Some(Err(error)) if named.is_some() => {
            let file = file.unwrap_or_default();
            return Err(Failure::io(format!("read {file} for AWS_PROFILE"), error));
        }
        // Nobody named a profile: having no such file is no mistake.
        _ => return Ok(None),
    };
    let profile = named.as_deref().unwrap_or("default");
    match (profile_keys(&text, profile), named.is_some()) {
        (None, true) => Err(usage(format!(
            "profile '{profile}' of {} has no aws_access_key_id and aws_secret_access_key",
            file.unwrap_or_default()
        ))),
        (keys, _) => Ok(keys),
    }
}

/// The keys of one section of a shared credentials file.
fn profile_keys(text: &str, profile: &str) -> Option<S3Keys> {
    let mut inside = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(S3Keys { id: id?, secret: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<S3Options, Failure> {
        S3Options::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_credentials_the_metadata_service_is_not_asked() {
        let failure = options(&[]).unwrap().connect("packets").expect_err("no keys");
        assert_eq!(failure.kind(), FailureKind::Permission);
        assert!(failure.to_string().contains("AWS_ACCESS_KEY_ID"), "{failure}");
        assert!(options(&[("CAPSTAN_S3_METADATA", "1")]).unwrap().connect("packets").is_ok());
    }

    #[test]
    fn half_a_key_pair_is_refused() {
        let failure = options(&[("AWS_ACCESS_KEY_ID", "a")]).expect_err("half");
        assert_eq!(failure.kind(), FailureKind::Usage);
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = options(&[
            ("AWS_ACCESS_KEY_ID", "shown"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("AWS_SESSION_TOKEN", "hidden"),
            ("CAPSTAN_S3_ENDPOINT", "http://127.0.0.1:9/"),
            ("AWS_ENDPOINT_URL", "http://other"),
        ])
        .unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("shown") && !shown.contains("hidden"), "{shown}");
        assert_eq!(options.endpoint.as_deref(), Some("http://127.0.0.1:9/"));
        assert!(options.connect("packets").is_ok());
    }

    #[test]
    fn a_profile_is_read_from_its_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("credentials");
        let text = "[default]\naws_access_key_id = a\n\n[ other ]\n# words\naws_access_key_id=b\n\
                    aws_secret_access_key = c=d\n";
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let of =
            |profile| options(&[("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", profile)]);
        let keys = of("other").unwrap().keys.expect("keys");
        assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("b", "c=d"));
        assert_eq!(of("default").expect_err("no secret").kind(), FailureKind::Usage);
        let unnamed = options(&[("AWS_SHARED_CREDENTIALS_FILE", file)]).unwrap();
        assert_eq!(unnamed.keys, None);
        let gone = options(&[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"), ("AWS_PROFILE", "x")]);
        assert_eq!(gone.expect_err("no file").kind(), FailureKind::NotFound);
    }

    #[test]
    fn an_endpoint_is_an_address() {
        for text in ["127.0.0.1:9000", "ftp://x", "http://"] {
            assert_eq!(endpoint(text).expect_err(text).kind(), FailureKind::Usage);
        }
        assert_eq!(endpoint("https://s3.example/").unwrap(), "https://s3.example");
    }
}
