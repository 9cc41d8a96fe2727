//! `cargo xtask setup`: installs what building, showing and testing need.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::unistd::Uid;

use crate::{
    fuzz, kernels, kube, screen,
    toolchain::{self, BpfRustc, LINKER_VERSION, RUSTC_REMEDY},
    workspace,
};

/// Install what is missing: system tools, a BPF-capable rustc, bpf-linker, cargo-fuzz, rustfmt and clippy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup             install what is missing (Debian and its relatives, as root)
  cargo xtask setup kube        build the Kubernetes programs of the tests, once (needs Go)
  cargo xtask setup kernels     install what boots other kernels in virtual machines
  cargo xtask setup --check     only say what is missing; exit code 1 when something is")]
pub(crate) struct Args {
    /// Something that only some tests need, instead.
    part: Option<Part>,
    /// Report and change nothing.
    #[arg(long)]
    check: bool,
}

/// What is set up only when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// kube-apiserver, its controllers, kubectl and kwok, built from source into the user's cache.
    Kube,
    /// QEMU, virtiofsd, busybox and xdp-tools, for the tests on other kernels.
    Kernels,
}

/// Programs we call, and the Debian package each is in.
const TOOLS: [(&str, &str); 25] = [
    ("arping", "iputils-arping"),
    ("bpftool", "bpftool"),
    ("c++", "g++"),
    ("cc", "gcc"),
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("mtr", "mtr-tiny"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("ovn-controller", "ovn-host"),
    ("ovn-nbctl", "ovn-common"),
    ("ovn-northd", "ovn-central"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ping", "iputils-ping"),
    ("prometheus", "prometheus"),
    ("setsid", "util-linux"),
    ("socat", "socat"),
    ("sysctl", "procps"),
    ("tcpdump", "tcpdump"),
    ("tracepath", "iputils-tracepath"),
    ("traceroute", "traceroute"),
    ("tshark", "tshark"),
];

/// Packages that give a BPF-capable rustc on Debian 12.
const BPF_RUSTC: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// What the benchmarks of the data path need besides: a compiler of C for BPF, of the LLVM that links ours if it can be had.
const CLANG: [&str; 2] = ["clang-22", "clang"];

/// What is not there yet.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    packages: BTreeSet<&'static str>,
    rustc: bool,
    linker: bool,
    fuzzer: bool,
    components: Vec<&'static str>,
}

impl Missing {
    /// Looks.
    pub(crate) fn find() -> Self {
        let packages =
            TOOLS.iter().filter(|(tool, _)| !installed(tool)).map(|(_, package)| *package).collect();
        let components = [("rustfmt", "fmt"), ("clippy", "clippy")];
        let absent = |verb: &str| workspace::output(workspace::cargo().args([verb, "--version"])).is_none();
        let mut missing = Self {
            packages,
            rustc: BpfRustc::find().is_err(),
            linker: toolchain::linker().is_none(),
            fuzzer: fuzz::TOOL.find().is_none(),
            components: components.iter().filter(|(_, verb)| absent(verb)).map(|(name, _)| *name).collect(),
        };
        if missing.rustc {
            missing.packages.extend(BPF_RUSTC);
        }
        if missing.linker && !Path::new(toolchain::LLVM_PREFIX).is_dir() {
            missing.packages.insert("llvm-22-dev");
        }
        missing
    }

    /// Whether nothing is.
    pub(crate) fn nothing(&self) -> bool {
        let is_tool_missing = self.rustc || self.linker || self.fuzzer;
        self.packages.is_empty() && !is_tool_missing && self.components.is_empty()
    }

    fn report(&self) {
        if !self.packages.is_empty() {
            screen::note(&format!("packages: {}", self.package_list()));
        }
        if self.rustc {
            screen::note("a rustc that compiles for BPF");
        }
        if self.linker {
            screen::note(&format!("bpf-linker {LINKER_VERSION} (built once, about two minutes)"));
        }
        if self.fuzzer {
            screen::note(&format!("cargo-fuzz {} (built once, about a minute)", fuzz::TOOL.version));
        }
        if !self.components.is_empty() {
            screen::note(&format!("rustup components: {}", self.components.join(", ")));
        }
    }

    fn package_list(&self) -> String {
        self.packages.iter().copied().collect::<Vec<_>>().join(" ")
    }
}

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.part {
        Some(Part::Kube) => return kube::run(args.check),
        Some(Part::Kernels) => return kernels(args.check),
        None => {}
    }
    let missing = Missing::find();
    if missing.nothing() {
        screen::good("everything needed is installed");
        return Ok(ExitCode::SUCCESS);
    }
    screen::title("Missing");
    missing.report();
    if args.check {
        screen::note("install it with `cargo xtask setup`");
        return Ok(ExitCode::FAILURE);
    }
    install(&missing)?;
    Ok(ExitCode::SUCCESS)
}

