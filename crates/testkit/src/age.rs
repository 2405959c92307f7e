//! Debian's `age`: a second reader of what is encrypted.

use crate::packages::{install, runs};

/// Sees to it that `age` is in the path; installs it where the machine has none and we are root.
pub fn install_age() {
    install("age", || runs("age", &["--version"]));
}
