//! The client of the watches, and what an error of it means.

use std::error::Error;
use std::path::PathBuf;

use kube::runtime::watcher;
use kube::{Client, core::Status};
use tokio::sync::Mutex;

use crate::cluster::{self, ClusterError};
use crate::desired::problem::Problem;

/// A client, made when it is first needed and anew when its credentials are refused.
pub(super) struct Connection {
    kubeconfig: Option<PathBuf>,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, client: Mutex::new(None) }
    }

    /// The client all watches share.
    pub(super) async fn client(&self) -> Result<Client, ClusterError> {
        let mut held = self.client.lock().await;
        if let Some(client) = &*held {
            return Ok(client.clone());
        }
        let client = cluster::client(self.kubeconfig.as_deref()).await?;
        Ok(held.insert(client).clone())
    }

    /// The next client reads its credentials anew.
    pub(super) async fn renew(&self) {
        *self.client.lock().await = None;
    }
}

/// What kind of trouble a failure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// No client can be made.
    Client,
    /// The API server does not answer.
    Unreachable,
    /// 401: expired or wrong credentials.
    Unauthorized,
    /// 403: not allowed.
    Forbidden,
    /// 404: not served.
    NotServed,
    /// 410: the watch is too old; a new list follows by itself.
    Gone,
    /// Any other answer.
    Refused,
}

/// A watch that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) message: String,
}

impl Failure {
    /// What an operator is told; `what` is watched.
    pub(super) fn problem(&self, what: &str) -> Problem {
        let (field, remedy) = match self.trouble {
            Trouble::Client => ("client", "until then the data path stays as it is; the agent tries again"),
            Trouble::Unreachable => {
                ("connection", "until it answers the data path stays as it is; the agent tries again")
            }
            Trouble::Unauthorized => {
                ("credentials", "renew the token or the kubeconfig; until then the data path stays as it is")
            }
            Trouble::Forbidden => (
                what,
                "allow the agent's role to list and watch them; until then what is known stays in force",
            ),
            Trouble::NotServed | Trouble::Gone | Trouble::Refused => {
                (what, "see the API server's log; what is known stays in force and the agent tries again")
            }
        };
        Problem::warning("API server", field, &*self.message, remedy)
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self { trouble: Trouble::Client, message: error.to_string() }
    }
}

impl From<watcher::Error> for Failure {
    fn from(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error.into(),
            watcher::Error::WatchError(status) => (&*status).into(),
            watcher::Error::NoResourceVersion => {
                Self { trouble: Trouble::Refused, message: error.to_string() }
            }
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        if let kube::Error::Api(status) = &error {
            return (&**status).into();
        }
        let mut cause: &dyn Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self { trouble: Trouble::Unreachable, message: format!("it cannot be reached: {cause}") }
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let trouble = match status.code {
            401 => Trouble::Unauthorized,
            403 => Trouble::Forbidden,
            404 => Trouble::NotServed,
            410 => Trouble::Gone,
            _ => Trouble::Refused,
        };
        Self { trouble, message: format!("it answers {}: {}", status.code, status.message.trim()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_apart_from_silence() {
        for (code, trouble, field) in [
            (401, Trouble::Unauthorized, "credentials"),
            (403, Trouble::Forbidden, "pods"),
            (404, Trouble::NotServed, "pods"),
            (410, Trouble::Gone, "pods"),
            (500, Trouble::Refused, "pods"),
        ] {
            let status = Status { code, message: "why".to_owned(), ..Status::default() };
            let failure = Failure::from(kube::Error::Api(Box::new(status)));
            assert_eq!(failure.trouble, trouble);
            assert_eq!(failure.problem("pods").field, field);
            assert_eq!(failure.message, format!("it answers {code}: why"));
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = Failure::from(kube::Error::Service(Box::new(refused)));
        assert_eq!(failure.trouble, Trouble::Unreachable);
        assert_eq!(failure.message, "it cannot be reached: connection refused");
    }
}