fn kernels(check: bool) -> Result<ExitCode> {
    let missing = kernels::missing();
    if missing.is_empty() {
        screen::good("what the tests on other kernels need is installed");
    } else if check {
        screen::note(&format!("packages: {}", missing.join(" ")));
        return Ok(ExitCode::FAILURE);
    } else {
        kernels::setup()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing, saying so; silent when nothing is.
pub(crate) fn ensure() -> Result<()> {
    let missing = Missing::find();
    if missing.nothing() {
        return Ok(());
    }
    screen::title("Setting up: something is missing");
    missing.report();
    install(&missing)
}

/// The compiler of C for BPF; installs it, and libbpf's headers, when it is missing.
pub(crate) fn ensure_clang() -> Result<&'static str> {
    let clang = || CLANG.into_iter().find(|clang| installed(clang));
    let mut missing = Missing::default();
    if clang().is_none() {
        missing.packages.insert(CLANG[usize::from(!apt_has(CLANG[0]))]);
    }
    if !Path::new("/usr/include/bpf/bpf_helpers.h").is_file() {
        missing.packages.insert("libbpf-dev");
    }
    if !missing.nothing() {
        screen::title("Setting up: the benchmark compares with C");
        missing.report();
        apt(&missing)?;
    }
    clang().context("the benchmark compares with C, which clang compiles: install clang and libbpf-dev")
}

fn install(missing: &Missing) -> Result<()> {
    if !missing.packages.is_empty() {
        apt(missing)?;
    }
    if BpfRustc::find().is_err() {
        bail!("{RUSTC_REMEDY}");
    }
    if !missing.components.is_empty() {
        let mut rustup = Command::new("rustup");
        workspace::run(rustup.args(["component", "add"]).args(&missing.components)).with_context(|| {
            format!("install {} of the Rust toolchain in use and come back", missing.components.join(" and "))
        })?;
    }
    if missing.linker {
        screen::title(&format!("Building bpf-linker {LINKER_VERSION}, once"));
        toolchain::install_linker()?;
    }
    if missing.fuzzer {
        screen::title(&format!("Building cargo-fuzz {}, once", fuzz::TOOL.version));
        fuzz::TOOL.install(|_| {})?;
    }
    let left = Missing::find();
    if !left.nothing() {
        left.report();
        bail!("the above is still missing after installing: look at the messages before it");
    }
    screen::good("everything needed is installed");
    Ok(())
}

fn apt(missing: &Missing) -> Result<()> {
    let list = missing.package_list();
    if !like_debian(&fs::read_to_string("/etc/os-release").unwrap_or_default()) {
        bail!(
            "this distribution has no apt, so install these yourself (names as in Debian): {list}\n{}",
            if missing.rustc { RUSTC_REMEDY } else { "then run `cargo xtask setup` again" }
        );
    }
    if !Uid::effective().is_root() {
        bail!("installing packages needs root: sudo apt-get install --no-install-recommends {list}");
    }
    // A release without Debian 12's rustc-web still gets everything else, and then the other way to a rustc.
    let packages: Vec<_> = missing.packages.iter().copied().collect();
    install_packages(&packages)
}

/// Installs those of the packages that this release has. Needs root.
pub(crate) fn install_packages(packages: &[&str]) -> Result<()> {
    screen::title("Installing packages");
    let mut update = Command::new("apt-get");
    workspace::run(update.args(["update", "-qq", "-o", LOCK_TIMEOUT]))?;
    let available = packages.iter().filter(|package| apt_has(package));
    let _held = NoServices::begin()?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "-o", "Dpkg::Use-Pty=0", "-o", LOCK_TIMEOUT]);
    install.arg("--no-install-recommends").args(available);
    workspace::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Seconds to wait for another apt.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

fn apt_has(package: &str) -> bool {
    let mut cache = Command::new("apt-cache");
    workspace::output(cache.args(["show", "--quiet=0", package])).is_some_and(|text| !text.is_empty())
}

fn like_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .any(|ids| ids.trim_matches('"').split(' ').any(|id| id == "debian"))
}

/// Whether a program is in the path or where administrators' programs are.
pub(crate) fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

/// Keeps packages from starting their daemons: we want the programs of Open vSwitch and OVN, not their services.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        // There is one already: the machine has a policy of its own.
        let Ok(mut file) = file else { return Ok(Self { ours: false }) };
        file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("writing {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            screen::bad(&format!("remove {POLICY} by hand, it keeps services from starting: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_relatives_have_apt() {
        assert!(like_debian("NAME=\"Debian\"\nID=debian\n"));
        assert!(like_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(like_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!like_debian("ID=fedora\nVERSION_ID=41\n"));
    }
}
