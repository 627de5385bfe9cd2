//! Access to a bucket: options, credentials, the client.
//!
//! Nothing is guessed: credentials come from explicit settings. The metadata service of a cloud machine is used only
//! if that is allowed, because on any other machine the request hangs for seconds and fails with an obscure address.

use std::sync::Arc;
use std::time::Duration;

use capstan_model::{Failure, FailureKind};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector, SpawnedReqwestConnector};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use url::{Host, Url};

mod credentials;
mod encryption;
pub(crate) mod fetch;
mod keys;
mod profile;
pub(crate) mod renew;
mod text;

pub use credentials::S3Credentials;
pub use encryption::S3Encryption;
pub use keys::S3Keys;
pub use profile::ProfileFile;

use fetch::Source;
use keys::usage;
use profile::Profile;
use renew::Renewing;

/// A bucket's client, and the credentials that sign its requests.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) client: AmazonS3,
    pub(crate) credentials: Arc<Renewing>,
}

/// Options for access to a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Credentials, if any were found.
    pub credentials: Option<S3Credentials>,
    /// Why an existing profile has no credentials, for the error message.
    pub unusable: Option<String>,
    /// Region; `us-east-1` if not set. Most servers other than AWS ignore it.
    pub region: Option<String>,
    /// A server other than AWS: `http://…` or `https://…`.
    pub endpoint: Option<String>,
    /// Addressing style. If not set, path style at servers other than AWS.
    pub style: Option<S3Style>,
    /// Server-side encryption other than the bucket's default.
    pub encryption: Option<S3Encryption>,
    /// PEM file of certificate authorities to trust in addition to the system's.
    pub ca_bundle: Option<String>,
}

/// Position of the bucket's name in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Style {
    /// `https://server/bucket/name`.
    Path,
    /// `https://bucket.server/name`.
    Virtual,
}

impl S3Options {
    /// Reads the environment and the files of AWS's tools: `docs/configuration.md` has the variables.
    ///
    /// # Errors
    ///
    /// Settings that do not fit together, or a named profile that cannot be used.
    pub fn from_env() -> Result<S3Options, Failure> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Like [`S3Options::from_env`], from any source of variables. An empty variable counts as not set.
    ///
    /// # Errors
    ///
    /// Like [`S3Options::from_env`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<S3Options, Failure> {
        // Values from files and shells often end with a line break.
        let get = |name: &str| {
            get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
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

    /// The client for one bucket. Sends no request yet.
    ///
    /// Requests have no time-out and no retries of their own: the store does both.
    pub(crate) fn connect(&self, bucket: &str) -> Result<Connected, Failure> {
        let Some(credentials) = &self.credentials else { return Err(self.no_credentials(bucket)) };
        let region = region(self.region.as_deref().unwrap_or("us-east-1"))?;
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
        let credentials = Arc::new(Renewing::new(Source {
            credentials: credentials.clone().checked()?,
            region: region.clone(),
            client: agents_client(credentials, &client)?,
        }));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_credentials(Arc::clone(&credentials) as _)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // The catalog has the SHA-256 of layers, so a second hash of the body is useless.
            .with_unsigned_payload(true)
            .with_retry(NO_RETRIES)
            .with_client_options(client);
        // Connections outlive the thread of the first request.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            builder = builder.with_http_connector(SpawnedReqwestConnector::new(runtime));
        }
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
        let client = builder.with_virtual_hosted_style_request(style == S3Style::Virtual).build();
        let client = client.map_err(|error| do_not_fit(bucket, error))?;
        Ok(Connected { client, credentials })
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
        // Object paths are appended to it; the signature ignores a user name.
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .ok_or_else(|| {
            usage(format!(
                "'{}' is not an S3 endpoint: write http://host:port or https://host",
                text.escape_debug()
            ))
        })
}

/// Most servers other than AWS have one host name. At AWS no certificate covers a bucket with a dot.
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

/// The store retries itself: each time with its own time-out, with current credentials, and from the byte where an
/// answer broke off.
const NO_RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::ZERO, max_backoff: Duration::ZERO, base: 1.0 },
    max_retries: 0,
    retry_timeout: Duration::ZERO,
};

/// The HTTP client for requests to credential services, if needed.
fn agents_client(
    credentials: &S3Credentials,
    options: &ClientOptions,
) -> Result<Option<HttpClient>, Failure> {
    if matches!(credentials, S3Credentials::Keys(_) | S3Credentials::Profile { .. }) {
        return Ok(None);
    }
    // Agents and metadata services are reached within the machine, without TLS.
    let options =
        options.clone().with_allow_http(true).with_connect_timeout(Duration::from_secs(2));
    let client = match tokio::runtime::Handle::try_current() {
        Ok(runtime) => SpawnedReqwestConnector::new(runtime).connect(&options),
        Err(_) => ReqwestConnector::default().connect(&options),
    };
    client.map(Some).map_err(|error| {
        Failure::caused_by(FailureKind::Other, "cannot make a client for credentials", error)
    })
}

/// A region's name is signed and sent.
fn region(text: &str) -> Result<String, Failure> {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(usage(format!(
        "'{}' is not a region's name: set AWS_REGION to one such as eu-west-1",
        text.escape_debug()
    )))
}

fn do_not_fit(bucket: &str, error: object_store::Error) -> Failure {
    let what = format!("the options for bucket '{bucket}' do not fit together");
    Failure::caused_by(FailureKind::Usage, what, error)
}

#[cfg(test)]
mod tests;
