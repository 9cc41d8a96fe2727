//! A virtual machine with the host's root, read-only, under a layer that is gone with it. Emulated: it needs no KVM.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{initrd, package::Kernel};
use crate::{screen, workspace};

/// How long a guest may take until it runs its command; alone on two cores 10 s.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// How often it is started: where the host is busy, a guest may lose an interrupt or its sense of time while it boots.
const BOOTS: u32 = 3;
/// How long virtiofsd may take to listen.
const SOCKET_LIMIT: Duration = Duration::from_secs(10);
/// The guest's memory.
const MEMORY: &str = "2G";
/// What the guest says before its command and after it (guest.sh).
const UP: &str = "@up";
const EXIT: &str = "@exit ";
/// Where virtiofsd is: a package of its own, or of QEMU before 8.0.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
/// Clocks and timers whose rate is known: one that is measured while the host is busy goes wrong, by ten times even. Nor is
/// it checked that an interrupt comes in time.
const KERNEL_LINE: &str =
    "console=ttyS0 clocksource=hpet tsc=unstable nolapic_timer no_timer_check quiet panic=-1 mitigations=off";

/// The program that shares the root, if it is installed.
pub(crate) fn virtiofsd() -> Option<&'static Path> {
    VIRTIOFSD.into_iter().map(Path::new).find(|path| path.is_file())
}

/// Boots the kernel and runs a script of `sh` in it, as root, for `limit` at most. `line` gets each line it prints.
/// Returns its exit code.
///
/// # Errors
/// The guest does not come up, takes too long or ends without a word; with the end of its console.
pub(crate) fn run(kernel: &Kernel, script: &str, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<u8> {
    let work = workspace::target().join("kernels").join(kernel.series.name());
    fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let lock = File::create(work.join("lock")).context("making the lock of the virtual machine")?;
    lock.lock().context("waiting for the virtual machine")?;
    initrd::write(kernel, script, &work, &work.join("initrd.img"))?;
    let mut outcome = attempt(kernel, &work, limit, line);
    for _ in 1..BOOTS {
        match &outcome {
            Err(error) if error.is::<NotUp>() => {
                screen::note(&format!("kernel {} does not come up: {error}; once more", kernel.release));
                outcome = attempt(kernel, &work, limit, line);
            }
            Ok(_) | Err(_) => break,
        }
    }
    let console = work.join("console.log");
    outcome.with_context(|| format!("kernel {}, whose console ends:\n{}", kernel.release, tail(&console)))
}

fn attempt(kernel: &Kernel, work: &Path, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<u8> {
    let _share = Share::start(work)?;
    Machine::start(kernel, work)?.watch(limit, line)
}

/// The guest never ran its command.
#[derive(Debug)]
struct NotUp(String);

impl fmt::Display for NotUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotUp {}

/// The last lines of a file.
fn tail(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}

/// A child that does not outlive its handle.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// virtiofsd, which shares the root.
struct Share {
    _daemon: Guard,
    socket: PathBuf,
}

impl Share {
    /// The socket's name; both ends run in its folder, since a socket's path is 107 bytes long at most.
    const SOCKET: &str = "root.sock";

    fn start(work: &Path) -> Result<Self> {
        let program = virtiofsd().context("virtiofsd is not installed: `cargo xtask setup kernels`")?;
        let socket = work.join(Self::SOCKET);
        // One that a crash left.
        let _absent = fs::remove_file(&socket);
        let log = File::create(work.join("virtiofsd.log"))?;
        let mut command = Command::new(program);
        command
            .arg(format!("--socket-path={}", Self::SOCKET))
            .args(["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"])
            .current_dir(work)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut daemon = Guard(command.spawn().context("starting virtiofsd")?);
        let deadline = Instant::now() + SOCKET_LIMIT;
        while !socket.exists() {
            let ended = daemon.0.try_wait()?.is_some();
            ensure!(
                !ended && Instant::now() < deadline,
                "virtiofsd does not listen:\n{}",
                tail(&work.join("virtiofsd.log"))
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { _daemon: daemon, socket })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.socket);
    }
}

/// QEMU.
struct Machine {
    qemu: Guard,
    lines: Receiver<String>,
}

impl Machine {
    fn start(kernel: &Kernel, work: &Path) -> Result<Self> {
        let memory = format!("memory-backend-memfd,id=memory,size={MEMORY},share=on");
        let mut command = Command::new("nice");
        command
            .args(["-n5", "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max", "-smp", "2"])
            .args(["-m", MEMORY, "-object", &memory, "-numa", "node,memdev=memory"])
            .arg("-kernel")
            .arg(kernel.image())
            .args(["-initrd", "initrd.img", "-append", KERNEL_LINE])
            .args(["-serial", "file:console.log", "-serial", "stdio"])
            .args(["-chardev", &format!("socket,id=root,path={}", Share::SOCKET)])
            .args(["-device", "vhost-user-fs-pci,chardev=root,tag=root"])
            .current_dir(work)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().context("starting `nice qemu-system-x86_64`")?;
        let mut qemu = Guard(child);
        let output = qemu.0.stdout.take().context("the guest's output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { qemu, lines })
    }

    /// Hears the guest out.
    fn watch(&mut self, limit: Duration, line: &mut dyn FnMut(&str)) -> Result<u8> {
        let mut deadline = Instant::now() + BOOT_LIMIT;
        let mut up = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let text = match self.lines.recv_timeout(left) {
                Ok(text) => text,
                Err(RecvTimeoutError::Timeout) if up => bail!("its command takes more than {limit:?}"),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(NotUp(format!("it is not up after {BOOT_LIMIT:?}")))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let end = format!("it ended without a word ({})", self.qemu.0.wait()?);
                    if up { bail!(end) } else { bail!(NotUp(end)) }
                }
            };
            if let Some(code) = text.strip_prefix(EXIT).and_then(|code| code.parse().ok()) {
                return Ok(code);
            }
            if up {
                line(&text);
            } else if text == UP {
                up = true;
                deadline = Instant::now() + limit;
            }
        }
    }
}
