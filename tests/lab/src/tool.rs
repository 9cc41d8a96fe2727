//! Runs the system's own tools: `ip`, `nft`, `ethtool`, `sysctl`, `nsenter`.

use std::{
    io::{ErrorKind, Write},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs `command` with `input` on its standard input and returns what it printed; an error carries its complaint.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<String> {
    let line = words(command);
    let output = feed(command, input).with_context(|| format!("running `{line}`"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| explain(error, command))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that refuses its first line closes the pipe; its own complaint says more than EPIPE.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(child.wait_with_output()?)
}

/// Names the missing tool and the remedy, instead of "No such file or directory".
pub(crate) fn explain(error: std::io::Error, command: &Command) -> anyhow::Error {
    let program = command.get_program().to_string_lossy();
    if error.kind() == ErrorKind::NotFound {
        return anyhow::anyhow!("`{program}` is not installed: run `cargo xtask setup`");
    }
    anyhow::Error::new(error).context(format!("starting `{program}`"))
}

/// The command as a person would type it.
pub(crate) fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

/// A command that runs `program` in the network namespace `netns`.
///
/// `nsenter --net` changes the network namespace and nothing else; `ip netns exec` would also remount `/sys`
/// and with it hide the pinned maps.
pub(crate) fn in_netns(netns: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg(program);
    command
}
