//! Credentials that expire, are refused, or cannot stand in a header.

use std::sync::Arc;

use super::*;

/// Signs requests that end in `/creds` off to an agent, and takes only the newest token.
struct Issuer {
    server: Memory,
    newest: Arc<AtomicU64>,
    fetches: Arc<AtomicU64>,
}

impl Issuer {
    fn start(refusal: Fate) -> Issuer {
        let server = Memory::start();
        let (newest, fetches) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
        let (current, counted) = (Arc::clone(&newest), Arc::clone(&fetches));
        server.rule(move |request| {
            let token = format!("token-{}", current.load(Ordering::Relaxed));
            match request.path.as_str() {
                "/latest/api/token" => Fate::Instead(200, "t".to_owned()),
                "/latest/meta-data/iam/security-credentials/" => {
                    Fate::Instead(200, "r\n".to_owned())
                }
                "/latest/meta-data/iam/security-credentials/r" | "/creds" => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Fate::Instead(200, answer(&token))
                }
                "/sts" => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Fate::Instead(200, assumed(&token))
                }
                _ if request.headers.get("x-amz-security-token") == Some(&token) => Fate::Fair,
                _ => refusal.clone(),
            }
        });
        Issuer { server, newest, fetches }
    }

    fn expire(&self) {
        self.newest.fetch_add(1, Ordering::Relaxed);
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    async fn open(&self, credentials: S3Credentials) -> Result<Store, Failure> {
        let options = options(&self.server, credentials);
        let place = Place::connect(&PLACE.parse().unwrap(), &options, Access::Create)?;
        place.open_or_create("prod").await
    }
}

fn answer(token: &str) -> String {
    let keys = r#""AccessKeyId":"AK","SecretAccessKey":"SK","Expiration":"2100-01-01T00:00:00Z""#;
    format!("{{{keys},\"Token\":{}}}", serde_json::to_string(token).unwrap())
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
fn assumed(token: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>AK</AccessKeyId><SecretAccessKey>SK</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}

fn token_file(content: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

/// Every source that hands out credentials which expire.
fn sources(endpoint: &str, token_file: &str) -> Vec<S3Credentials> {
    let token_file = token_file.to_owned();
    vec![
        S3Credentials::Pod { url: format!("{endpoint}/creds"), token_file: token_file.clone() },
        S3Credentials::Metadata { endpoint: Some(endpoint.to_owned()) },
        S3Credentials::WebIdentity {
            token_file,
            role: "role".to_owned(),
            session: None,
            endpoint: Some(format!("{endpoint}/sts")),
        },
    ]
}

#[tokio::test]
async fn refused_credentials_are_renewed_once_for_all_requests() {
    let (_file, path) = token_file("whoami\n");
    let codes = [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (400, "InvalidToken")];
    let path = &path;
    let all = codes.into_iter().flat_map(|(status, code)| {
        (0..3).map(move |source| renewed(source, path, Fate::error(status, code)))
    });
    join_all(all).await;
}

async fn renewed(source: usize, token_file: &str, refusal: Fate) {
    let issuer = Issuer::start(refusal.clone());
    let source = sources(&issuer.server.endpoint(), token_file).swap_remove(source);
    let store = issuer.open(source.clone()).await.unwrap();
    store.put_new(&Path::from("data/x"), vec!["x".into()]).await.unwrap();
    assert_eq!(issuer.fetches(), 1, "{source:?}");
    issuer.expire();
    let name = Path::from("data/x");
    for read in join_all((0..16).map(|_| store.get(&name))).await {
        assert_eq!(read.unwrap_or_else(|e| panic!("{source:?} {refusal:?}: {e}")), "x");
    }
    assert_eq!(issuer.fetches(), 2, "{source:?}");
    // Every kind of request.
    issuer.expire();
    let created = store.create(&Path::from("log/1"), nonce().into()).await.unwrap();
    assert_eq!(created, Created::Created);
    issuer.expire();
    let listed: Vec<_> = store.list(&Path::from("log")).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    issuer.expire();
    store.delete(&Path::from("log/1")).await.unwrap();
    assert_eq!(issuer.fetches(), 5, "{source:?}");
}

#[tokio::test]
async fn refusal_of_renewed_credentials_is_reported() {
    let (_file, path) = token_file("whoami");
    let issuer = Issuer::start(Fate::error(400, "ExpiredToken"));
    let source = sources(&issuer.server.endpoint(), &path).swap_remove(0);
    let store = issuer.open(source).await.unwrap();
    let endpoint = issuer.server.endpoint();
    issuer.server.rule(move |request| match request.path.as_str() {
        "/creds" => Fate::Instead(200, answer("token-1")),
        _ => Fate::error(400, "ExpiredToken"),
    });
    issuer.server.asked();
    let format = names::format();
    let failures = join_all((0..16).map(|_| store.get(&format))).await;
    for failure in failures {
        let failure = failure.expect_err("refused");
        assert_eq!(failure.kind(), FailureKind::Permission);
        assert!(failure.to_string().contains("were renewed"), "{endpoint}: {failure}");
    }
    let asked = issuer.server.asked();
    let fetches = asked.iter().filter(|request| request.path == "/creds").count();
    assert!(fetches <= 3, "a storm of {fetches} fetches");
    assert!(asked.len() - fetches <= 32, "each is sent twice at most");
}

#[tokio::test]
async fn keys_of_the_environment_are_not_renewed() {
    let server = Memory::start();
    let store = made(&server, PLACE).await;
    server.rule(|_| Fate::error(400, "ExpiredToken"));
    server.asked();
    let failure = store.get(&names::format()).await.expect_err("expired");
    assert_eq!(failure.kind(), FailureKind::Permission);
    assert!(failure.to_string().contains("these credentials have expired"), "{failure}");
    assert_eq!(server.asked().len(), 1, "asking again does not help");
}

#[tokio::test]
async fn a_profile_is_read_again_when_its_keys_are_refused() {
    let server = Memory::start();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("credentials");
    let write = |id: &str| {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s\n");
        std::fs::write(&file, text).unwrap();
    };
    write("first");
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap().to_owned()),
        ("AWS_CONFIG_FILE", "/nowhere".to_owned()),
        ("AWS_ENDPOINT_URL", server.endpoint()),
    ];
    let s3 = S3Options::from_variables(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    });
    let options = Options { s3: s3.unwrap(), ..Options::default() };
    let store = Store::open_or_create(&PLACE.parse().unwrap(), "prod", &options).await.unwrap();
    server.rule(|request| match request.headers["authorization"].contains("Credential=second/") {
        true => Fate::Fair,
        false => Fate::error(403, "InvalidAccessKeyId"),
    });
    let failure = store.get(&names::format()).await.expect_err("nothing has changed");
    assert_eq!(failure.kind(), FailureKind::Permission, "{failure}");
    write("second");
    store.get(&names::format()).await.unwrap();
}

