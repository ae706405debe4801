//! The commands in the documentation work: every block marked `sh` is run, a page a shell, on the cluster of `make env`.
//!
//! A line that ends in `# ERROR: text` must fail, and say that text. Blocks marked otherwise (`console`) are for reading.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const PRELUDE: &str = r#"set -Eeuo pipefail; shopt -s inherit_errexit; trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR; refused() { local out; if out=$(eval "$2" 2>&1); then echo "not refused: $2" >&2; return 1; fi; grep -qF -- "$1" <<<"$out" || { printf '%s\n' "$out" >&2; return 1; }; }; "#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// The page as a script whose line numbers are the page's.
fn script(page: &str) -> String {
    let mut runs = false;
    let mut script = String::from(PRELUDE);
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(kind) => runs = kind == "sh",
            None if runs => script.push_str(&command(line)),
            None => {}
        }
        script.push('\n');
    }
    script
}

fn command(line: &str) -> String {
    let Some((command, message)) = line.split_once("# ERROR: ") else { return line.to_owned() };
    format!("refused {} {}", quote(message.trim()), quote(command))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn every_command_in_the_documentation_works() {
    let root = root();
    let mut pages: Vec<_> = std::fs::read_dir(root.join("docs"))
        .expect("there is documentation")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root.join("README.md"));
    pages.sort();
    let mut failures = String::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a readable page");
        let name = page.strip_prefix(&root).expect("a page of ours").display();
        let output = Command::new("bash").args(["-c", &script(&text)]).current_dir(&root).output().expect("bash runs");
        if output.status.success() {
            println!("{name}: its commands work");
        } else {
            let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let _ = writeln!(failures, "{name}: {}\n{}\n{}", output.status, said(&output.stdout), said(&output.stderr));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn lines_keep_their_numbers() {
    let script = script("a\n```sh\ntrue 'x'\nfalse # ERROR: it's bad\n```\n```console\nfalse\n```");
    let lines: Vec<_> = script.lines().collect();
    assert_eq!((lines[2], lines[3]), ("true 'x'", r"refused 'it'\''s bad' 'false '"));
    assert_eq!(lines[5..].concat(), "");
}
