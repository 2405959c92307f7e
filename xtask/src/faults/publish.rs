//! docs/reliability.md: its table is written from the catalogue and from what runs came to; the text around it by people.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::{
    Outcome,
    catalogue::{FAULTS, Fault, Proof},
    history::wall_ms,
};
use crate::root;

/// What stands around the table.
const BEGIN: &str = "<!-- faults: written by `cargo xtask faults --publish` -->\n";
const END: &str = "<!-- end of faults -->";
const HEADER: &str = "| | fault | must hold | jobs | faults | what came of it | seed, build, date |\n\
                      |---|---|---|---:|---:|---|---|\n";
/// What a row says before its first run.
const NOT_RUN: &str = "not run yet";

/// What came of a fault: the cells of its row from the fourth on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    jobs: u64,
    faults: u64,
    figure: String,
    seen: String,
}

/// Writes what these runs came to into the table; the rows of other faults stay as they are.
pub(super) fn write(outcomes: &[Outcome]) -> Result<()> {
    let (text, mut runs) = read()?;
    for fault in FAULTS {
        let mine: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.trial.fault == fault.id).collect();
        if !mine.is_empty() {
            runs.insert(fault.id.to_owned(), Run::of(&mine)?);
        }
    }
    fs::write(page(), replaced(&text, &render(&runs))?)?;
    println!("written: {}", page().display());
    Ok(())
}

/// Whether the table is what the catalogue says, with the runs that stand in it.
pub(crate) fn check(findings: &mut Vec<String>) -> Result<()> {
    let (text, runs) = read()?;
    if replaced(&text, &render(&runs))? != text {
        findings.push("docs/reliability.md: its table is not what `cargo xtask faults --publish` writes".to_owned());
    }
    Ok(())
}

fn page() -> PathBuf {
    root().join("docs/reliability.md")
}

fn read() -> Result<(String, BTreeMap<String, Run>)> {
    let text = fs::read_to_string(page()).context("docs/reliability.md")?;
    let runs = table(&text)?.lines().skip(2).filter_map(read_row).collect();
    Ok((text, runs))
}

fn table(text: &str) -> Result<&str> {
    let after = text.split_once(BEGIN).context("docs/reliability.md has no table of faults")?.1;
    Ok(after.split_once(END).context("the table of docs/reliability.md has no end")?.0)
}

fn replaced(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("docs/reliability.md has no table of faults")?;
    let (_, after) = rest.split_once(END).context("the table of docs/reliability.md has no end")?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// A row's fault and its run; `None` where it was not run.
fn read_row(row: &str) -> Option<(String, Run)> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [id, _, _, jobs, faults, figure, seen] = cells[..] else { return None };
    let number = |text: &str| text.replace(',', "").parse().ok();
    let run = Run { jobs: number(jobs)?, faults: number(faults)?, figure: figure.to_owned(), seen: seen.to_owned() };
    Some((id.to_owned(), run))
}

fn render(runs: &BTreeMap<String, Run>) -> String {
    let mut text = HEADER.to_owned();
    for fault in FAULTS {
        text.push_str(&row(fault, runs.get(fault.id)));
    }
    let here: Vec<&Run> = FAULTS.iter().filter_map(|fault| runs.get(fault.id)).collect();
    let sum = |of: fn(&Run) -> u64| grouped(here.iter().map(|run| of(run)).sum());
    let (jobs, faults) = (sum(|run| run.jobs), sum(|run| run.faults));
    text.push_str(&format!("| all | | | {jobs} | {faults} | {} of {} faults run | |\n", here.len(), FAULTS.len()));
    text
}

fn row(fault: &Fault, run: Option<&Run>) -> String {
    let Fault { id, what, target, proof } = fault;
    let (jobs, faults, figure, seen) = match (proof, run) {
        (Proof::Here(_) | Proof::PowerLoss, Some(run)) => {
            (grouped(run.jobs), grouped(run.faults), run.figure.clone(), run.seen.clone())
        }
        (Proof::Here(_) | Proof::PowerLoss, None) => (String::new(), String::new(), NOT_RUN.to_owned(), String::new()),
        (Proof::Elsewhere(how), _) => (String::new(), String::new(), format!("see {how}"), String::new()),
        (Proof::Open(why), _) => (String::new(), String::new(), format!("open: {why}"), String::new()),
    };
    format!("| {id} | {what} | {target} | {jobs} | {faults} | {figure} | {seen} |\n")
}

fn grouped(number: u64) -> String {
    crate::table::figure(number as f64).split('.').next().unwrap_or_default().to_owned()
}

impl Run {
    /// What the scenarios of a fault came to.
    fn of(outcomes: &[&Outcome]) -> Result<Self> {
        let figure = |outcome: &&Outcome| {
            let verdict = match outcome.violations {
                0 => String::new(),
                count => format!("**BROKEN: {count} violations**, "),
            };
            let name = if outcomes.len() > 1 { format!("{}: ", outcome.trial.name()) } else { String::new() };
            format!("{name}{verdict}{}", outcome.figure)
        };
        let figures: Vec<String> = outcomes.iter().map(figure).collect();
        let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(|outcome| of(outcome) as u64).sum();
        let today = jiff::Timestamp::from_millisecond(wall_ms())?.strftime("%Y-%m-%d");
        Ok(Self {
            jobs: sum(|outcome| outcome.jobs),
            faults: sum(|outcome| outcome.faults),
            figure: figures.join("; "),
            seen: format!("{}, {}, {today}", outcomes[0].seed, build()?),
        })
    }
}

/// The commit, and whether something was changed since.
fn build() -> Result<String> {
    let said = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output()?;
    ensure!(said.status.success(), "git describe failed");
    Ok(String::from_utf8(said.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let run = |jobs| Run { jobs, faults: 20, figure: "0 lost".into(), seen: "7, abc, 2026-11-30".into() };
        let runs = BTreeMap::from([("F1".to_owned(), run(18_000)), ("F21".to_owned(), run(7))]);
        let text = format!("before\n{BEGIN}{}{END}\nafter", render(&runs));
        let read: BTreeMap<_, _> = table(&text).unwrap().lines().skip(2).filter_map(read_row).collect();
        let of_faults: BTreeMap<_, _> = read.into_iter().filter(|(id, _)| id != "all").collect();
        assert_eq!(of_faults, runs);
        assert!(text.contains("| 18,007 | 40 | 2 of"), "{text}");
        assert_eq!(replaced(&text, &render(&runs)).unwrap(), text);
    }

    #[test]
    fn no_cell_of_the_catalogue_breaks_the_table() {
        assert!(FAULTS.iter().all(|fault| !fault.what.contains('|') && !fault.target.contains('|')));
    }
}
