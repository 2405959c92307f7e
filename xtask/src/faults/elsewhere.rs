//! Faults that another command of the project proves: it is run, and what it says of its own bars is the figure.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{root, table};

/// What the command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    /// Its figures in one line, or that it held.
    pub(super) figure: String,
    /// Whether it ended well, and every figure meets its bar.
    pub(super) is_sound: bool,
}

/// How a command is written: `cargo test …`, or `cargo xtask …`.
pub(super) fn spelled(command: &[&str]) -> String {
    format!("cargo {}", command.join(" "))
}

/// Runs it. What it prints is shown when it has ended.
pub(super) fn run(command: &[&str]) -> Result<Ran> {
    eprintln!("$ {}", spelled(command));
    // This very program, since it may not be built anew while it runs.
    let mut program = match command {
        ["xtask", arguments @ ..] => {
            let mut program = Command::new(env::current_exe()?);
            program.args(arguments);
            program
        }
        arguments => {
            let mut program = Command::new("cargo");
            program.args(arguments);
            program
        }
    };
    let output = program.current_dir(root()).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("`{}` does not start", spelled(command)))?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    Ok(read(&said, output.status.success()))
}

/// Figures with bars, where it printed such; else whether it ended well.
fn read(said: &str, ended_well: bool) -> Ran {
    let word = if ended_well { "held" } else { "**FAILED**" };
    let Ok(Value::Array(judged)) = serde_json::from_str(said) else {
        return Ran { figure: word.to_owned(), is_sound: ended_well };
    };
    let (mut figures, mut is_sound) = (Vec::new(), ended_well);
    for one in &judged {
        let (Some(what), Some(bar)) = (one["what"].as_str(), one["bar"]["bar"].as_str()) else { continue };
        let is_met = one["bar"]["met"] == true;
        is_sound &= is_met;
        // What all figures of a command begin with says the row already.
        let what = what.rsplit(": ").next().unwrap_or(what);
        let figure = one["figure"].as_f64().map_or_else(|| "not measured".to_owned(), table::figure);
        let unit = one["unit"].as_str().unwrap_or_default();
        let verdict = if is_met { "" } else { "**NOT MET**: " };
        figures.push(format!("{verdict}{what} {figure} {unit} ({bar})"));
    }
    Ran { figure: if figures.is_empty() { word.to_owned() } else { figures.join(", ") }, is_sound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bar::{Bar, Judged};

    #[test]
    fn figures_are_read_with_their_bars_and_a_missed_one_shows() {
        let judged = |what: &str, figure, bar| Judged { what: what.into(), figure, unit: "s".into(), bar };
        let of = |figures: &[Judged]| read(&serde_json::to_string(figures).unwrap(), true);
        let slow = judged("rolling restart: slowest end", 31.0, Some(Bar::AtMost(30.0)));
        let ran = of(&[judged("load", 7.0, None), slow.clone()]);
        assert_eq!((ran.figure.as_str(), ran.is_sound), ("**NOT MET**: slowest end 31.0 s (≤ 30.0)", false));
        assert!(of(&[Judged { figure: 3.0, ..slow }]).is_sound);
    }

    #[test]
    fn a_command_without_figures_has_held_or_failed() {
        assert_eq!(read("test result: ok", true), Ran { figure: "held".into(), is_sound: true });
        assert!(!read("[]", false).is_sound);
    }
}
