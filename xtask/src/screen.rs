//! What a person sees: marks, titles and progress. Colour and rewriting of lines only on a terminal.

use std::{
    env,
    io::{IsTerminal, Write, stderr, stdout},
};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Whether standard output takes colours.
fn colours() -> bool {
    stdout().is_terminal() && stderr().is_terminal() && env::var_os("NO_COLOR").is_none()
}

fn paint(code: &str, text: &str) -> String {
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A line on standard output. A reader that has seen enough (`| head`) is no error.
pub(crate) fn line(text: &str) {
    let _unread = writeln!(stdout(), "{text}");
}

/// A heading.
pub(crate) fn title(text: &str) {
    line(&format!("\n{}", paint(BOLD, text)));
}

/// A line that went well.
pub(crate) fn good(text: &str) {
    line(&format!("  {} {text}", paint(GREEN, "✔")));
}

/// A line that did not.
pub(crate) fn bad(text: &str) {
    line(&format!("  {} {text}", paint(RED, "✘")));
}

/// What to know, or to do next.
pub(crate) fn note(text: &str) {
    line(&format!("  {} {text}", paint(YELLOW, "→")));
}

/// Detail below a line, each of its lines indented.
pub(crate) fn detail(text: &str) {
    for part in text.trim_end().lines() {
        line(&format!("      {}", paint(DIM, part)));
    }
}

/// The error that ends the command, on standard error.
pub(crate) fn failure(text: &str) {
    let _unseen = writeln!(stderr(), "{} {text}", paint(RED, "error:"));
}

/// Progress on standard error: one line rewritten on a terminal, else one line for each new stage.
#[derive(Default)]
pub(crate) struct Progress {
    last: String,
}

impl Progress {
    /// Says what is being done now.
    pub(crate) fn say(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        let mut out = stderr();
        let _unseen = if out.is_terminal() {
            write!(out, "\r\x1b[K  … {text}").and_then(|()| out.flush())
        } else {
            writeln!(out, "  … {text}")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.last.is_empty() && stderr().is_terminal() {
            let _unseen = write!(stderr(), "\r\x1b[K");
        }
    }
}
