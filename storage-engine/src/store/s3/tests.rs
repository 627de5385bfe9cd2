//! What settings mean for the client, without a server.

use object_store::path::Path;
use object_store::signer::Signer;

use super::*;

/// Options of these variables and no others.
fn options(variables: &[(&str, &str)]) -> Result<S3Options, Failure> {
    S3Options::from_variables(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

/// The same with keys.
fn with_keys(variables: &[(&str, &str)]) -> Result<S3Options, Failure> {
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    options(&[&keys, variables].concat())
}

fn keys(options: &S3Options) -> Option<(&str, &str)> {
    match &options.credentials {
        Some(S3Credentials::Keys(keys) | S3Credentials::Profile { keys, .. }) => {
            Some((&keys.id, &keys.secret))
        }
        _ => None,
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> String {
    let failure = outcome.expect_err("refused");
    assert_eq!(failure.kind(), FailureKind::Usage, "{failure}");
    failure.to_string()
}

/// A home with the two files of AWS's tools.
struct Home(tempfile::TempDir);

impl Home {
    fn new(credentials: &str, config: &str) -> Home {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("credentials"), credentials).unwrap();
        std::fs::write(folder.join("config"), config).unwrap();
        Home(home)
    }

    fn options(&self, variables: &[(&str, &str)]) -> Result<S3Options, Failure> {
        options(&[&[("HOME", self.0.path().to_str().unwrap())], variables].concat())
    }
}

#[test]
fn metadata_service_is_used_only_if_allowed() {
    for not_allowed in [vec![], vec![("CAPSTAN_S3_METADATA", "0")]] {
        let failure = options(&not_allowed).unwrap().connect("packets").expect_err("no keys");
        assert_eq!(failure.kind(), FailureKind::Permission);
        assert!(failure.to_string().contains("AWS_ACCESS_KEY_ID"), "{failure}");
    }
    let allowed = options(&[("CAPSTAN_S3_METADATA", "1")]).unwrap();
    assert_eq!(allowed.credentials, Some(S3Credentials::Metadata { endpoint: None }));
    assert!(allowed.connect("packets").is_ok());
}

#[test]
fn incomplete_credentials_are_refused() {
    for (variable, wanted) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
        // The library would ask the metadata service instead.
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        ("CAPSTAN_S3_KMS_KEY", "CAPSTAN_S3_ENCRYPTION"),
        ("CAPSTAN_S3_CUSTOMER_KEY", "CAPSTAN_S3_ENCRYPTION"),
    ] {
        let words = refusal(options(&[(variable, "x")]));
        assert!(words.contains(variable) && words.contains(wanted), "{words}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let key = format!("{}g=", "hidden".repeat(7));
    let options = options(&[
        ("AWS_ACCESS_KEY_ID", "shown"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("AWS_SESSION_TOKEN", "hidden"),
        ("CAPSTAN_S3_ENCRYPTION", "sse-c"),
        ("CAPSTAN_S3_CUSTOMER_KEY", &key),
        ("CAPSTAN_S3_ENDPOINT", "https://127.0.0.1:9/"),
        ("AWS_ENDPOINT_URL", "http://other"),
    ])
    .unwrap();
    let shown = format!("{options:?}");
    assert!(shown.contains("shown") && !shown.contains("hidden"), "{shown}");
    assert_eq!(options.endpoint.as_deref(), Some("https://127.0.0.1:9/"));
    assert!(options.connect("packets").is_ok());
}

#[test]
fn credential_sources_have_the_documented_order() {
    let home = Home::new("[default]\naws_access_key_id = a\naws_secret_access_key = b\n", "");
    let all = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("HOME", home.0.path().to_str().unwrap()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token"),
        ("AWS_ROLE_ARN", "role"),
        ("AWS_ROLE_SESSION_NAME", "session"),
        ("AWS_ENDPOINT_URL_STS", "https://sts"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/path"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://agent"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "agent-token"),
        ("CAPSTAN_S3_METADATA", "1"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://metadata"),
    ];
    let from = |first: usize| {
        let found = options(&all[first..]).unwrap();
        assert!(found.connect("packets").is_ok());
        found
    };
    assert_eq!(keys(&from(0)), Some(("id", "secret")));
    assert_eq!(keys(&from(2)), Some(("a", "b")));
    let owned = str::to_owned;
    let web = S3Credentials::WebIdentity {
        token_file: owned("token"),
        role: owned("role"),
        session: Some(owned("session")),
        endpoint: Some(owned("https://sts")),
    };
    assert_eq!(from(3).credentials, Some(web));
    assert_eq!(from(7).credentials, Some(S3Credentials::Task { path: owned("/path") }));
    let pod = S3Credentials::Pod { url: owned("http://agent"), token_file: owned("agent-token") };
    assert_eq!(from(8).credentials, Some(pod));
    let metadata = S3Credentials::Metadata { endpoint: Some(owned("http://metadata")) };
    assert_eq!(from(10).credentials, Some(metadata));
}

#[test]
fn a_profile_is_read_from_its_file() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("credentials");
    let text = "[default]\naws_access_key_id = a\n\n[ other ]\n# words\naws_access_key_id=b\n\
                aws_secret_access_key = c=d\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let of = |profile| options(&[("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", profile)]);
    assert_eq!(keys(&of("other").unwrap()), Some(("b", "c=d")));
    assert_eq!(of("default").expect_err("no secret").kind(), FailureKind::Usage);
    let unnamed = options(&[("AWS_SHARED_CREDENTIALS_FILE", file)]).unwrap();
    assert_eq!(unnamed.credentials, None);
    let absent = of("third").expect_err("no such profile");
    assert_eq!(absent.kind(), FailureKind::NotFound);
    assert!(absent.to_string().contains("third") && absent.to_string().contains(file), "{absent}");
    let gone = options(&[("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"), ("AWS_PROFILE", "x")]);
    assert_eq!(gone.expect_err("no file").kind(), FailureKind::NotFound);
}

#[test]
fn profile_sets_region_endpoint_and_authorities() {
    let config = "[default]\nregion = eu-west-1\nca_bundle = /ca.pem\n\
                  [profile ceph]\nregion = eu-north-1\nendpoint_url = https://ceph\n\
                  aws_access_key_id = old\naws_secret_access_key = old\n\
                  [profile pod]\nrole_arn = arn\nweb_identity_token_file = /token\n\
                  [ceph]\nregion = not a profile\n";
    let credentials = "[ceph]\naws_access_key_id = id\naws_secret_access_key = secret\n";
    let home = Home::new(credentials, config);

    let ceph = home.options(&[("AWS_PROFILE", "ceph")]).unwrap();
    assert_eq!(keys(&ceph), Some(("id", "secret")));
    assert_eq!(ceph.region.as_deref(), Some("eu-north-1"));
    assert_eq!(ceph.endpoint.as_deref(), Some("https://ceph"));
    let pod = home.options(&[("AWS_PROFILE", "pod")]).unwrap();
    assert!(matches!(pod.credentials, Some(S3Credentials::WebIdentity { .. })), "{pod:?}");

    // Of the default profile too, and the environment wins.
    let default = home.options(&[]).unwrap();
    assert_eq!(default.region.as_deref(), Some("eu-west-1"));
    assert_eq!(default.ca_bundle.as_deref(), Some("/ca.pem"));
    let set = home
        .options(&[
            ("AWS_PROFILE", "ceph"),
            ("AWS_REGION", "here"),
            ("AWS_ENDPOINT_URL", "http://here"),
        ])
        .unwrap();
    assert_eq!(
        (set.region.as_deref(), set.endpoint.as_deref()),
        (Some("here"), Some("http://here"))
    );
}

#[test]
fn unsupported_profile_settings_are_reported() {
    for (setting, words) in [
        ("credential_process = /bin/keys", "credential_process"),
        ("sso_session = work", "SSO"),
        ("sso_start_url = https://x", "SSO"),
        ("role_arn = arn\nsource_profile = default", "source_profile"),
    ] {
        let config = format!("[profile work]\n{setting}\n[default]\n{setting}\n");
        let home = Home::new("", &config);
        let refused = refusal(home.options(&[("AWS_PROFILE", "work")]));
        assert!(refused.contains(words) && refused.contains("--profile work"), "{refused}");
        // Where nobody asked for it, it is said only if there is nothing else.
        let failure = home.options(&[]).unwrap().connect("packets").expect_err("no keys");
        assert_eq!(failure.kind(), FailureKind::Permission);
        assert!(failure.to_string().contains(words), "{failure}");
        let metadata = home.options(&[("CAPSTAN_S3_METADATA", "1")]).unwrap();
        assert!(metadata.connect("packets").is_ok());
    }
}

#[test]
fn encryption_setting_has_four_values() {
    let of = |way, variable, key| {
        with_keys(&[("CAPSTAN_S3_ENCRYPTION", way), (variable, key)])
            .map(|options| options.encryption.expect("encryption"))
    };
    let kms = |key: Option<&str>, dual| S3Encryption::Kms { key: key.map(str::to_owned), dual };
    assert_eq!(of("AES256", "", "").unwrap(), S3Encryption::Server);
    assert_eq!(of("aws:kms", "", "").unwrap(), kms(None, false));
    assert_eq!(of("aws:kms", "CAPSTAN_S3_KMS_KEY", "k").unwrap(), kms(Some("k"), false));
    assert_eq!(of("aws:kms:dsse", "CAPSTAN_S3_KMS_KEY", "k").unwrap(), kms(Some("k"), true));
    for wrong in ["aes256", "SSE-S3", "kms"] {
        assert!(refusal(of(wrong, "", "")).contains(wrong));
    }
    for wrong in ["", "c2hvcnQ=", "-0000000000000000000000000000000000000000000="] {
        let words = refusal(of("sse-c", "CAPSTAN_S3_CUSTOMER_KEY", wrong));
        assert!(words.contains("32 bytes in base64"), "{words}");
    }
    assert!(refusal(of("AES256", "CAPSTAN_S3_KMS_KEY", "k")).contains("aws:kms"));
}

#[test]
fn customer_key_requires_https() {
    let key = "0000000000000000000000000000000000000000000=";
    let of = |endpoint| {
        let sse = [("CAPSTAN_S3_ENCRYPTION", "sse-c"), ("CAPSTAN_S3_CUSTOMER_KEY", key)];
        let endpoint = [("CAPSTAN_S3_ENDPOINT", endpoint)];
        with_keys(&[&sse[..], &endpoint].concat()).unwrap().connect("packets")
    };
    assert!(refusal(of("http://ceph:7480")).contains("https://"));
    assert!(of("https://ceph:7443").is_ok());
    assert!(of("").is_ok());
}

/// Where the client would look for an object `a`.
async fn address(bucket: &str, variables: &[(&str, &str)]) -> Result<String, Failure> {
    let client = with_keys(variables)?.connect(bucket)?.client;
    let get = "GET".parse().expect("a method");
    let url = client.signed_url(get, &Path::from("a"), Duration::from_secs(1)).await.unwrap();
    Ok(url.as_str().split('?').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn bucket_is_addressed_by_path_or_host_name() {
    let ceph = ("CAPSTAN_S3_ENDPOINT", "https://ceph.lan:7443/");
    let (by_path, by_name) = (("CAPSTAN_S3_STYLE", "path"), ("CAPSTAN_S3_STYLE", "virtual"));
    let region = ("AWS_REGION", "eu-west-1");
    for (bucket, variables, expected) in [
        ("b", vec![ceph], "https://ceph.lan:7443/b/a"),
        ("b", vec![ceph, by_path], "https://ceph.lan:7443/b/a"),
        ("b", vec![ceph, by_name], "https://b.ceph.lan:7443/a"),
        ("b", vec![region], "https://b.s3.eu-west-1.amazonaws.com/a"),
        ("b", vec![region, by_path], "https://s3.eu-west-1.amazonaws.com/b/a"),
        ("b.c", vec![region], "https://s3.eu-west-1.amazonaws.com/b.c/a"),
        ("b", vec![], "https://b.s3.us-east-1.amazonaws.com/a"),
    ] {
        assert_eq!(address(bucket, &variables).await.unwrap(), expected);
    }
    let numbers = ("CAPSTAN_S3_ENDPOINT", "http://127.0.0.1:7480");
    assert!(refusal(address("b", &[numbers, by_name]).await).contains("a name"));
    assert!(refusal(with_keys(&[("CAPSTAN_S3_STYLE", "host")])).contains("'host'"));
}

#[test]
fn invalid_endpoint_is_refused() {
    for text in [
        "127.0.0.1:9000",
        "ftp://x",
        "http://",
        "http://x?y",
        "http://x#y",
        "http://user@x",
        "http://u:p@x",
    ] {
        assert!(refusal(endpoint(text)).contains(text));
    }
    assert_eq!(endpoint("https://s3.example/").unwrap().as_str(), "https://s3.example/");
}

#[test]
fn certificate_authorities_are_read_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for content in ["", "words"] {
        std::fs::write(path, content).unwrap();
        let bundle = with_keys(&[("AWS_CA_BUNDLE", path)]).unwrap();
        assert!(refusal(bundle.connect("packets")).contains(path));
    }
    let gone = with_keys(&[("AWS_CA_BUNDLE", "/nowhere/ca.pem")]).unwrap().connect("packets");
    assert_eq!(gone.expect_err("no file").kind(), FailureKind::NotFound);
}

#[test]
fn invalid_header_values_are_refused_by_name() {
    let kms = ("CAPSTAN_S3_ENCRYPTION", "aws:kms");
    for (variables, words) in [
        (
            vec![("AWS_ACCESS_KEY_ID", "i\nd"), ("AWS_SECRET_ACCESS_KEY", "s")],
            "access key of the environment",
        ),
        (
            vec![("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "s\u{1}")],
            "secret access key",
        ),
        (
            vec![
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("AWS_SESSION_TOKEN", "to\r\nken"),
            ],
            "session token",
        ),
        (
            vec![
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("AWS_REGION", "eu\nwest"),
            ],
            "AWS_REGION",
        ),
        (
            vec![("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "eü")],
            "AWS_REGION",
        ),
        (
            vec![
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                kms,
                ("CAPSTAN_S3_KMS_KEY", "k\ney"),
            ],
            "CAPSTAN_S3_KMS_KEY",
        ),
    ] {
        let refused = options(&variables).and_then(|options| options.connect("packets"));
        assert!(refusal(refused).contains(words), "{words}");
    }
    // A line break behind it is a habit of shells and files.
    let with_break = [
        ("AWS_ACCESS_KEY_ID", "id\n"),
        ("AWS_SECRET_ACCESS_KEY", " secret\n"),
        ("AWS_SESSION_TOKEN", "token\r\n"),
        ("AWS_REGION", "eu-west-1\n"),
        ("CAPSTAN_S3_ENDPOINT", "http://x:1\n"),
    ];
    let options = options(&with_break).unwrap();
    assert_eq!(keys(&options), Some(("id", "secret")));
    options.connect("packets").unwrap();
}
