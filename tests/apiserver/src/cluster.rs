//! The handle of a cluster that runs in a lab.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use gateway_lab::{Lab, plan::API_SERVER};

use crate::{
    components,
    pki::Pki,
    programs::{self, Programs},
    service::Service,
};

/// How long a program may take to be ready; on a machine that is busy building, kube-apiserver needs 10 s.
const READY: Duration = Duration::from_secs(60);

/// Hears what is being waited for, and may give up by an error.
pub type Progress<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// What runs besides etcd and kube-apiserver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Deployments, DaemonSets, ServiceAccounts of namespaces, garbage collection.
    pub controller_manager: bool,
    /// Pods without a node get one.
    pub scheduler: bool,
    /// A kubelet for the nodes annotated `kwok.x-k8s.io/node=fake`.
    pub kwok: bool,
}

impl Options {
    /// Everything, so that a Deployment runs by itself.
    pub fn all() -> Self {
        Self { controller_manager: true, scheduler: true, kwok: true }
    }
}

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User<'a> {
    /// Group `system:masters`, which may do everything.
    Admin,
    /// A client certificate for that user and group, such as `system:node:worker1` of `system:nodes`.
    Certificate {
        /// Its common name.
        user: &'a str,
        /// Its organization.
        group: &'a str,
    },
    /// A token of an existing ServiceAccount, good for an hour; a fresh one at each call.
    ServiceAccount {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
}

/// A running cluster. Everything it started ends when it is dropped, and its files go.
///
/// Drop it before its lab; the other way round the lab ends its processes and it only reaps them.
pub struct Cluster {
    pub(crate) netns: String,
    pub(crate) dir: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) options: Options,
    pub(crate) admin: PathBuf,
    pki: Pki,
    running: Mutex<Running>,
}

/// Dropped in this order.
#[derive(Default)]
struct Running {
    controllers: Vec<Service>,
    api_server: Option<Service>,
    etcd: Option<Service>,
}

impl Cluster {
    /// Starts a cluster in the namespace `apiserver` of a lab that is up, and returns once it is ready. Its nodes
    /// reach it at `https://172.18.0.10:6443`. Nothing is in it yet: see [`Cluster::seed_lab`].
    pub fn start(lab: &Lab, options: &Options) -> Result<Self> {
        Self::start_with(lab, options, &mut |_| Ok(()))
    }

