//! A real browser and what is asked in it: Debian's Chromium with its driver, and axe-core from npm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::packages::{install, runs};

/// The axe-core that pages are held against.
const AXE: &str = "4.14.1";
/// A machine without any font shows empty pages.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";

/// Sees to it that `chromium`, `chromedriver` and a font are there; installs them where the machine has none and we are root.
pub fn install_browser() {
    install("chromium", || runs("chromium", &["--version"]));
    install("chromium-driver", || runs("chromedriver", &["--version"]));
    install("fonts-dejavu-core", || Path::new(FONT).exists());
}

/// The script of axe-core, which is installed below `folder` where it is not there yet. Nothing of it is run by npm.
pub fn install_axe(folder: &Path) -> PathBuf {
    let package = folder.join("node_modules/axe-core");
    let is_wanted = fs::read_to_string(package.join("package.json"))
        .is_ok_and(|text| text.contains(&format!("\"version\": \"{AXE}\"")));
    if !is_wanted {
        install("npm", || runs("npm", &["--version"]));
        fs::create_dir_all(folder).expect("the folder is ours");
        let mut npm = Command::new("npm");
        npm.args(["install", "--prefix"]).arg(folder).args([
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ]);
        let output = npm.arg(format!("axe-core@{AXE}")).output().expect("npm starts");
        assert!(output.status.success(), "npm: {}", String::from_utf8_lossy(&output.stderr));
    }
    package.join("axe.min.js")
}
