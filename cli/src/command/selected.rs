//! Options that select flows.

use capstan_model::{Failure, Network, Ports, Protocol, TimeRange};
use capstan_view::select::Selection;
use clap::builder::NonEmptyStringValueParser;

/// Which flows; every option may be repeated.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Selected {
    /// Address of one end, or a network such as 10.0.0.0/8; give it twice for both ends
    #[arg(long = "host", visible_alias = "ip", value_name = "ADDRESS")]
    hosts: Vec<Network>,
    /// Port of one end, or a range such as 8000-8999; give it twice for both ends
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<Ports>,
    /// Protocol label such as http, dns, tls; several mean any of them
    #[arg(long = "protocol", value_name = "NAME")]
    protocols: Vec<Protocol>,
    /// Kubernetes namespace of one end; a star at its beginning or end stands for any text, here and in
    /// the options below
    #[arg(long = "namespace", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespaces: Vec<String>,
    /// Pod of one end
    #[arg(long = "pod", value_name = "NAMESPACE/NAME", value_parser = NonEmptyStringValueParser::new())]
    pods: Vec<String>,
    /// Service of one end
    #[arg(long = "service", value_name = "NAMESPACE/NAME", value_parser = NonEmptyStringValueParser::new())]
    services: Vec<String>,
    /// Workload of one end
    #[arg(long = "workload", value_name = "NAMESPACE/KIND/NAME", value_parser = NonEmptyStringValueParser::new())]
    workloads: Vec<String>,
    /// Node of one end
    #[arg(long = "node", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    nodes: Vec<String>,
    /// TLS server name, such as *.example.com
    #[arg(long = "name", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
}

impl Selected {
    /// The packets of these flows in a range.
    ///
    /// # Errors
    /// Of kind `Usage`: no flow can be all of it.
    pub(super) fn selection(self, range: TimeRange) -> Result<Selection, Failure> {
        let Selected { hosts, ports, protocols, namespaces, pods, .. } = self;
        let selection = Selection {
            range,
            hosts,
            ports,
            protocols,
            namespaces,
            pods,
            services: self.services,
            workloads: self.workloads,
            nodes: self.nodes,
            names: self.names,
        };
        selection.check()?;
        Ok(selection)
    }
}
