//! Fetches credentials from files, a token service, agents, or metadata services.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use capstan_model::{FailureKind, Time};
use futures::StreamExt;
use object_store::aws::AwsCredential;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use serde::Deserialize;
use url::Url;

use super::credentials::S3Credentials;
use super::keys::S3Keys;
use super::text;

/// Time-out of one request to an agent, which is on this machine or near it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Maximum length of an answer with credentials.
const MOST: usize = 64 << 10;

/// Address of the ECS agent.
const TASK_AGENT: &str = "http://169.254.170.2";

/// Address of the clouds' metadata service.
const METADATA: &str = "http://169.254.169.254";

/// Why there are no credentials, and advice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NoCredentials {
    pub(crate) kind: FailureKind,
    pub(crate) what: String,
}

impl NoCredentials {
    fn new(kind: FailureKind, what: impl Into<String>) -> NoCredentials {
        NoCredentials { kind, what: what.into() }
    }
}

/// Keys, and their expiry.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: Arc<AwsCredential>,
    /// `None` if unknown.
    pub(super) expires: Option<Time>,
}

/// The source of credentials, and the client for it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) credentials: S3Credentials,
    pub(super) region: String,
    /// For sources that need requests.
    pub(super) client: Option<HttpClient>,
}

impl Source {
    /// Whether another fetch can return other credentials.
    pub(super) fn is_renewable(&self) -> bool {
        !matches!(self.credentials, S3Credentials::Keys(_))
    }

