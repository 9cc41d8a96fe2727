//! The guest's initramfs: busybox, the modules that its root needs, and what to run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::package::Kernel;
use crate::workspace;

/// What the root is made of. In order: a module comes after those it needs.
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];

/// Writes the initramfs to `file`; `command` is the script that the guest runs. `work` is a folder of ours, for its parts.
pub(crate) fn write(kernel: &Kernel, command: &str, work: &Path, file: &Path) -> Result<()> {
    let root = work.join("initrd");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for dir in ["bin", "modules"] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let busybox = workspace::output(Command::new("sh").args(["-c", "command -v busybox"]));
    let busybox = busybox.context("busybox is not installed: `cargo xtask setup kernels`")?;
    fs::copy(&busybox, root.join("bin/busybox")).with_context(|| format!("copying {busybox}"))?;
    let mut order = String::new();
    for module in kernel.with_dependencies(&MODULES)? {
        order += &format!("{}\n", copy_module(&module, &root.join("modules"))?);
    }
    let modules = kernel.modules().display().to_string();
    for (name, text) in [
        ("init", include_str!("init.sh")),
        ("guest.sh", include_str!("guest.sh")),
        ("command.sh", command),
        ("order", &order),
        ("modules-dir", &modules),
    ] {
        fs::write(root.join(name), text).with_context(|| format!("writing {name} of the initramfs"))?;
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    pack(&root, file)
}

/// Copies a module, unpacked, and returns its name: busybox's insmod reads no compressed ones.
fn copy_module(module: &Path, to: &Path) -> Result<String> {
    let name = module.file_name().context("a module has a name")?.to_string_lossy();
    let Some(plain) = name.strip_suffix(".xz") else {
        fs::copy(module, to.join(&*name)).with_context(|| format!("copying {}", module.display()))?;
        return Ok(name.into_owned());
    };
    let output = Command::new("xz").arg("-dc").arg(module).output().context("starting `xz`, of xz-utils")?;
    ensure!(output.status.success(), "xz cannot unpack {}", module.display());
    fs::write(to.join(plain), output.stdout).with_context(|| format!("writing {plain}"))?;
    Ok(plain.to_owned())
}

fn pack(root: &Path, file: &Path) -> Result<()> {
    let target = fs::File::create(file).with_context(|| format!("writing {}", file.display()))?;
    let script = "find . | busybox cpio -o -H newc";
    let mut cpio = Command::new("sh");
    cpio.args(["-c", script]).current_dir(root).stdout(target).stderr(Stdio::null());
    workspace::run(&mut cpio)
}
