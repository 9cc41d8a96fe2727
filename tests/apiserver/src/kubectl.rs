//! Talking to the API server, by kubectl in its network namespace.

use std::{
    io::{ErrorKind, Write},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Cluster, User, service::in_netns};

/// Longest call; for a longer wait see [`Cluster::words`].
const LIMIT_SECONDS: &str = "60";
/// What `timeout` exits with.
const TIMED_OUT: i32 = 124;

impl Cluster {
    /// Runs kubectl as the admin to its end and returns what it printed; a refusal is an error with its words.
    pub fn kubectl<S: AsRef<str>>(&self, args: &[S]) -> Result<String> {
        self.call(&self.admin, args, "")
    }

    /// As [`Cluster::kubectl`], as somebody else: to see what that user may do.
    pub fn kubectl_as<S: AsRef<str>>(&self, user: User<'_>, args: &[S]) -> Result<String> {
        self.call(&self.kubeconfig(user)?, args, "")
    }

    /// A kubectl command line to run in any namespace of the underlay with
    /// [`Lab::spawn`](gateway_lab::Lab::spawn), for example a watch.
    pub fn words<S: AsRef<str>>(&self, args: &[S]) -> Vec<String> {
        let mut words = vec![
            self.programs.path("kubectl").display().to_string(),
            format!("--kubeconfig={}", self.admin.display()),
            format!("--cache-dir={}", self.dir.join("cache").display()),
        ];
        words.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        words
    }

    /// `kubectl apply` of YAML or JSON, several documents if need be.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.call(&self.admin, &["apply", "--filename=-"], manifests)
    }

    /// Creates many objects by one call: what a kubectl costs to start is then paid once.
    pub fn create_all(&self, objects: &[Value]) -> Result<()> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let args = ["create", "--validate=false", "--filename=-", "--output=name"];
        self.call(&self.admin, &args, &list.to_string()).map(drop)
    }

    /// Creates an object and returns it as the server made it, with its `uid`.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let args = ["create", "--validate=false", "--filename=-", "--output=json"];
        let made = self.call(&self.admin, &args, &object.to_string())?;
        serde_json::from_str(&made).context("reading what kubectl created")
    }

    /// `kubectl get … --output=json`, for example `&["pod", "web", "--namespace=t"]`.
    pub fn get<S: AsRef<str>>(&self, what: &[S]) -> Result<Value> {
        let args = words_of(&["get", "--output=json"], what, &[]);
        serde_json::from_str(&self.kubectl(&args)?).context("reading what kubectl got")
    }

    /// Merges into an object, null removing a key (JSON merge patch, RFC 7396).
    pub fn patch<S: AsRef<str>>(&self, what: &[S], patch: &Value) -> Result<()> {
        self.kubectl(&words_of(&["patch"], what, &["--type=merge", "--patch", &patch.to_string()])).map(drop)
    }

    /// Merges into the status of an object that has one of its own, as a kubelet does for pods and nodes. Of a
    /// VirtualMachineInstance the status is part of the object: [`Cluster::patch`].
    pub fn patch_status<S: AsRef<str>>(&self, what: &[S], status: &Value) -> Result<()> {
        let patch = serde_json::json!({ "status": status }).to_string();
        let options = ["--subresource=status", "--type=merge", "--patch", &patch];
        self.kubectl(&words_of(&["patch"], what, &options)).map(drop)
    }

    /// Deletes and does not wait for a kubelet: the object is gone when this returns, unless a finalizer holds it.
    pub fn delete_now<S: AsRef<str>>(&self, what: &[S]) -> Result<()> {
        self.kubectl(&words_of(&["delete", "--grace-period=0", "--force", "--wait=false"], what, &[]))
            .map(drop)
    }

    /// Deletes and leaves the rest to the kubelet: a running pod stays, Terminating.
    pub fn delete<S: AsRef<str>>(&self, what: &[S]) -> Result<()> {
        self.kubectl(&words_of(&["delete", "--wait=false"], what, &[])).map(drop)
    }

    fn call<S: AsRef<str>>(&self, kubeconfig: &Path, args: &[S], input: &str) -> Result<String> {
        let mut command = in_netns(&self.netns, Path::new("timeout"));
        command
            .args(["--kill-after=5", LIMIT_SECONDS])
            .arg(self.programs.path("kubectl"))
            .args(args.iter().map(AsRef::as_ref))
            .env("KUBECONFIG", kubeconfig)
            .env("KUBECACHEDIR", self.dir.join("cache"));
        let said = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let output = feed(&mut command, input).with_context(|| format!("running `kubectl {said}`"))?;
        if output.status.code() == Some(TIMED_OUT) {
            bail!("`kubectl {said}` had no answer within {LIMIT_SECONDS} s: does the API server run?");
        }
        if !output.status.success() {
            bail!("`kubectl {said}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Writes from a thread of its own: kubectl prints while it still reads a long input.
fn feed(command: &mut Command, input: &str) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting nsenter")?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || match stdin.map(|mut stdin| stdin.write_all(input.as_bytes())) {
            // One that refuses the first line closes the pipe; its own complaint says more.
            Some(Err(error)) if error.kind() != ErrorKind::BrokenPipe => {
                eprintln!("writing to kubectl: {error}")
            }
            Some(_) | None => {}
        });
        Ok(child.wait_with_output()?)
    })
}

fn words_of<S: AsRef<str>>(before: &[&str], what: &[S], after: &[&str]) -> Vec<String> {
    let what = what.iter().map(AsRef::as_ref);
    before.iter().copied().chain(what).chain(after.iter().copied()).map(str::to_owned).collect()
}
