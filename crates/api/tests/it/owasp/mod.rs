//! The OWASP API Security Top 10 (2023), one file an item: the tests that hold it, wherever they are, and here what they left open.

mod api10_unsafe_consumption;
mod api1_object_level;
mod api2_authentication;
mod api3_property_level;
mod api4_resources;
mod api5_function_level;
mod api6_business_flows;
mod api7_ssrf;
mod api8_misconfiguration;
mod api9_inventory;

use std::{fs, path::Path};

/// A test: its file below `crates`, and its name.
type Held = (&'static str, &'static str);

/// What holds each item.
const ITEMS: [(&str, &[Held]); 10] = [
    ("API1 Broken object level authorization", api1_object_level::HELD_BY),
    ("API2 Broken authentication", api2_authentication::HELD_BY),
    ("API3 Broken object property level authorization", api3_property_level::HELD_BY),
    ("API4 Unrestricted resource consumption", api4_resources::HELD_BY),
    ("API5 Broken function level authorization", api5_function_level::HELD_BY),
    ("API6 Unrestricted access to sensitive business flows", api6_business_flows::HELD_BY),
    ("API7 Server side request forgery", api7_ssrf::HELD_BY),
    ("API8 Security misconfiguration", api8_misconfiguration::HELD_BY),
    ("API9 Improper inventory management", api9_inventory::HELD_BY),
    ("API10 Unsafe consumption of APIs", api10_unsafe_consumption::HELD_BY),
];

#[test]
fn every_test_that_holds_an_item_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (item, held_by) in ITEMS {
        assert!(!held_by.is_empty(), "{item}: nothing holds it");
        for (file, test) in held_by {
            let text = fs::read_to_string(crates.join(file)).unwrap_or_else(|error| panic!("{item}: {file}: {error}"));
            let (before, _) =
                text.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("{item}: {file} has no test {test}"));
            let lines: Vec<_> = before.trim_end().lines().rev().take(3).collect();
            assert!(
                lines.iter().any(|line| line.contains("test]") || line.contains("test(")),
                "{item}: {test} is no test"
            );
        }
    }
}