    /// As [`Cluster::start`]; `progress` hears what is waited for, repeatedly, and may give up by an error.
    pub fn start_with(lab: &Lab, options: &Options, progress: &mut Progress<'_>) -> Result<Self> {
        let programs = Programs::find()?;
        let dir = lab.dir().join(API_SERVER);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                "{} exists: this lab has a cluster, or had one whose process was killed; then take the lab down with \
                 `cargo xtask lab down`",
                dir.display()
            ),
            made => made.with_context(|| format!("making {}", dir.display()))?,
        }
        let logs = dir.join("logs");
        fs::create_dir(&logs).with_context(|| format!("making {}", logs.display()))?;
        let pki = Pki::create(&dir.join("pki"))?;
        let admin = pki.certificate_kubeconfig("admin", "system:masters")?;
        let running = Mutex::default();
        let netns = lab.netns(API_SERVER)?;
        let cluster = Self { netns, dir, programs, options: *options, admin, pki, running };
        // From here on an error drops the handle and with it what has been started.
        cluster.start_etcd(progress)?;
        cluster.start_api_server_with(progress)?;
        cluster.start_controllers(progress)?;
        Ok(cluster)
    }

    /// Starts the API server again after [`Cluster::stop_api_server`], with the data it had, and returns once ready.
    pub fn start_api_server(&self) -> Result<()> {
        self.start_api_server_with(&mut |_| Ok(()))
    }

    fn start_api_server_with(&self, progress: &mut Progress<'_>) -> Result<()> {
        let mut running = self.running();
        ensure!(running.api_server.is_none(), "the API server runs already: stop it first");
        let program = self.programs.path("kube-apiserver");
        let mut service = self.service(&program, &components::api_server(&self.pki))?;
        service.wait_until(READY, |_| {
            progress("waiting for kube-apiserver")?;
            Ok(self.healthy("/readyz", None))
        })?;
        running.api_server = Some(service);
        Ok(())
    }

    /// Ends the API server as a shutdown of its machine would; etcd keeps running and keeps the data. Controllers
    /// that run retry until it is there again.
    pub fn stop_api_server(&self) -> Result<()> {
        self.take_api_server()?.stop()
    }

    /// Kills the API server, so that it says goodbye to nobody.
    pub fn kill_api_server(&self) -> Result<()> {
        self.take_api_server().map(drop)
    }

    fn take_api_server(&self) -> Result<Service> {
        self.running().api_server.take().context("the API server does not run: start it first")
    }

    /// The path of a kubeconfig for that user, good in every namespace of the underlay. It goes with the cluster.
    pub fn kubeconfig(&self, user: User<'_>) -> Result<PathBuf> {
        match user {
            User::Admin => Ok(self.admin.clone()),
            User::Certificate { user, group } => self.pki.certificate_kubeconfig(user, group),
            User::ServiceAccount { namespace, name } => {
                let token =
                    self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=1h"])?;
                self.pki.token_kubeconfig(namespace, name, &token)
            }
        }
    }

    /// Everything a program (`kube-apiserver`, `etcd`, …) has logged.
    pub fn log(&self, program: &str) -> Result<String> {
        let path = self.log_path(Path::new(program));
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Pids of what runs.
    pub fn pids(&self) -> Vec<u32> {
        let running = self.running();
        let services = running.etcd.iter().chain(&running.api_server).chain(&running.controllers);
        services.map(Service::pid).collect()
    }

    fn start_etcd(&self, progress: &mut Progress<'_>) -> Result<()> {
        let mut etcd = self.service(programs::etcd()?, &components::etcd(&self.dir.join("etcd")))?;
        etcd.wait_until(READY, |etcd| {
            progress("waiting for etcd")?;
            Ok(etcd.log().contains(components::ETCD_READY))
        })?;
        self.running().etcd = Some(etcd);
        Ok(())
    }

    fn start_controllers(&self, progress: &mut Progress<'_>) -> Result<()> {
        let start = |program: &str, args: &[String]| {
            let service = self.service(&self.programs.path(program), args)?;
            self.running().controllers.push(service);
            anyhow::Ok(())
        };
        let mut awaited = Vec::new();
        if self.options.controller_manager {
            start("kube-controller-manager", &components::controller_manager(&self.pki, &self.admin))?;
            awaited.push(Some(components::CONTROLLER_MANAGER_HEALTH));
        }
        if self.options.scheduler {
            start("kube-scheduler", &components::scheduler(&self.admin))?;
            awaited.push(Some(components::SCHEDULER_HEALTH));
        }
        if self.options.kwok {
            let stages = self.dir.join("kwok.yaml");
            fs::write(&stages, include_str!("kwok.yaml"))
                .with_context(|| format!("writing {}", stages.display()))?;
            start("kwok", &components::kwok(&self.admin, &stages))?;
            awaited.push(None);
        }
        for (service, server) in self.running().controllers.iter_mut().zip(awaited) {
            // kwok has no port by default, and works on what it finds when it comes.
            if let Some(server) = server {
                service.wait_until(READY, |_| {
                    progress("waiting for the controllers")?;
                    Ok(self.healthy("/healthz", Some(server)))
                })?;
            }
        }
        Ok(())
    }

    /// Whether the API server, or another one in its namespace, answers well.
    fn healthy(&self, path: &str, server: Option<&str>) -> bool {
        let mut args = vec!["get", "--raw", path];
        args.extend(server.iter().flat_map(|server| ["--server", server, "--insecure-skip-tls-verify"]));
        self.kubectl(&args).is_ok()
    }

    fn service(&self, program: &Path, args: &[String]) -> Result<Service> {
        Service::start(&self.netns, program, args, &self.log_path(program))
    }

    fn log_path(&self, program: &Path) -> PathBuf {
        let name = program.file_name().unwrap_or(program.as_os_str());
        self.dir.join("logs").join(Path::new(name).with_extension("log"))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        *self.running() = Running::default();
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("warning: removing {}: {error}", self.dir.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}
