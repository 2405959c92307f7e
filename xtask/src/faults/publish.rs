//! docs/reliability.md: its table is written from the catalogue and from what runs came to; the text around it by people.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Outcome,
    catalogue::{FAULTS, Fault, Proof},
    elsewhere::spelled,
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
/// And around the table of planted bugs.
const BUGS_BEGIN: &str = "<!-- planted bugs: written by `cargo xtask faults --mutants --publish` -->\n";
const BUGS_END: &str = "<!-- end of planted bugs -->";
const BUGS_HEADER: &str =
    "| planted bug | found as | after | in the same run without it | verdict |\n|---|---|---:|---|---|\n";
/// What all runs together have to come to, once every row has one.
const JOBS_MIN: u64 = 200_000;
const FAULTS_MIN: u64 = 500;

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
    let all = Sums::of(&runs);
    println!("written: {}; {}", page().display(), all.in_words());
    ensure!(!all.is_short(), "all faults are run, and that is not enough: {}", all.in_words());
    Ok(())
}

/// Writes what came of the planted bugs: a row each of name, what it was found as, seconds, what was found without it, verdict.
pub(super) fn write_bugs(rows: &[Vec<String>], seed: u64) -> Result<()> {
    let text = fs::read_to_string(page()).context("docs/reliability.md")?;
    let mut table = BUGS_HEADER.to_owned();
    for row in rows {
        let [name, found, seconds, without, verdict] = &row[..] else { bail!("a row of a planted bug has five cells") };
        table.push_str(&format!("| `{name}` | {found} | {seconds} s | {without} | {verdict} |\n"));
    }
    table.push_str(&format!("\nSeed {seed}, {}, {}.\n", build()?, today()?));
    fs::write(page(), between(&text, &table, BUGS_BEGIN, BUGS_END)?)?;
    println!("written: {}", page().display());
    Ok(())
}

