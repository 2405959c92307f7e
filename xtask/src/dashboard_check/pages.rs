//! Every page: where it is, and what it has to say about the installation of `scene.rs`. A page in the menu without a row here fails.

use super::browser::{DESKTOP, PHONE, View};

/// A page. `{name}` in addresses and texts is what `scene.rs` calls so.
pub(super) struct Page {
    /// What its pictures are called.
    pub(super) name: &'static str,
    pub(super) address: &'static str,
    pub(super) in_menu: bool,
    /// What is to be read on it, in any case of letters.
    pub(super) shows: &'static [&'static str],
    /// A picture that docs/dashboard.md shows.
    pub(super) kept: Option<Kept>,
}

/// A picture for people.
pub(super) struct Kept {
    pub(super) name: &'static str,
    pub(super) view: View,
    pub(super) theme: &'static str,
    /// The heading that it begins with; nothing for the top of the page.
    pub(super) from: &'static str,
}

/// What the menu may lead to without a row.
pub(super) const MENU_ONLY: &[&str] = &[];

const fn kept(name: &'static str, view: View, theme: &'static str, from: &'static str) -> Option<Kept> {
    Some(Kept { name, view, theme, from })
}

/// All of them.
#[rustfmt::skip] // one row a page
pub(super) const PAGES: &[Page] = &[
    Page { name: "overview", address: "/dashboard", in_menu: true, shows: &["Overview", "gpu-batch", "{target_down}"], kept: kept("overview", DESKTOP, "light", "") },
    Page { name: "queues", address: "/dashboard/queues", in_menu: true, shows: &["chat", "gpu-batch", "nightly", "waiting for the new price list"], kept: kept("queues", DESKTOP, "light", "") },
    Page { name: "queue", address: "/dashboard/queues/{queue}", in_menu: false, shows: &["{queue}", "acme"], kept: None },
    Page { name: "queue-paused", address: "/dashboard/queues/nightly", in_menu: false, shows: &["nightly", "waiting for the new price list"], kept: kept("queue-paused", DESKTOP, "light", "") },
    Page { name: "queue-flooded", address: "/dashboard/queues/backlog", in_menu: false, shows: &["backlog", "juniper", "harbour"], kept: kept("queue-flooded", DESKTOP, "light", "Whose jobs") },
    Page { name: "queue-idle", address: "/dashboard/queues/gpu-batch", in_menu: false, shows: &["gpu-batch", "no worker"], kept: None },
    Page { name: "jobs", address: "/dashboard/jobs", in_menu: true, shows: &["Jobs", "succeeded"], kept: kept("jobs-phone", PHONE, "dark", "") },
    Page { name: "jobs-filtered", address: "/dashboard/jobs?filter=queue%20%3D%20chat%20and%20state%20%3D%20running", in_menu: false, shows: &["chat", "running"], kept: None },
    Page { name: "job", address: "/dashboard/jobs/{job}", in_menu: false, shows: &["{job}", "extraction", "succeeded"], kept: None },
    Page { name: "job-dead", address: "/dashboard/jobs/{dead}", in_menu: false, shows: &["{dead}", "The server had an error while processing your request"], kept: None },
    Page { name: "job-poison", address: "/dashboard/jobs/{poison}", in_menu: false, shows: &["{poison}", "workers were lost while running this job"], kept: kept("job-poison", DESKTOP, "light", "") },
    Page { name: "job-over-budget", address: "/dashboard/jobs/{job_over_budget}", in_menu: false, shows: &["{job_over_budget}", "budget"], kept: kept("job-over-budget", DESKTOP, "light", "") },
    Page { name: "job-streams", address: "/dashboard/jobs/{job_streams}", in_menu: false, shows: &["{job_streams}", "running"], kept: None },
    Page { name: "job-new", address: "/dashboard/jobs/new", in_menu: false, shows: &["job"], kept: None },
    Page { name: "dead-letters", address: "/dashboard/dead-letters", in_menu: true, shows: &["The engine is overloaded", "workers were lost while running this job"], kept: kept("dead-letters", DESKTOP, "light", "") },
    Page { name: "archives", address: "/dashboard/dead-letters/archives", in_menu: false, shows: &["Archives"], kept: None },
    Page { name: "dead-letters-of-a-cause", address: "/dashboard/dead-letters/{signature}", in_menu: false, shows: &["The server had an error while processing your request", "chat"], kept: None },
    Page { name: "operations", address: "/dashboard/operations", in_menu: true, shows: &["cancel", "running", "the import was started twice"], kept: None },
    Page { name: "operation", address: "/dashboard/operations/{operation}", in_menu: false, shows: &["batch_id = old-import", "running", "the import was started twice"], kept: None },
    Page { name: "operation-counted", address: "/dashboard/operations/{operation_counted}", in_menu: false, shows: &["Dry run", "to confirm"], kept: None },
    Page { name: "workers", address: "/dashboard/workers", in_menu: true, shows: &["Workers", "{worker_short}"], kept: None },
    Page { name: "schedules", address: "/dashboard/schedules", in_menu: true, shows: &["weekly-report", "heartbeat", "old-import", "the supplier has moved"], kept: None },
    Page { name: "schedule", address: "/dashboard/schedules/{schedule}", in_menu: false, shows: &["weekly-report", "Europe/Berlin", "before the Monday meeting"], kept: None },
    Page { name: "schedule-new", address: "/dashboard/schedules/new", in_menu: false, shows: &["Preview"], kept: None },
    Page { name: "schedule-edit", address: "/dashboard/schedules/{schedule}/edit", in_menu: false, shows: &["weekly-report"], kept: None },
    Page { name: "costs", address: "/dashboard/costs", in_menu: true, shows: &["Costs", "acme", "gpt-4o"], kept: kept("costs", DESKTOP, "light", "") },
    Page { name: "targets", address: "/dashboard/targets", in_menu: true, shows: &["gpt-4o-mini", "mock-down!503", "open"], kept: kept("targets", DESKTOP, "dark", "") },
    Page { name: "target", address: "/dashboard/targets/{target}", in_menu: false, shows: &["{target}", "gpt-4o-mini"], kept: None },
    Page { name: "target-down", address: "/dashboard/targets/{target_down}", in_menu: false, shows: &["{target_down}", "open"], kept: kept("target-down", DESKTOP, "light", "") },
    Page { name: "tenants", address: "/dashboard/tenants", in_menu: true, shows: &["acme", "juniper", "the invoice of October is unpaid"], kept: None },
    Page { name: "tenant", address: "/dashboard/tenants/{tenant}", in_menu: false, shows: &["acme", "checkout", "billing-export"], kept: None },
    Page { name: "key", address: "/dashboard/tenants/{tenant}/keys/{key}", in_menu: false, shows: &["checkout", "{key}"], kept: None },
    Page { name: "tenant-over-budget", address: "/dashboard/tenants/ember", in_menu: false, shows: &["ember", "0.01"], kept: kept("tenant-over-budget", DESKTOP, "light", "") },
    Page { name: "webhooks", address: "/dashboard/webhooks", in_menu: true, shows: &["the night shift's pager"], kept: None },
    Page { name: "webhook", address: "/dashboard/webhooks/{webhook}", in_menu: false, shows: &["the night shift's pager"], kept: None },
    Page { name: "audit", address: "/dashboard/audit", in_menu: true, shows: &["Audit", "/v1/"], kept: None },
    Page { name: "backups", address: "/dashboard/backups", in_menu: true, shows: &["Backups", "before the release"], kept: None },
    Page { name: "upkeep", address: "/dashboard/backups/upkeep", in_menu: false, shows: &["Upkeep"], kept: None },
];