#[tokio::test]
async fn invalid_token_is_reported_without_a_panic() {
    let server = Memory::start();
    for content in ["who\nami", "who ami", "tökén", "a\u{1}b", "", "\n"] {
        let (_file, path) = token_file(content);
        for source in [0, 2] {
            let source = sources(&server.endpoint(), &path).swap_remove(source);
            let options = options(&server, source);
            let place = Place::connect(&PLACE.parse().unwrap(), &options, Access::Read).unwrap();
            let failure = place.hurried().open("prod").await.map(|_| ()).expect_err(content);
            assert_eq!(failure.kind(), FailureKind::Permission, "{failure}");
            let words = failure.to_string();
            assert!(words.contains(&path) && words.contains("_TOKEN_FILE"), "{words}");
            assert!(content.trim().is_empty() || !words.contains(content), "{words}");
        }
    }
    assert!(server.asked().is_empty(), "nothing is asked without credentials");
}

#[tokio::test]
async fn invalid_answers_of_a_credential_agent_are_refused() {
    let (_file, path) = token_file("whoami");
    let answers = [
        answer("tok\nen"),
        answer("tökén"),
        answer("token").replace("AK", "A\\nK"),
        answer("token").replace("2100-01-01T00:00:00Z", "soon"),
        answer("token").replace("2100-01-01T00:00:00Z", "-5m"),
        answer("token").replace("SK", ""),
        "<html>".to_owned(),
        "x".repeat(100_000),
    ];
    for said in answers {
        let server = Memory::start();
        let tell = said.clone();
        server.rule(move |request| match request.path.as_str() {
            "/creds" => Fate::Instead(200, tell.clone()),
            _ => Fate::Fair,
        });
        let source = sources(&server.endpoint(), &path).swap_remove(0);
        let place =
            Place::connect(&PLACE.parse().unwrap(), &options(&server, source), Access::Read);
        let opened = place.unwrap().hurried().open("prod").await.map(|_| ());
        let failure = opened.expect_err("no credentials");
        assert_eq!(failure.kind(), FailureKind::Permission, "{failure}");
        let words = failure.to_string();
        assert!(words.contains("unusable answer from the agent of EKS"), "{words}");
    }
}

#[tokio::test]
async fn failing_credential_agent_is_retried() {
    let (_file, path) = token_file("whoami");
    let issuer = Issuer::start(Fate::error(400, "ExpiredToken"));
    let mut fates = vec![Fate::Instead(500, String::new()), Fate::AnswerLost].into_iter();
    issuer.server.rule(move |request| match request.path.as_str() {
        "/creds" => fates.next().unwrap_or_else(|| Fate::Instead(200, answer("token-1"))),
        _ => Fate::Fair,
    });
    let source = sources(&issuer.server.endpoint(), &path).swap_remove(0);
    issuer.open(source).await.unwrap();
}
