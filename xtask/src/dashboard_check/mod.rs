//! `cargo xtask dashboard-check`: the dashboard in Debian's Chromium, on processes and stores of its own that have everything on them which an
//! operator may ever look at. What is looked at and done stands in the tables of `pages.rs`, `acts.rs` and `hostile.rs`: a new page, action
//! or field of users is a new row there, and a page in the menu without a row fails.

mod actions;
mod acts;
mod browser;
mod hostile;
mod live;
mod looks;
mod pages;
mod provider;
mod rights;
mod scene;
mod session;
mod speed;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Result, ensure};

use self::{browser::Browser, scene::Scene};
use crate::{bench::until_told, faults::binary, root, run as run_command};

/// Jobs that have ended before anybody looks: of the whole check, and of the one that CI runs.
const JOBS: u64 = 1_000_000;
const JOBS_SHORT: u64 = 3_000;
/// Where pictures and reports go, and where the few lie that the documents show.
const ARTEFACTS: &str = "target/dashboard";
const KEPT: &str = "docs/dashboard";

/// What is checked, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What CI runs: few jobs, the debug build, each page once, the main actions.
    #[arg(long)]
    short: bool,
    /// Check only this [default: everything].
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Jobs that have ended before anybody looks [default: 1,000,000; short: 3,000]
    #[arg(long)]
    jobs: Option<u64>,
    /// The debug build instead of the release build.
    #[arg(long)]
    debug: bool,
    /// Write the pictures of docs/dashboard.md anew.
    #[arg(long)]
    pictures: bool,
}

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Every page in both widths and themes: pictures, axe-core, no wider than the screen, no complaint of the browser; without script; keys.
    Looks,
    /// Every action clicked, and seen on the page and in the API.
    Actions,
    /// Changes that come without a reload, tokens that stream, an API that is killed and comes back.
    Live,
    /// Hostile texts in every field that users fill.
    Hostile,
    /// How long pages take, and how large the assets are.
    Speed,
    /// Who sees which button, and what is answered to forged posts.
    Rights,
    /// Signing in with an identity provider of another site, and out.
    Provider,
}

/// All of them in the order in which they run: what is looked at first is as it was seeded, and what changes much comes last.
const PARTS: [Part; 7] =
    [Part::Looks, Part::Speed, Part::Actions, Part::Live, Part::Hostile, Part::Rights, Part::Provider];

/// What a part came to.
#[derive(Default)]
struct Report {
    /// What was done, in a few words.
    seen: String,
    /// What is wrong; empty where all is well.
    wrong: Vec<String>,
}

/// What every part has.
struct Check {
    scene: Scene,
    browser: Browser,
    longshore: PathBuf,
    short: bool,
    pictures: bool,
    artefacts: PathBuf,
}

/// What CI runs of it, with the debug build that `cargo test` has just made.
pub(crate) fn run_short() -> Result<()> {
    let arguments = Arguments { short: true, only: None, jobs: None, debug: true, pictures: false };
    with(&arguments, binary(&root(), true)?)
}

/// Checks, and fails with what is wrong.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let debug = arguments.short || arguments.debug;
    match debug {
        true => run_command("cargo", &["build", "--locked", "--package", "cli"])?,
        false => run_command("cargo", &["build", "--release", "--locked", "--package", "cli"])?,
    }
    with(arguments, binary(&root(), debug)?)
}

fn with(arguments: &Arguments, longshore: PathBuf) -> Result<()> {
    testkit::install_browser();
    let axe = fs::read_to_string(testkit::install_axe(&root().join(ARTEFACTS).join("axe")))?;
    until_told(check(arguments, longshore, &axe))
}

async fn check(arguments: &Arguments, longshore: PathBuf, axe: &str) -> Result<()> {
    let began = Instant::now();
    let jobs = arguments.jobs.unwrap_or(if arguments.short { JOBS_SHORT } else { JOBS });
    eprintln!("an installation with {jobs} settled jobs …");
    let scene = Scene::start(&longshore, jobs).await?;
    let artefacts = root().join(ARTEFACTS);
    fs::create_dir_all(&artefacts)?;
    let browser = Browser::start().await?;
    let (short, pictures) = (arguments.short, arguments.pictures);
    let mut check = Check { scene, browser, longshore, short, pictures, artefacts };
    println!("it took {:.0} s to start and to fill", began.elapsed().as_secs_f64());
    let mut failed = 0;
    for part in PARTS.into_iter().filter(|part| arguments.only.is_none_or(|only| only == *part)) {
        let began = Instant::now();
        let report = check.part(part, axe).await;
        let (name, seconds) = (format!("{part:?}").to_lowercase(), began.elapsed().as_secs_f64());
        let report = report.unwrap_or_else(|error| Report { seen: String::new(), wrong: vec![format!("{error:#}")] });
        match report.wrong.as_slice() {
            [] => println!("ok      {name}: {} ({seconds:.1} s)", report.seen),
            wrong => println!("FAILED  {name}: {} ({seconds:.1} s)\n  {}", report.seen, wrong.join("\n  ")),
        }
        failed += report.wrong.len();
    }
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
    // Processes and stores end with the scene; nobody waits until their jobs have.
    check.browser.end().await?;
    ensure!(failed == 0, "{failed} things are wrong with the dashboard; pictures are in {ARTEFACTS}");
    Ok(())
}

impl Check {
    async fn part(&mut self, part: Part, axe: &str) -> Result<Report> {
        self.browser.scripts(true).await?;
        self.browser.view(browser::DESKTOP, "light").await?;
        match part {
            Part::Looks => self.looks(axe).await,
            Part::Actions => self.actions().await,
            Part::Live => self.live().await,
            Part::Hostile => self.hostile().await,
            Part::Speed => self.speed().await,
            Part::Rights => self.rights().await,
            Part::Provider => self.provider(axe).await,
        }
    }
}
