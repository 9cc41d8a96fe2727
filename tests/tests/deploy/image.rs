//! What the Dockerfile makes, as far as that can be seen without Docker: the programs run on the files it collects.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gateway_tests::scene::agent;

use crate::cluster::deploy;

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

#[test]
fn agent_and_nft_run_on_the_files_of_the_image_and_there_is_no_shell() -> Result<()> {
    let root = tempfile::tempdir()?;
    let built = tempfile::tempdir()?;
    let program = built.path().join("gateway-agent");
    std::fs::copy(agent()?, &program)?;
    let nft = output(Command::new("sh").args(["-c", "command -v nft"]))?;
    output(Command::new("sh").arg(deploy("rootfs.sh")).arg(root.path()).arg(program).arg(nft.trim()))?;
    let inside = |words: &[&str]| {
        output(Command::new("unshare").args(["--net", "chroot"]).arg(root.path()).args(words))
    };
    let version = inside(&["/usr/sbin/gateway-agent", "--version"])?;
    ensure!(version.starts_with("gateway-agent "), "{version}");
    let table = "add table ip t; add map ip t m { type ipv4_addr : ipv4_addr; }; \
                 add chain ip t c { type nat hook output priority -101; }; \
                 add rule ip t c dnat to ip daddr map @m";
    let script = format!("chroot $0 nft '{table}' && chroot $0 nft list ruleset");
    let listed = output(Command::new("unshare").args(["--net", "sh", "-c", &script]).arg(root.path()))?;
    ensure!(listed.contains("dnat to ip daddr map @m"), "{listed}");
    ensure!(inside(&["/usr/sbin/nft", "-j", "list", "tables"])?.contains("nftables"));
    for absent in ["bin", "usr/bin", "lib/apt"] {
        ensure!(!root.path().join(absent).exists(), "{absent} is in the image");
    }
    let programs = std::fs::read_dir(root.path().join("usr/sbin"))?.count();
    ensure!(programs == 2, "{programs} programs");
    Ok(())
}

#[test]
fn the_dockerfile_and_the_set_up_use_the_same_tools() -> Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(checkout.join(path)).with_context(|| path.to_owned());
    let (docker, set_up) = (read("deploy/Dockerfile")?, read("xtask/src/toolchain.rs")?);
    let linker = set_up.lines().find(|line| line.contains("const LINKER_VERSION")).context("a version")?;
    let linker = linker.split('"').nth(1).context("in quotes")?;
    ensure!(docker.matches(&format!("bpf-linker --version {linker} ")).count() == 1, "bpf-linker {linker}");
    ensure!(docker.contains("ENV XDG_CACHE_HOME=/cache\n"));
    ensure!(docker.contains(&format!("--root /cache/eip-gateway/tools/bpf-linker-{linker}\n")));
    for package in read("xtask/src/setup.rs")?
        .lines()
        .find(|line| line.contains("const BPF_RUSTC"))
        .context("packages")?
        .split('"')
        .skip(1)
        .step_by(2)
    {
        ensure!(docker.contains(package), "{package}");
    }
    let rust = read("Cargo.toml")?;
    let rust = rust.lines().find_map(|line| line.strip_prefix("rust-version = ")).context("rust-version")?;
    ensure!(docker.contains(&format!("FROM rust:{}-", rust.trim_matches('"'))), "rust {rust}");
    Ok(())
}
