use base::Hint;

/// Failures of several processes that work as one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launcher's variables contradict each other.
    #[error(transparent)]
    Launch(#[from] settings::LaunchError),
    /// The store or the group cannot be formed.
    #[error("rank {rank} of {world} cannot join the others at {place}: {source}")]
    Join {
        /// This process.
        rank: usize,
        /// Number of processes.
        world: usize,
        /// Host and port of the store.
        place: String,
        /// The engine's own words.
        source: libtorch_ext::Error,
    },
    /// Two processes do not run the same job.
    #[error("ranks {first} and {second} differ in {what}: {found}")]
    Mismatch {
        /// A rank.
        first: usize,
        /// Another one.
        second: usize,
        /// The setting that differs.
        what: &'static str,
        /// Both values.
        found: String,
    },
    /// Another process failed, or is not heard of any more.
    #[error("{0}")]
    Peer(String),
    /// An exchange failed, and no process said why.
    #[error("the exchange with other processes failed")]
    Exchange(#[source] libtorch_ext::Error),
    /// A process cannot be started.
    #[error("cannot start process {rank} of {world}: {source}")]
    Start {
        /// Its rank.
        rank: usize,
        /// Number of processes.
        world: usize,
        /// The system's own words.
        source: std::io::Error,
    },
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Launch(error) => vec![error.hint.clone()],
            Error::Join { .. } => vec![
                "all processes must reach this host and port within the time limit; a firewall may be between".into(),
                "GLOO_SOCKET_IFNAME names the network interface to use".into(),
            ],
            Error::Mismatch { .. } => vec!["start the same program with the same arguments on every machine".into()],
            _ => vec![],
        }
    }
}
