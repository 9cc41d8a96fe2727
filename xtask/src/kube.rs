//! `cargo xtask setup kube`: builds the Kubernetes programs of the tests, once, into the user's cache.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gateway_apiserver::PROGRAMS_VARIABLE;

use crate::{screen, workspace};

/// A program and the Go package it is built from.
struct Program {
    name: &'static str,
    package: &'static str,
}

/// The longest first: while it builds, the others' sources are compiled along.
const PROGRAMS: [Program; 5] = [
    Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
    Program { name: "kube-controller-manager", package: "k8s.io/kubernetes/cmd/kube-controller-manager" },
    Program { name: "kube-scheduler", package: "k8s.io/kubernetes/cmd/kube-scheduler" },
    Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl" },
    Program { name: "kwok", package: "sigs.k8s.io/kwok/cmd/kwok" },
];

/// How long one program may take; alone on two cores the first takes five minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long to wait for somebody else who builds.
const LOCK_LIMIT: Duration = Duration::from_secs(40 * 60);
/// The file that says a build is complete, and what its files were.
const CHECKSUMS: &str = "CHECKSUMS";

/// Builds what is not in the cache, or with `check` only says whether it is.
pub(crate) fn run(check: bool) -> Result<ExitCode> {
    let build = Build::plan()?;
    if build.cached()? {
        screen::good(&format!("Kubernetes {} is in {}", build.version, build.dir().display()));
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        screen::note(&format!("Kubernetes {}: `cargo xtask setup kube` builds it, once", build.version));
        return Ok(ExitCode::FAILURE);
    }
    build.make()?;
    run(true)
}

/// Builds what is not in the cache; silent when everything is, or when `$EIP_GATEWAY_KUBERNETES` names other programs.
pub(crate) fn ensure() -> Result<()> {
    if env::var_os(PROGRAMS_VARIABLE).is_some() {
        return Ok(());
    }
    let build = Build::plan()?;
    if build.cached()? { Ok(()) } else { build.make() }
}

/// What is to be built, and where it goes.
struct Build {
    cache: PathBuf,
    key: String,
    /// Of Kubernetes, `v1.36.4`.
    version: String,
}

impl Build {
    fn plan() -> Result<Self> {
        let go_mod = read("go.mod")?;
        let version = required(&go_mod, "k8s.io/kubernetes")
            .context("tests/apiserver/kubernetes/go.mod does not require k8s.io/kubernetes")?;
        let go = go_version(&go_mod)?;
        let mut key = checksum("sha256sum", &format!("{go_mod}{}{go}", read("go.sum")?))?;
        key.truncate(16);
        let cache =
            workspace::cache().context("neither $XDG_CACHE_HOME nor $HOME is set: set one of them")?;
        Ok(Self { cache: cache.join("kubernetes"), key, version })
    }

    fn dir(&self) -> PathBuf {
        self.cache.join(&self.key)
    }

    /// Whether everything is there and is what was built.
    fn cached(&self) -> Result<bool> {
        let Ok(recorded) = fs::read_to_string(self.dir().join(CHECKSUMS)) else { return Ok(false) };
        let whole = checksums(&self.dir()).is_ok_and(|found| found == recorded);
        if !whole {
            screen::note(&format!("{} is damaged and is built anew", self.dir().display()));
        }
        Ok(whole)
    }