    /// Fetches credentials. They are valid in a header, whatever the source returns.
    pub(super) async fn fetch(&self) -> Result<Fetched, NoCredentials> {
        match &self.credentials {
            S3Credentials::Keys(keys) => Ok(fixed(keys)),
            S3Credentials::Profile { file, .. } => {
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || file.read_keys()).await;
                let keys = read.map_err(|error| {
                    NoCredentials::new(FailureKind::Other, format!("reading a profile: {error}"))
                })?;
                keys.map(|keys| fixed(&keys)).map_err(|failure| {
                    let what = capstan_model::failure::with_causes(&failure);
                    NoCredentials::new(FailureKind::Permission, what)
                })
            }
            S3Credentials::Task { path } => {
                let url = format!("{TASK_AGENT}{path}");
                let named = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
                self.ask_agent(&address(named, &url)?, None, "the agent of ECS").await
            }
            S3Credentials::Pod { url, token_file } => {
                let token = token_of("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file).await?;
                let url = address("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)?;
                self.ask_agent(&url, Some(token), "the agent of EKS").await
            }
            S3Credentials::WebIdentity { token_file, role, session, endpoint } => {
                let token = token_of("AWS_WEB_IDENTITY_TOKEN_FILE", token_file).await?;
                self.ask_token_service(&token, role, session.as_deref(), endpoint.as_deref()).await
            }
            S3Credentials::Metadata { endpoint } => {
                self.ask_metadata(endpoint.as_deref().unwrap_or(METADATA)).await
            }
        }
    }

    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html> and
    /// <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html>: the same
    /// answer.
    async fn ask_agent(
        &self,
        url: &Url,
        token: Option<String>,
        whom: &str,
    ) -> Result<Fetched, NoCredentials> {
        let token = token.map(|token| ("authorization", token));
        let answer = self.ask("GET", url, token.as_slice(), whom).await?.text(whom)?;
        Answer::parse(&answer, whom)
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>
    async fn ask_metadata(&self, endpoint: &str) -> Result<Fetched, NoCredentials> {
        const WHOM: &str = "the metadata service of this machine";
        let endpoint = endpoint.trim_end_matches('/');
        let at =
            |path: &str| address("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("{endpoint}{path}"));
        let lifetime = ("x-aws-ec2-metadata-token-ttl-seconds", "600".to_owned());
        let silent = |error: NoCredentials| NoCredentials {
            what: format!("{}; set access keys, or run on a machine that has one", error.what),
            ..error
        };
        let asked = self.ask("PUT", &at("/latest/api/token")?, &[lifetime], WHOM).await;
        let token = asked.and_then(|answer| answer.text(WHOM)).map_err(silent)?;
        let token = [(
            "x-aws-ec2-metadata-token",
            text::header("its token", token.trim()).map_err(|failure| {
                NoCredentials::new(FailureKind::Permission, format!("{WHOM}: {failure}"))
            })?,
        )];
        let roles = "/latest/meta-data/iam/security-credentials/";
        let no_role = |error: NoCredentials| match error.kind {
            FailureKind::Permission => NoCredentials::new(
                FailureKind::Permission,
                format!(
                    "{WHOM} has no credentials: give the machine a role, or set keys ({})",
                    error.what
                ),
            ),
            _ => error,
        };
        let asked = self.ask("GET", &at(roles)?, &token, WHOM).await;
        let role = asked.and_then(|answer| answer.text(WHOM)).map_err(no_role)?;
        let role = role.lines().next().unwrap_or_default().trim();
        let asked = self.ask("GET", &at(&format!("{roles}{role}"))?, &token, WHOM).await;
        let answer = asked.and_then(|answer| answer.text(WHOM)).map_err(no_role)?;
        Answer::parse(&answer, WHOM)
    }

    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
    async fn ask_token_service(
        &self,
        token: &str,
        role: &str,
        session: Option<&str>,
        endpoint: Option<&str>,
    ) -> Result<Fetched, NoCredentials> {
        const WHOM: &str = "the token service";
        let usual = format!("https://sts.{}.amazonaws.com", self.region);
        let mut url = address("AWS_ENDPOINT_URL_STS", endpoint.unwrap_or(&usual))?;
        // The answer contains a secret.
        if url.scheme() != "https" && !is_this_machine(&url) {
            return Err(NoCredentials::new(
                FailureKind::Usage,
                "AWS_ENDPOINT_URL_STS must begin with https://: the answer holds a secret",
            ));
        }
        url.query_pairs_mut()
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("DurationSeconds", "3600")
            .append_pair("RoleArn", role)
            .append_pair("RoleSessionName", session.unwrap_or("capstan"))
            .append_pair("Version", "2011-06-15")
            .append_pair("WebIdentityToken", token);
        let answer = self.ask("POST", &url, &[], WHOM).await?;
        if let Some(code) = answer.refusal() {
            let advice = match code.as_str() {
                "InvalidIdentityToken"
                | "ExpiredTokenException"
                | "IDPRejectedClaim"
                | "AccessDenied" => {
                    ": the web identity is not accepted; check the token of AWS_WEB_IDENTITY_TOKEN_FILE, \
                     and whom the role of AWS_ROLE_ARN trusts"
                }
                _ => "",
            };
            let what = format!("{WHOM} answers {code}{advice}");
            return Err(NoCredentials::new(FailureKind::Permission, what));
        }
        let answer = answer.text(WHOM)?;
        let field = |name: &str| {
            between(&answer, &format!("<{name}>"), &format!("</{name}>")).map(str::to_owned)
        };
        Answer {
            access_key_id: field("AccessKeyId").unwrap_or_default(),
            secret_access_key: field("SecretAccessKey").unwrap_or_default(),
            token: field("SessionToken"),
            expiration: field("Expiration"),
        }
        .checked(WHOM)
    }

    /// One request and its whole answer.
    async fn ask(
        &self,
        method: &str,
        url: &Url,
        headers: &[(&'static str, String)],
        whom: &str,
    ) -> Result<Said, NoCredentials> {
        let unusable = |what: &str, error: &dyn fmt::Display| {
            let what = format!("request to {whom} failed: {what}: {error}");
            NoCredentials::new(FailureKind::Usage, what)
        };
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().expect("one of three words");
        *request.uri_mut() =
            url.as_str().parse().map_err(|error| unusable("its address", &error))?;
        for (name, value) in headers {
            let value = value.parse().map_err(|error| unusable(name, &error))?;
            request.headers_mut().insert(*name, value);
        }
        let away = |why: &dyn fmt::Display| {
            let what =
                format!("{whom} does not answer at {}: {why}", url.origin().ascii_serialization());
            NoCredentials::new(FailureKind::Unavailable, what)
        };
        let client = self.client.as_ref().ok_or_else(|| away(&"there is no client"))?;
        let asked = async {
            let answer = client.execute(request).await;
            let answer =
                answer.map_err(|error| away(&capstan_model::failure::with_causes(&error)))?;
            let status = answer.status().as_u16();
            let mut body = Vec::new();
            let mut pieces = answer.into_body().bytes_stream();
            while let Some(piece) = pieces.next().await {
                let piece =
                    piece.map_err(|error| away(&capstan_model::failure::with_causes(&error)))?;
                body.extend_from_slice(&piece);
                if body.len() > MOST {
                    return Err(nonsense(whom, "it is too long"));
                }
            }
            Ok(Said { status, body })
        };
        let limit = tokio::time::timeout(ANSWERS_WITHIN, asked).await;
        limit.unwrap_or_else(|_| Err(away(&format!("nothing came within {ANSWERS_WITHIN:?}"))))
    }
}

/// An answer.
struct Said {
    status: u16,
    body: Vec<u8>,
}

impl Said {
    /// The error code, if the server refused with one.
    fn refusal(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        let refused = (400..500).contains(&self.status) && self.status != 429;
        let code = between(&text, "<Code>", "</Code>").filter(|_| refused)?;
        Some(code.chars().filter(char::is_ascii_graphic).take(64).collect())
    }

    /// The text of an answer that is a success.
    fn text(self, whom: &str) -> Result<String, NoCredentials> {
        match self.status {
            200..=299 => {
                String::from_utf8(self.body).map_err(|_| nonsense(whom, "it is not UTF-8 text"))
            }
            status @ (408 | 429 | 500..=599) => Err(NoCredentials::new(
                FailureKind::Unavailable,
                format!("{whom} failed with status {status}"),
            )),
            status => Err(NoCredentials::new(
                FailureKind::Permission,
                format!("{whom} refused with status {status}"),
            )),
        }
    }
}

/// Credentials in the format of agents and metadata services.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Answer {
    fn parse(text: &str, whom: &str) -> Result<Fetched, NoCredentials> {
        // The parse error could quote the secret.
        let answer: Answer =
            serde_json::from_str(text).map_err(|_| nonsense(whom, "invalid credentials JSON"))?;
        answer.checked(whom)
    }

    fn checked(self, whom: &str) -> Result<Fetched, NoCredentials> {
        let clean = |what: &str, text: &str| {
            text::header(what, text).map_err(|failure| nonsense(whom, &failure.to_string()))
        };
        if self.access_key_id.trim().is_empty() || self.secret_access_key.trim().is_empty() {
            return Err(nonsense(whom, "no access key and secret"));
        }
        let expires =
            match self.expiration.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
                None => None,
                // A relative time is only meant for humans.
                Some(text) if text.starts_with(|c: char| c.is_ascii_digit()) => Some(
                    Time::parse(text, Time(0))
                        .map_err(|error| nonsense(whom, &format!("invalid expiration: {error}")))?,
                ),
                Some(_) => return Err(nonsense(whom, "invalid expiration")),
            };
        let token = self.token.filter(|token| !token.trim().is_empty());
        let token = token.map(|token| clean("its session token", &token)).transpose()?;
        let keys = AwsCredential {
            key_id: clean("its access key", &self.access_key_id)?,
            secret_key: self.secret_access_key.trim().to_owned(),
            token,
        };
        Ok(Fetched { keys: Arc::new(keys), expires })
    }
}

fn nonsense(whom: &str, what: &str) -> NoCredentials {
    NoCredentials::new(FailureKind::Permission, format!("unusable answer from {whom}: {what}"))
}

fn fixed(keys: &S3Keys) -> Fetched {
    let S3Keys { id, secret, token } = keys.clone();
    let keys = AwsCredential { key_id: id, secret_key: secret, token };
    Fetched { keys: Arc::new(keys), expires: None }
}

/// Reads a token from a file. It is read each time, because it changes at run time.
async fn token_of(variable: &str, file: &str) -> Result<String, NoCredentials> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let refused = |why: &dyn fmt::Display| {
        let what = format!("the token in {file} ({variable}) cannot be used: {why}");
        NoCredentials::new(FailureKind::Permission, what)
    };
    let token = match read {
        Ok(Ok(token)) => token,
        Ok(Err(error)) => return Err(refused(&error)),
        Err(error) => return Err(refused(&error)),
    };
    let token = token.trim();
    if token.is_empty() {
        return Err(refused(&"it is empty"));
    }
    text::header("it", token).map_err(|failure| refused(&failure))
}

fn address(variable: &str, text: &str) -> Result<Url, NoCredentials> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(|| {
        let what = format!("{variable} does not make an address: '{}'", text.escape_debug());
        NoCredentials::new(FailureKind::Usage, what)
    })
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}
