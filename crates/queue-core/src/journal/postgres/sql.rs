//! Every statement of this store, by name. The texts are the files under `sql/postgres`, each with its contract.

macro_rules! texts {
    ($($name:ident = $($file:literal)and+,)*) => {
        $(pub(super) const $name: &str = concat!($(include_str!(concat!("../../../sql/postgres/", $file, ".sql"))),+);)*

        /// Every statement with its name.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// Prepared statements that a connection keeps: more than there are.
pub(super) const STATEMENTS_MAX: usize = 96;

texts! {
    ACCEPT_AT_ONCE = "accept_at_once",
    ACCEPT_JOBS = "accept_jobs",
    ACCEPT_PAYLOADS = "accept_payloads",
    ANSWERED = "answered",
    ATTEMPTS_OF = "attempts_of",
    BACKLOG = "backlog",
    BATCH = "batch",
    CALLS_OF = "calls_of",
    CANCEL = "cancel",
    CHECK = "check",
    CONVICT = "convict",
    COSTS = "costs",
    CREATE_PARTITIONS = "create_partitions",
    DEAD_GROUPS = "dead_groups",
    DROP_PARTITIONS = "drop_partitions",
    EDIT = "edit",
    EDIT_PAYLOAD = "edit_payload",
    FILLING = "filling",
    FILLING_NOTE = "filling_note",
    GENERATION = "generation",
    IDEMPOTENCY_BODIES_CLAIM = "idempotency_bodies_claim",
    IDEMPOTENCY_BODIES_DROP = "idempotency_bodies_drop",
    IDEMPOTENCY_BODIES_FIND = "idempotency_bodies_find",
    IDEMPOTENCY_CLAIM = "idempotency_claim",
    IDEMPOTENCY_DROP = "idempotency_drop",
    IDEMPOTENCY_FIND = "idempotency_find",
    INCARNATION = "incarnation",
    JOBS_LOCK = "jobs_lock",
    JOBS_OF = "jobs_of",
    KEY_ADD = "key_add",
    KEY_COUNT = "key_count",
    KEY_FIND = "key_find",
    KNOWN_JOBS = "known_jobs",
    LIST_BATCH = "list_batch" and "list_filter",
    LIST_DEAD = "list_dead" and "list_filter",
    LIST_LIVE = "list_live" and "list_filter",
    LIST_NEWEST = "list_newest" and "list_filter",
    LIVE = "live",
    LIVE_FEW = "live_few",
    LOAD = "load",
    MEMOS = "memos",
    MEMOS_KEEP = "memos_keep",
    MISSING_RIGHTS = "missing_rights",
    PAYLOAD_OF = "payload_of",
    QUEUES = "queues",
    QUEUES_OPEN = "queues_open",
    QUEUE_SET = "queue_set",
    RECONCILE = "reconcile",
    RECOVER = "recover",
    REDRIVE = "redrive",
    RESULT_OF = "result_of",
    SESSION = "session",
    SESSIONS = "sessions",
    SESSION_CLOSE = "session_close",
    SESSION_OPEN = "session_open",
    SETTLED_BY_US = "settled_by_us",
    SETTLE_OTHER = "settle_other",
    SETTLE_SUCCEED = "settle_succeed",
    SPEND = "spend",
    SPEND_SUMS = "spend_sums",
    SPEND_SUMS_SETTLED = "spend_sums_settled",
    STANDING = "standing",
    TENANTS = "tenants",
    TENANT_SET = "tenant_set",
    TOTALS = "totals",
    TOTALS_ADD = "totals_add",
    WALK = "walk",
    UNIQUE_CLAIM = "unique_claim",
    UNIQUE_FIND = "unique_find",
    UNIQUE_FREE = "unique_free",
}