    /// Builds in a folder of its own and puts that in place at once. Others wait and find it done.
    fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.cache).with_context(|| format!("making {}", self.cache.display()))?;
        let _lock = self.lock()?;
        if self.cached()? {
            return Ok(());
        }
        screen::title(&format!("Building Kubernetes {}, once: five to ten minutes", self.version));
        let partial = self.cache.join(format!(".{}.partial", self.key));
        remove(&partial)?;
        fs::create_dir(&partial).with_context(|| format!("making {}", partial.display()))?;
        for program in &PROGRAMS {
            self.build(program, &partial)?;
        }
        // The test library knows by them which checkout the programs are for.
        for file in ["go.mod", "go.sum"] {
            fs::write(partial.join(file), read(file)?)?;
        }
        fs::write(partial.join(CHECKSUMS), checksums(&partial)?)?;
        remove(&self.dir())?;
        fs::rename(&partial, self.dir()).with_context(|| format!("renaming {}", partial.display()))
    }

    fn lock(&self) -> Result<File> {
        let path = self.cache.join(".lock");
        let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let since = Instant::now();
        let mut progress = screen::Progress::default();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_LIMIT => {
                    progress.say("another process builds Kubernetes: waiting for it");
                    thread::sleep(Duration::from_millis(500));
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "another process has held {} for {LOCK_LIMIT:?}: see what it does with `fuser`, then try again",
                    path.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            }
        }
    }

    fn build(&self, program: &Program, partial: &Path) -> Result<()> {
        let Program { name, package } = program;
        let log = partial.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let limit = LIMIT.as_secs().to_string();
        // In the foreground, so that Ctrl-C reaches the build; its compilers end soon after it.
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--kill-after=30", &limit, "nice", "go", "build", "-trimpath", "-ldflags"])
            .arg(link_flags(&self.version))
            .arg("-o")
            .arg(partial.join(name))
            .arg(package)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let since = Instant::now();
        let mut child = go_environment(&mut command).spawn().context("starting `timeout`, of coreutils")?;
        let mut progress = screen::Progress::default();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let time = match since.elapsed().as_secs() / 60 {
                0 => String::new(),
                minutes => format!(", {minutes} min"),
            };
            progress.say(&format!("{name}{time}"));
            thread::sleep(Duration::from_millis(100));
        };
        drop(progress);
        let said = fs::read_to_string(&log).unwrap_or_default();
        ensure!(
            status.code() != Some(124),
            "{name} was not built within {LIMIT:?}: run `cargo xtask setup kube` again when the machine is less \
             busy, it goes on from where it was"
        );
        ensure!(status.success(), "building {name} failed ({status}); it said:\n{}", tail(&said));
        fs::remove_file(&log)?;
        screen::good(&format!("{name}, {:.0} s", since.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// The Go module that says which versions.
fn module() -> PathBuf {
    workspace::root().join("tests/apiserver/kubernetes")
}

fn read(file: &str) -> Result<String> {
    let path = module().join(file);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The version that a go.mod requires of a module.
fn required(go_mod: &str, module: &str) -> Option<String> {
    let mut lines = go_mod.lines().map(|line| line.trim().trim_start_matches("require "));
    lines.find_map(|line| line.strip_prefix(module)?.strip_prefix(' ').map(str::to_owned))
}

/// What Kubernetes' own release does, or `kubectl version` and `/version` say v0.0.0.
fn link_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let variable = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    [
        "-s -w".to_owned(),
        variable("gitVersion", version),
        variable("gitMajor", major),
        variable("gitMinor", minor),
    ]
    .concat()
}

/// In the module, with nothing of the user's settings that would change what comes out.
fn go_environment(command: &mut Command) -> &mut Command {
    for variable in ["GOOS", "GOARCH", "GOAMD64", "GOEXPERIMENT"] {
        command.env_remove(variable);
    }
    command
        .current_dir(module())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false -mod=readonly")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
}

/// What `go version` says, when that is new enough for the module.
fn go_version(go_mod: &str) -> Result<String> {
    let wanted = go_mod.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default().trim();
    let found = workspace::output(go_environment(Command::new("go").arg("version")));
    let remedy = format!(
        "building Kubernetes needs Go {wanted} or newer. Install it from your distribution if that has it (Debian 12's \
         golang is too old), or unpack Go's own archive and put its bin folder in the PATH; then run `cargo xtask \
         setup kube` again"
    );
    let Some(found) = found else { bail!("there is no `go` in the PATH: {remedy}") };
    let has = found.split(' ').nth(2).unwrap_or_default().trim_start_matches("go");
    ensure!(numbers(has) >= numbers(wanted), "this is Go {has}: {remedy}");
    Ok(found)
}

/// Of `1.27rc1` 1 and 27.
fn numbers(version: &str) -> Vec<u32> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    version.split('.').map(|part| digits(part).parse().unwrap_or(0)).collect()
}

/// One line for each program, as `cksum` prints it. It tells damage, and reads 400 MB in a tenth of a second.
fn checksums(dir: &Path) -> Result<String> {
    let mut command = Command::new("cksum");
    command.args(PROGRAMS.iter().map(|program| program.name)).current_dir(dir);
    workspace::output(&mut command).with_context(|| format!("computing checksums in {}", dir.display()))
}

fn checksum(tool: &str, text: &str) -> Result<String> {
    let mut child = Command::new(tool)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{tool}`, of coreutils"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_to_build_is_the_one_that_go_mod_requires() {
        assert_eq!(
            required("require k8s.io/kubernetes v1.36.4", "k8s.io/kubernetes"),
            Some("v1.36.4".into())
        );
        let block = "require (\n\tk8s.io/kubernetes-x v1.0.0\n\tk8s.io/kubernetes v1.36.4\n)";
        assert_eq!(required(block, "k8s.io/kubernetes"), Some("v1.36.4".into()));
        assert_eq!(required("module k8s.io/kubernetes", "k8s.io/kubernetes"), None);
        assert!(link_flags("v1.36.4").ends_with("gitMinor=36"));
    }

    #[test]
    fn versions_of_go_are_compared_by_number() {
        assert!(numbers("1.26.8") >= numbers("1.26.0"));
        assert!(numbers("1.9") < numbers("1.26.0"));
        assert!(numbers("1.27rc1") > numbers("1.19"));
    }
}
