//! Fields of a later version. A version that rolls up writes them into manifests with the rest of the record.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The fields of a record that this version does not know, as they were read. For a field with `#[serde(flatten)]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnknownFields(Map<String, Value>);
