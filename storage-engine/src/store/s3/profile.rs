//! Profiles: the settings files of AWS's tools, `~/.aws/credentials` and `~/.aws/config`.
//!
//! Of a profile, the keys, web identity, region, endpoint and certificate authorities are used. Settings that run
//! another program or require an interactive login are refused with an explanation: a recorder runs unattended for
//! months.

use std::collections::BTreeMap;

use capstan_model::{Failure, FailureKind};

use super::keys::{S3Keys, usage};

/// A profile's name and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFile {
    name: String,
    named: bool,
    /// For messages.
    shown: String,
    config: Option<String>,
    credentials: Option<String>,
}

impl ProfileFile {
    /// The profile that `AWS_PROFILE` names, or `default`.
    fn find(get: &impl Fn(&str) -> Option<String>) -> ProfileFile {
        let named = get("AWS_PROFILE");
        let at_home = |name| get("HOME").map(|home| format!("{home}/.aws/{name}"));
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        ProfileFile {
            shown: format!("profile '{name}'"),
            name,
            named: named.is_some(),
            config: get("AWS_CONFIG_FILE").or_else(|| at_home("config")),
            credentials: get("AWS_SHARED_CREDENTIALS_FILE").or_else(|| at_home("credentials")),
        }
    }

    /// For messages.
    pub(super) fn described(&self) -> &str {
        &self.shown
    }

    /// The current keys in the files.
    pub(super) fn read_keys(&self) -> Result<S3Keys, Failure> {
        match Profile::of(self.clone())?.credentials()? {
            Some(ProfileCredentials::Keys { keys, .. }) => keys.checked(self.described()),
            _ => Err(usage(format!("{} no longer has access keys", self.shown))),
        }
    }
}

/// Credentials that a profile may have.
#[derive(Debug)]
pub(super) enum ProfileCredentials {
    /// Keys, from these files.
    Keys { keys: S3Keys, file: ProfileFile },
    /// A signed token; see [`S3Credentials::WebIdentity`](super::S3Credentials::WebIdentity).
    WebIdentity { token_file: String, role: String, session: Option<String> },
}

/// A profile, merged from both files.
#[derive(Debug)]
pub(super) struct Profile {
    file: ProfileFile,
    /// The searched files, for messages.
    places: String,
    /// `None` if no file has the profile.
    settings: Option<BTreeMap<String, String>>,
}

impl Profile {
    /// Reads the profile that `AWS_PROFILE` names, or `default`, if there is one.
    pub(super) fn read(get: &impl Fn(&str) -> Option<String>) -> Result<Profile, Failure> {
        Profile::of(ProfileFile::find(get))
    }

    fn of(looked_for: ProfileFile) -> Result<Profile, Failure> {
        let name = &looked_for.name;
        // In this order: keys of the second file win.
        let files = [(&looked_for.config, true), (&looked_for.credentials, false)];
        let mut settings: Option<BTreeMap<String, String>> = None;
        let mut places = Vec::new();
        for (file, is_config) in files {
            let Some(file) = file else { continue };
            match std::fs::read_to_string(file) {
                Ok(text) => {
                    let section = match name.as_str() {
                        "default" => name.clone(),
                        _ if is_config => format!("profile {name}"),
                        _ => name.clone(),
                    };
                    if let Some(found) = section_of(&text, &section) {
                        settings.get_or_insert_default().extend(found);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) if looked_for.named => {
                    return Err(Failure::io(format!("read {file} for AWS_PROFILE"), error));
                }
                // No profile was requested: an unreadable file is no error.
                Err(_) => {}
            }
            places.push(file.as_str());
        }
        let places = places.join(" and ");
        Ok(Profile { file: looked_for, places, settings })
    }

    /// Whether the user requested it explicitly.
    pub(super) fn is_named(&self) -> bool {
        self.file.named
    }

    /// A setting, if it is not empty.
    pub(super) fn get(&self, setting: &str) -> Option<String> {
        self.settings.as_ref()?.get(setting).filter(|value| !value.is_empty()).cloned()
    }

    /// The credentials of the profile. Fails if it has unusable ones, and if the user named it and it has none.
    pub(super) fn credentials(&self) -> Result<Option<ProfileCredentials>, Failure> {
        if let Some(role) = self.get("role_arn") {
            let token_file = self.get("web_identity_token_file").ok_or_else(|| {
                self.refused("takes a role with another profile's keys (role_arn, source_profile)")
            })?;
            let session = self.get("role_session_name");
            return Ok(Some(ProfileCredentials::WebIdentity { token_file, role, session }));
        }
        if let Some((id, secret)) =
            self.get("aws_access_key_id").zip(self.get("aws_secret_access_key"))
        {
            let token = self.get("aws_session_token");
            let (keys, file) = (S3Keys { id, secret, token }, self.file.clone());
            return Ok(Some(ProfileCredentials::Keys { keys, file }));
        }
        if self.get("sso_session").or_else(|| self.get("sso_start_url")).is_some() {
            return Err(self.refused("logs in by a browser (SSO)"));
        }
        if self.get("credential_process").is_some() {
            return Err(self.refused("asks another program for keys (credential_process)"));
        }
        match self.settings {
            _ if !self.file.named => Ok(None),
            None => Err(Failure::new(
                FailureKind::NotFound,
                format!("there is no profile '{}' in {}", self.file.name, self.places),
            )),
            Some(_) => Err(usage(format!(
                "profile '{}' of {} has no aws_access_key_id and aws_secret_access_key",
                self.file.name, self.places
            ))),
        }
    }

    fn refused(&self, what: &str) -> Failure {
        usage(format!(
            "profile '{}' {what}, which Capstan does not support: set access keys, for example \
             with: eval \"$(aws configure export-credentials --profile {0} --format env)\"",
            self.file.name
        ))
    }
}

/// The settings of one section, if the text has it.
fn section_of(text: &str, section: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    // Settings of one service are indented below its name: they are not the profile's own.
    let mut nested = false;
    for line in text.lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            inside = name.split_whitespace().eq(section.split_whitespace());
            nested = false;
            if inside {
                found.get_or_insert_default();
            }
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            let value = [" #", " ;"].iter().fold(value, |value, comment| {
                value.split_once(comment).map_or(value, |(value, _)| value)
            });
            if indented && nested {
                continue;
            }
            nested = value.trim().is_empty();
            if let Some(found) = &mut found {
                found.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_section_ends_at_the_next_and_excludes_nested_settings() {
        let text = "region = none\n[default]\nregion=a\n# [profile x]\n[ profile   x ] ; words\n\
                    Region = eu-west-1 # near us\ns3 =\n  region = nested\n\tendpoint_url = nested\n\
                    output = json\n  ca_bundle = indented\n[profile y]\nregion = b\n[profile x]\nlater = yes\n";
        let found = section_of(text, "profile x").expect("it is there");
        let mut found: Vec<_> =
            found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("ca_bundle", "indented"),
                ("later", "yes"),
                ("output", "json"),
                ("region", "eu-west-1"),
                ("s3", ""),
            ]
        );
        assert_eq!(section_of(text, "profile z"), None);
        assert_eq!(section_of("[z]", "z"), Some(BTreeMap::new()));
    }
}
