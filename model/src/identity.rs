//! The identity of an end of a flow, as far as it is known.

/// What is known of one field of an end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// It is unknown: nothing recorded it.
    #[default]
    Unknown,
    /// It is known that the end has no value: an address outside of the cluster has no pod.
    Nothing,
    /// It is this.
    Value(String),
}

impl Knowledge {
    /// Whether it is known, also if there is none.
    pub fn is_known(&self) -> bool {
        *self != Knowledge::Unknown
    }

    /// The value, if there is one.
    pub fn value(&self) -> Option<&str> {
        match self {
            Knowledge::Value(value) => Some(value),
            Knowledge::Unknown | Knowledge::Nothing => None,
        }
    }
}

/// The identity of one end of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its Kubernetes namespace.
    pub namespace: Knowledge,
    /// Its pod, `namespace/name`.
    pub pod: Knowledge,
    /// Its service, `namespace/name`.
    pub service: Knowledge,
    /// Its workload, `namespace/kind/name`.
    pub workload: Knowledge,
    /// Its node.
    pub node: Knowledge,
    /// The command name of its process.
    pub process: Knowledge,
}
