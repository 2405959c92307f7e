//! Every action of the dashboard: on which page its button is, what is typed, what the API says afterwards and what the page shows. A new action
//! is a new row. What takes several pages is in `actions.rs`.

/// An action. `{name}` is what `scene.rs` calls so.
pub(super) struct Act {
    pub(super) name: &'static str,
    /// Whether the short form does it, too.
    pub(super) is_main: bool,
    pub(super) page: &'static str,
    /// Where its form posts to.
    pub(super) form: &'static str,
    /// A part of the words on its button, where several post there.
    pub(super) button: &'static str,
    /// What is typed into which field.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// What an answer of the API comes to: path, pointer into it, value (`~` for a part of it).
    pub(super) effect: Option<(&'static str, &'static str, &'static str)>,
    pub(super) shown: Shown,
}

/// What the page says afterwards.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    There(&'static str),
    Gone(&'static str),
}

use Shown::{Gone, There};

const REASON: &str = "seen by dashboard-check";

/// All of them, in the order in which they are done.
#[rustfmt::skip] // four lines an action
pub(super) const ACTS: &[Act] = &[
    Act { name: "pause a queue", is_main: true, page: "/dashboard/queues/{queue}", form: "/dashboard/queues/{queue}/pause", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/queues/{queue}", "/paused", "true")), shown: There(REASON) },
    Act { name: "resume a queue", is_main: true, page: "/dashboard/queues/{queue}", form: "/dashboard/queues/{queue}/resume", button: "",
          fields: &[],
          effect: Some(("/v1/queues/{queue}", "/paused", "false")), shown: Gone(REASON) },
    Act { name: "drain a queue", is_main: false, page: "/dashboard/queues/embeddings", form: "/dashboard/queues/embeddings/drain", button: "Refuse new jobs",
          fields: &[],
          effect: Some(("/v1/queues/embeddings", "/draining", "true")), shown: There("drain") },
    Act { name: "let a queue take jobs again", is_main: false, page: "/dashboard/queues/embeddings", form: "/dashboard/queues/embeddings/drain", button: "Take jobs again",
          fields: &[],
          effect: Some(("/v1/queues/embeddings", "/draining", "false")), shown: There("embeddings") },
    Act { name: "limits of a queue", is_main: false, page: "/dashboard/queues/backlog", form: "/dashboard/queues/backlog/limits", button: "",
          fields: &[("concurrency", "3")],
          effect: Some(("/v1/queues/backlog", "/concurrency", "3")), shown: There("3") },

    Act { name: "reprioritise a job", is_main: true, page: "/dashboard/jobs/{job_waiting}", form: "/dashboard/jobs/{job_waiting}/change", button: "",
          fields: &[("priority", "9")],
          effect: Some(("/v1/jobs/{job_waiting}", "/priority", "9")), shown: There("9") },
    Act { name: "cancel a job", is_main: true, page: "/dashboard/jobs/{job_to_cancel}", form: "/dashboard/jobs/{job_to_cancel}/cancel", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/jobs/{job_to_cancel}", "/state", "cancelled")), shown: There(REASON) },
    Act { name: "cancel a running job", is_main: false, page: "/dashboard/jobs/{job_running}", form: "/dashboard/jobs/{job_running}/cancel", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/jobs/{job_running}", "/state", "cancelled")), shown: There("cancelled") },
    Act { name: "redrive a dead letter", is_main: true, page: "/dashboard/jobs/{dead_to_redrive}", form: "/dashboard/jobs/{dead_to_redrive}/redrive", button: "",
          fields: &[],
          effect: Some(("/v1/jobs/{dead_to_redrive}", "/redrives", "1")), shown: There("redriven") },
    Act { name: "a canary of a group", is_main: false, page: "/dashboard/dead-letters/{signature}", form: "/dashboard/dead-letters/{signature}/canary", button: "",
          fields: &[("canary", "2")],
          effect: None, shown: There("redriven") },
    Act { name: "submit a job", is_main: false, page: "/dashboard/jobs/new", form: "/dashboard/jobs/new", button: "Submit",
          fields: &[("job", "{\"queue\": \"default\", \"kind\": \"probe\", \"payload\": {\"sleep_ms\": 5}}")],
          effect: None, shown: There("probe") },

    Act { name: "pause a schedule", is_main: true, page: "/dashboard/schedules/{schedule}", form: "/dashboard/schedules/{schedule}/pause", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/schedules/{schedule}", "/state", "paused")), shown: There(REASON) },
    Act { name: "resume a schedule", is_main: true, page: "/dashboard/schedules/{schedule}", form: "/dashboard/schedules/{schedule}/resume", button: "",
          fields: &[],
          effect: Some(("/v1/schedules/{schedule}", "/state", "active")), shown: Gone(REASON) },
    Act { name: "preview a schedule", is_main: true, page: "/dashboard/schedules/new", form: "/dashboard/schedules/new", button: "Preview",
          fields: &[("name", "preview"), ("cron", "30 7 * * MON-FRI"), ("time_zone", "Europe/Berlin"), ("template", "{\"queue\":\"default\",\"kind\":\"probe\",\"payload\":{}}")],
          effect: None, shown: There("07:30") },
    Act { name: "make a schedule", is_main: false, page: "/dashboard/schedules/new", form: "/dashboard/schedules/new", button: "Create",
          fields: &[("name", "made-here"), ("tenant", "acme"), ("every", "1h"), ("template", "{\"queue\":\"default\",\"kind\":\"probe\",\"payload\":{}}")],
          effect: Some(("/v1/schedules?limit=100", "/schedules", "~made-here")), shown: There("made-here") },
    Act { name: "count a backfill", is_main: false, page: "/dashboard/schedules/{schedule}", form: "/dashboard/schedules/{schedule}/backfill", button: "Count",
          fields: &[("from", "30d")],
          effect: None, shown: There("tick") },
    Act { name: "delete a schedule", is_main: false, page: "/dashboard/schedules/{schedule_paused}", form: "/dashboard/schedules/{schedule_paused}/delete", button: "",
          fields: &[("confirm", "old-import")],
          effect: Some(("/v1/audit?limit=20", "/rows", "~DELETE /v1/schedules")), shown: There("deleted") },

    Act { name: "pause a target", is_main: true, page: "/dashboard/targets/{target}", form: "/dashboard/targets/{target}/pause", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/targets/{target}", "/paused", "true")), shown: There(REASON) },
    Act { name: "resume a target", is_main: true, page: "/dashboard/targets/{target}", form: "/dashboard/targets/{target}/resume", button: "",
          fields: &[],
          effect: Some(("/v1/targets/{target}", "/paused", "false")), shown: Gone(REASON) },
    Act { name: "hold a breaker open", is_main: true, page: "/dashboard/targets/{target}", form: "/dashboard/targets/{target}/breaker", button: "Hold open",
          fields: &[],
          effect: Some(("/v1/targets/{target}", "/breaker/mode", "open")), shown: There("open") },
    Act { name: "hold a breaker closed", is_main: false, page: "/dashboard/targets/{target}", form: "/dashboard/targets/{target}/breaker", button: "Hold closed",
          fields: &[],
          effect: Some(("/v1/targets/{target}", "/breaker/mode", "close")), shown: There("close") },
    Act { name: "leave a breaker to the calls", is_main: true, page: "/dashboard/targets/{target}", form: "/dashboard/targets/{target}/breaker", button: "Leave it to the calls",
          fields: &[],
          effect: Some(("/v1/targets/{target}", "/breaker/mode", "auto")), shown: Gone("Leave it to the calls") },
    Act { name: "limits of a target", is_main: false, page: "/dashboard/targets/{target}", form: "/dashboard/targets/{target}/limits", button: "",
          fields: &[("requests_per_minute", "1234")],
          effect: Some(("/v1/limits/{target}", "/set/requests_per_minute", "1234")), shown: There("1,234") },

    Act { name: "pause a tenant", is_main: false, page: "/dashboard/tenants/{tenant}", form: "/dashboard/tenants/{tenant}/pause", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/tenants/{tenant}", "/paused", "true")), shown: There(REASON) },
    Act { name: "resume a tenant", is_main: false, page: "/dashboard/tenants/{tenant}", form: "/dashboard/tenants/{tenant}/resume", button: "",
          fields: &[],
          effect: Some(("/v1/tenants/{tenant}", "/paused", "false")), shown: Gone(REASON) },
    Act { name: "budget of a tenant", is_main: true, page: "/dashboard/tenants/ember", form: "/dashboard/tenants/ember/budget", button: "",
          fields: &[("day_usd", "777.00")],
          effect: Some(("/v1/tenants/ember/budget", "/day_usd", "~777")), shown: There("777") },
    Act { name: "budget of the installation", is_main: false, page: "/dashboard/costs", form: "/dashboard/costs/budget", button: "",
          fields: &[("month_usd", "260000.00")],
          effect: Some(("/v1/budget", "/month_usd", "~260000")), shown: There("260,000") },
    Act { name: "make a key", is_main: true, page: "/dashboard/tenants/{tenant}", form: "/dashboard/tenants/{tenant}/keys", button: "",
          fields: &[("name", "made in the browser"), ("role", "user")],
          effect: Some(("/v1/keys?tenant=acme&limit=100", "/keys", "~made in the browser")), shown: There("lsk_") },
    Act { name: "rotate a key", is_main: true, page: "/dashboard/tenants/{tenant}/keys/{key}", form: "/dashboard/tenants/{tenant}/keys/{key}/rotate", button: "",
          fields: &[],
          effect: Some(("/v1/keys/{key}", "/rotated_at", "~20")), shown: There("lsk_") },
    Act { name: "revoke a key", is_main: true, page: "/dashboard/tenants/{tenant}/keys/{key_to_revoke}", form: "/dashboard/tenants/{tenant}/keys/{key_to_revoke}/revoke", button: "",
          fields: &[("confirm", "{key_to_revoke}")],
          effect: Some(("/v1/keys/{key_to_revoke}", "/state", "revoked")), shown: There("revoked") },

    Act { name: "drain a worker", is_main: true, page: "/dashboard/workers", form: "/dashboard/workers/{worker}/drain", button: "Drain",
          fields: &[],
          effect: Some(("/v1/workers", "/workers", "~\"draining\":true")), shown: There("drain") },
    Act { name: "let a worker go on", is_main: true, page: "/dashboard/workers", form: "/dashboard/workers/{worker}/drain", button: "Claim again",
          fields: &[],
          effect: Some(("/v1/workers", "/workers/0/draining", "false")), shown: There("Workers") },

    Act { name: "make a backup", is_main: true, page: "/dashboard/backups", form: "/dashboard/backups/create", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/backups", "/backups/0/reason", REASON)), shown: There(REASON) },
    Act { name: "verify a backup", is_main: true, page: "/dashboard/backups", form: "/dashboard/backups/{backup}/verify", button: "",
          fields: &[],
          effect: Some(("/v1/backups/{backup}", "/check", "~state")), shown: There("Backups") },
    Act { name: "maintenance on", is_main: true, page: "/dashboard/backups", form: "/dashboard/backups/maintenance", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/maintenance", "/on", "true")), shown: There("maintenance") },
    Act { name: "maintenance off", is_main: true, page: "/dashboard/backups", form: "/dashboard/backups/maintenance", button: "",
          fields: &[],
          effect: Some(("/v1/maintenance", "/on", "false")), shown: There("Backups") },
    Act { name: "run the upkeep", is_main: false, page: "/dashboard/backups/upkeep?show=journal", form: "/dashboard/backups/upkeep/run", button: "",
          fields: &[],
          effect: None, shown: There("Backups") },
    Act { name: "switch a webhook off", is_main: false, page: "/dashboard/webhooks/{webhook}", form: "/dashboard/webhooks/{webhook}/off", button: "",
          fields: &[("reason", REASON)],
          effect: Some(("/v1/webhooks/{webhook}", "/enabled", "false")), shown: There("pager") },

    Act { name: "the dark theme", is_main: true, page: "/dashboard", form: "/dashboard/theme", button: "Dark",
          fields: &[],
          effect: None, shown: There("Light") },
    Act { name: "sign out", is_main: true, page: "/dashboard", form: "/dashboard/logout", button: "",
          fields: &[],
          effect: None, shown: There("Sign in") },
];
