//! Reaching a bucket: options, credentials, the client.
//!
//! Nothing is guessed: credentials come from what is set, and the metadata service of a cloud
//! machine is asked only if that was allowed, because on any other machine the question
//! hangs for seconds and ends in words about an address nobody knows.

use std::time::Duration;

use capstan_model::{Failure, FailureKind};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use url::{Host, Url};

mod credentials;
mod encryption;
mod profile;

pub use credentials::{S3Credentials, S3Keys};
pub use encryption::S3Encryption;

use credentials::usage;
use profile::Profile;

/// How a bucket is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Credentials, if any were found.
    pub credentials: Option<S3Credentials>,
    /// Why a profile that is there gives none, for the message where there are none.
    pub unusable: Option<String>,
    /// Region; `us-east-1` if not set, which servers other than AWS mostly do not look at.
    pub region: Option<String>,
    /// Another server than AWS: `http://…` or `https://…`.
    pub endpoint: Option<String>,
    /// How buckets are addressed. If not set, by path at another server than AWS.
    pub style: Option<S3Style>,
    /// Encryption by the server, other than the bucket's default.
    pub encryption: Option<S3Encryption>,
    /// PEM file of certificate authorities to trust beside the system's.
    pub ca_bundle: Option<String>,
}

/// Where the bucket's name stands in an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Style {
    /// `https://server/bucket/name`.
    Path,
    /// `https://bucket.server/name`.
    Virtual,
}

impl S3Options {
    /// What the environment says, and the files of AWS's tools: `docs/configuration.md` has the
    /// variables.
    ///
    /// # Errors
    ///
    /// Settings that do not fit together, or a profile that was named and cannot be used.
    pub fn from_env() -> Result<S3Options, Failure> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`S3Options::from_env`], from any source of variables. An empty one is not set.
    ///
    /// # Errors
    ///
    /// As for [`S3Options::from_env`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<S3Options, Failure> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let profile = Profile::read(&get)?;
        let style = match get("CAPSTAN_S3_STYLE").as_deref() {
            None => None,
            Some("path") => Some(S3Style::Path),
            Some("virtual") => Some(S3Style::Virtual),
            Some(other) => {
                return Err(usage(format!("CAPSTAN_S3_STYLE is '{other}': write path or virtual")));
            }
        };
        Ok(S3Options {
            credentials: S3Credentials::find(&get, &profile)?,
            unusable: profile.credentials().err().map(|failure| failure.to_string()),
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).or_else(|| profile.get("region")),
            endpoint: first(&["CAPSTAN_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
                .or_else(|| profile.get("endpoint_url")),
            style,
            encryption: S3Encryption::find(&get)?,
            ca_bundle: get("AWS_CA_BUNDLE").or_else(|| profile.get("ca_bundle")),
        })
    }

    /// The client for one bucket. Nothing is asked of the server yet.
    ///
    /// Requests have no time limit of their own: the store sets one by size.
    pub(crate) fn connect(&self, bucket: &str) -> Result<AmazonS3, Failure> {
        let Some(credentials) = &self.credentials else { return Err(self.no_credentials(bucket)) };
        let endpoint = self.endpoint.as_deref().map(endpoint).transpose()?;
        let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
        if plain && matches!(self.encryption, Some(S3Encryption::Customer(_))) {
            return Err(usage(
                "CAPSTAN_S3_ENCRYPTION=sse-c sends the key with each request: use an https:// endpoint",
            ));
        }
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
        builder = credentials.apply(builder);
        if let Some(encryption) = &self.encryption {
            builder = encryption.apply(builder);
        }
        let style = self.style.unwrap_or_else(|| usual_style(endpoint.is_some(), bucket));
        if let Some(mut endpoint) = endpoint {
            if style == S3Style::Virtual {
                add_bucket(&mut endpoint, bucket)?;
            }
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        builder.with_virtual_hosted_style_request(style == S3Style::Virtual).build().map_err(
            |error| {
                Failure::caused_by(
                    FailureKind::Usage,
                    format!("the options for bucket '{bucket}' do not fit together"),
                    error,
                )
            },
        )
    }

    fn no_credentials(&self, bucket: &str) -> Failure {
        let because = self.unusable.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        Failure::new(
            FailureKind::Permission,
            format!(
                "no credentials for bucket '{bucket}': set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), or CAPSTAN_S3_METADATA=1 to ask the \
                 metadata service of this machine{because}"
            ),
        )
    }

    fn certificates(&self) -> Result<Vec<Certificate>, Failure> {
        let Some(path) = &self.ca_bundle else { return Ok(Vec::new()) };
        let pem = std::fs::read(path)
            .map_err(|error| Failure::io(format!("read AWS_CA_BUNDLE {path}"), error))?;
        let refused = || format!("AWS_CA_BUNDLE {path} holds no certificates in PEM");
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if certificates.is_empty() => Err(usage(refused())),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(Failure::caused_by(FailureKind::Usage, refused(), error)),
        }
    }
}

/// A server's address.
fn endpoint(text: &str) -> Result<Url, Failure> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            usage(format!("'{text}' is not an S3 endpoint: write http://host:port or https://host"))
        })
}

/// Servers other than AWS mostly have one name. At AWS a certificate covers no bucket with a dot.
fn usual_style(other_server: bool, bucket: &str) -> S3Style {
    if other_server || bucket.contains('.') { S3Style::Path } else { S3Style::Virtual }
}

/// Puts the bucket before the server's name.
fn add_bucket(endpoint: &mut Url, bucket: &str) -> Result<(), Failure> {
    let host = match endpoint.host() {
        Some(Host::Domain(host)) => format!("{bucket}.{host}"),
        _ => String::new(),
    };
    if host.is_empty() || endpoint.set_host(Some(&host)).is_err() {
        return Err(usage(format!(
            "bucket '{bucket}' cannot stand before the host of {endpoint}: CAPSTAN_S3_STYLE=virtual \
             needs an endpoint with a name"
        )));
    }
    Ok(())
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

#[cfg(test)]
mod tests;
