//! A file's YAML documents, one by one, so that a bad one leaves the others alone.

use serde_json::Value;

/// The text of one document.
pub(super) struct Document {
    text: String,
    /// Number of its first line in the file, from 1.
    first_line: usize,
}

/// Splits at the markers `---` and `...`, which YAML allows nowhere else at the start of a line (YAML 1.2.2, 9.1.2).
/// What is empty between two markers is no document.
pub(super) fn split(text: &str) -> Vec<Document> {
    let mut documents = vec![Document { text: String::new(), first_line: 1 }];
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let after = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        let (rest, first_line) = match after {
            Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t']) => {
                documents.push(Document { text: String::new(), first_line: index + 1 });
                (rest, index + 1)
            }
            Some(_) | None => (line, 0),
        };
        if let Some(document) = documents.last_mut() {
            document.first_line = document.first_line.max(first_line);
            document.text.push_str(rest);
            document.text.push('\n');
        }
    }
    documents.retain(|document| !document.is_empty());
    documents
}

impl Document {
    fn is_empty(&self) -> bool {
        self.text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with(['#', '%']))
    }

    /// The document as a value.
    ///
    /// # Errors
    /// Why it is not YAML, with the line in the file.
    pub(super) fn value(&self) -> Result<Value, String> {
        // YAML 1.2: a namespace called `n` or `on` is a string.
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(&self.text, options).map_err(|error| {
            let error = error.without_snippet();
            let message = error.to_string();
            let what = message.lines().next().unwrap_or_default();
            match error.location() {
                Some(location) => {
                    let line = location.line() as usize + self.first_line - 1;
                    let what = what.split(" at line ").next().unwrap_or(what);
                    format!("line {line}: {what}")
                }
                None => what.to_owned(),
            }
        })
    }
}
