//! `cargo xtask kernels`: a command on another kernel, in a virtual machine; and what `cargo xtask test kernels` runs there.

use std::{env, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;

use crate::{screen, setup};

mod initrd;
pub(crate) mod matrix;
mod package;
mod vm;

use package::{Kernel, Series};

/// Run a command on Debian's kernels, in virtual machines: this machine's files, read-only under a layer that is thrown
/// away.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask kernels                                     which kernels, and that they boot
  cargo xtask kernels --kernel 6.1 -- uname -a
  cargo xtask kernels --kernel 6.12 -- bpftool prog loadall target/ebpf/gateway-ebpf /sys/fs/bpf/x
  cargo xtask kernels --kernel 6.1 -- sh -c 'modprobe geneve && ip link add g type geneve external && ip link'
  cargo xtask test kernels                                the tests that are run on them")]
pub(crate) struct Args {
    /// Only this kernel.
    #[arg(long, value_enum)]
    kernel: Option<Series>,
    /// How long the command may take, seconds.
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// The command; run as root in this folder. A change of a file is gone with the virtual machine.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Carries the verb out: the exit code is that of the first command that failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let usual = ["uname".to_owned(), "-srv".to_owned()];
    let words = if args.command.is_empty() { &usual[..] } else { &args.command };
    let here = env::current_dir().context("finding the current folder")?;
    let script = format!("cd {} && exec {}\n", quoted(&here.to_string_lossy()), quoted_words(words));
    let mut worst = 0;
    for kernel in kernels(args.kernel)? {
        screen::title(&format!("── {} ", kernel.release));
        let limit = Duration::from_secs(args.limit);
        let code = vm::run(&kernel, &script, limit, &mut |line| screen::line(line))?;
        worst = if worst == 0 { code } else { worst };
    }
    Ok(ExitCode::from(worst))
}

/// The kernels, and all that is needed to boot them.
fn kernels(only: Option<Series>) -> Result<Vec<Kernel>> {
    ensure!(Uid::effective().is_root(), "sharing this machine's files with a guest needs root: use sudo");
    ensure!(cfg!(target_arch = "x86_64"), "the kernels are those of x86-64, and this machine is another");
    setup()?;
    let chosen = Series::ALL.into_iter().filter(|series| only.is_none_or(|only| only == *series));
    chosen.map(Kernel::get).collect()
}

/// Programs that are called, and the Debian packages each is in.
const TOOLS: [(&str, &str); 6] = [
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xdpdump", "xdp-tools"),
    ("xz", "xz-utils"),
];

/// Packages that are missing.
pub(crate) fn missing() -> Vec<&'static str> {
    let mut missing: Vec<_> =
        TOOLS.iter().filter(|(tool, _)| !setup::installed(tool)).map(|(_, package)| *package).collect();
    if vm::virtiofsd().is_none() {
        // QEMU's own in Debian 12, a package of its own later.
        missing.extend(["qemu-system-common", "virtiofsd"]);
    }
    missing
}

/// Installs what is missing; silent when nothing is.
pub(crate) fn setup() -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    setup::install_packages(&packages)?;
    let left = missing();
    ensure!(left.is_empty(), "still missing after installing: {}", left.join(" "));
    Ok(())
}

/// Words as one line for `sh`.
fn quoted_words(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        let words = ["sh", "-c", "echo 'a b' \"$X\""].map(ToOwned::to_owned);
        assert_eq!(quoted_words(&words), r#"'sh' '-c' 'echo '\''a b'\'' "$X"'"#);
    }
}