/// Whether the table is what the catalogue says, with the runs that stand in it.
pub(crate) fn check(findings: &mut Vec<String>) -> Result<()> {
    let (text, runs) = read()?;
    if replaced(&text, &render(&runs))? != text {
        findings.push("docs/reliability.md: its table is not what `cargo xtask faults --publish` writes".to_owned());
    }
    let all = Sums::of(&runs);
    if all.is_short() {
        findings.push(format!("docs/reliability.md: all faults are run, and that is not enough: {}", all.in_words()));
    }
    if !text.contains(BUGS_BEGIN) || !text.contains(BUGS_END) {
        findings.push("docs/reliability.md has no table of planted bugs".to_owned());
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
    between(text, table, BEGIN, END)
}

fn between(text: &str, table: &str, begin: &str, end: &str) -> Result<String> {
    let (before, rest) = text.split_once(begin).with_context(|| format!("docs/reliability.md lacks {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("docs/reliability.md lacks {end}"))?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

/// All runs together.
struct Sums {
    jobs: u64,
    faults: u64,
    run: usize,
}

impl Sums {
    fn of(runs: &BTreeMap<String, Run>) -> Self {
        let here: Vec<&Run> = FAULTS.iter().filter_map(|fault| runs.get(fault.id)).collect();
        let sum = |of: fn(&Run) -> u64| here.iter().map(|run| of(run)).sum();
        Self { jobs: sum(|run| run.jobs), faults: sum(|run| run.faults), run: here.len() }
    }

    /// Whether everything was run, and with too few jobs or faults.
    fn is_short(&self) -> bool {
        self.run == FAULTS.len() && (self.jobs < JOBS_MIN || self.faults < FAULTS_MIN)
    }

    fn in_words(&self) -> String {
        let [jobs, jobs_min, faults, faults_min] = [self.jobs, JOBS_MIN, self.faults, FAULTS_MIN].map(grouped);
        format!(
            "{jobs} jobs (at least {jobs_min}) and {faults} faults (at least {faults_min}) in {} of {} rows",
            self.run,
            FAULTS.len()
        )
    }
}

/// A row's fault and its run; `None` where it was not run.
fn read_row(row: &str) -> Option<(String, Run)> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [id, _, _, jobs, faults, figure, seen] = cells[..] else { return None };
    if seen.is_empty() {
        return None;
    }
    // What another command proves has neither.
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.replace(',', "").parse().ok() };
    // The command stands before its figure.
    let figure = match FAULTS.iter().find(|fault| fault.id == id).map(|fault| fault.proof) {
        Some(Proof::Elsewhere(command)) => figure.trim_start_matches(&format!("`{}`: ", spelled(command))),
        _ => figure,
    };
    let run = Run { jobs: number(jobs)?, faults: number(faults)?, figure: figure.to_owned(), seen: seen.to_owned() };
    Some((id.to_owned(), run))
}

fn render(runs: &BTreeMap<String, Run>) -> String {
    let mut text = HEADER.to_owned();
    for fault in FAULTS {
        text.push_str(&row(fault, runs.get(fault.id)));
    }
    let all = Sums::of(runs);
    let (jobs, faults, run) = (grouped(all.jobs), grouped(all.faults), all.run);
    let demand = format!("at least {} jobs and {} faults", grouped(JOBS_MIN), grouped(FAULTS_MIN));
    text.push_str(&format!("| all | | {demand} | {jobs} | {faults} | {run} of {} rows run | |\n", FAULTS.len()));
    text
}

fn row(fault: &Fault, run: Option<&Run>) -> String {
    let Fault { id, what, target, proof } = fault;
    let count = |number| if number == 0 { String::new() } else { grouped(number) };
    let (jobs, faults, figure, seen) = match (proof, run) {
        (Proof::Elsewhere(command), Some(run)) => {
            (count(run.jobs), count(run.faults), format!("`{}`: {}", spelled(command), run.figure), run.seen.clone())
        }
        (_, Some(run)) => (count(run.jobs), count(run.faults), run.figure.clone(), run.seen.clone()),
        (Proof::Elsewhere(command), None) => {
            (String::new(), String::new(), format!("{NOT_RUN}: `{}`", spelled(command)), String::new())
        }
        (_, None) => (String::new(), String::new(), NOT_RUN.to_owned(), String::new()),
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
        let seed = outcomes[0].seed.map_or_else(|| "no seed".to_owned(), |seed| seed.to_string());
        Ok(Self {
            jobs: sum(|outcome| outcome.jobs),
            faults: sum(|outcome| outcome.faults),
            figure: figures.join("; "),
            seen: format!("{seed}, {}, {}", build()?, today()?),
        })
    }
}

fn today() -> Result<String> {
    Ok(jiff::Timestamp::from_millisecond(wall_ms())?.strftime("%Y-%m-%d").to_string())
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
        let runs = BTreeMap::from([
            ("F1".to_owned(), run(18_000)),
            ("F21".to_owned(), run(7)),
            ("F16".to_owned(), Run { jobs: 0, faults: 0, ..run(0) }),
        ]);
        let text = format!("before\n{BEGIN}{}{END}\nafter", render(&runs));
        let read: BTreeMap<_, _> = table(&text).unwrap().lines().skip(2).filter_map(read_row).collect();
        let of_faults: BTreeMap<_, _> = read.into_iter().filter(|(id, _)| id != "all").collect();
        assert_eq!(of_faults, runs);
        assert!(text.contains("| 18,007 | 40 | 3 of"), "{text}");
        assert_eq!(replaced(&text, &render(&runs)).unwrap(), text);
    }

    #[test]
    fn all_rows_with_too_few_jobs_or_faults_are_too_little() {
        let runs = |jobs, faults| -> BTreeMap<String, Run> {
            let run = Run { jobs, faults, figure: "0 lost".into(), seen: "7, abc, 2026-11-30".into() };
            FAULTS.iter().map(|fault| (fault.id.to_owned(), run.clone())).collect()
        };
        assert!(!Sums::of(&runs(JOBS_MIN, FAULTS_MIN)).is_short());
        assert!(Sums::of(&runs(1, FAULTS_MIN)).is_short() && Sums::of(&runs(JOBS_MIN, 1)).is_short());
        let mut some = runs(1, 1);
        some.remove("F1");
        assert!(!Sums::of(&some).is_short(), "it is not complete");
    }

    #[test]
    fn no_cell_of_the_catalogue_breaks_the_table() {
        assert!(FAULTS.iter().all(|fault| !fault.what.contains('|') && !fault.target.contains('|')));
    }
}
