//! Every statement of this store, by name. The texts are the files under `sql/sqlite`, each with its contract.

use rusqlite::{Connection, OptionalExtension, Params, Row, Statement};

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("../../../sql/sqlite/", $file, ".sql"))
    };
}

macro_rules! writes {
    ($($name:ident = $file:literal,)*) => {
        /// A statement of the writer.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Write {
            $($name,)*
        }

        /// The texts, in the order of the names.
        const WRITES: &[&str] = &[$(text!($file),)*];
    };
}

writes! {
    AcceptJob = "accept_job",
    AcceptPayload = "accept_payload",
    BackupChange = "backup_change",
    BackupOrder = "backup_order",
    BackupsForget = "backups_forget",
    IdempotencyFind = "idempotency_find",
    IdempotencyKeep = "idempotency_keep",
    UniqueFind = "unique_find",
    UniqueTake = "unique_take",
    UniqueFree = "unique_free",
    SettleFind = "settle_find",
    Settle = "settle",
    Attempt = "attempt",
    Result = "result",
    Charge = "charge",
    Saving = "saving",
    Spend = "spend",
    SpendSums = "spend_sums",
    Memo = "memo",
    Waste = "waste",
    WasteNot = "waste_not",
    Recover = "recover",
    Convict = "convict",
    Reconcile = "reconcile",
    Cancel = "cancel",
    Standing = "standing",
    Edit = "edit",
    EditPayload = "edit_payload",
    Redrive = "redrive",
    TotalsOpen = "totals_open",
    TotalsAdd = "totals_add",
    TenantAdd = "tenant_add",
    TenantOpen = "tenant_open",
    TenantSet = "tenant_set",
    TargetSet = "target_set",
    CredentialPut = "credential_put",
    CredentialRewrap = "credential_rewrap",
    CredentialSet = "credential_set",
    CredentialNote = "credential_note",
    QueueOpen = "queue_open",
    QueueSet = "queue_set",
    KeyAdd = "key_add",
    KeyLimit = "key_limit",
    KeyRotate = "key_rotate",
    KeyUsed = "key_used",
    KeysAdmins = "keys_admins",
    KeysRevoke = "keys_revoke",
    TokenRevoke = "token_revoke",
    TokensForget = "tokens_forget",
    SessionOpen = "session_open",
    SessionClose = "session_close",
    SessionDrain = "session_drain",
    MaintenanceSet = "maintenance_set",
    LogLevelSet = "log_level_set",
    FillingNote = "filling_note",
    Generation = "generation",
    Check = "check",
    BudgetSet = "budget_set",
    BudgetWake = "budget_wake",
    BudgetAlert = "budget_alert",
    ArchiveReady = "archive_ready",
    ArchiveObjectAdd = "archive_object_add",
    ArchiveAdd = "archive_add",
    ArchiveObjectRestore = "archive_object_restore",
    RestoreLetter = "restore_letter",
    DeleteJob = "delete_job",
    DeletePayload = "delete_payload",
    DeleteResult = "delete_result",
    DeleteAttempts = "delete_attempts",
    DeleteMemos = "delete_memos",
    Operation = "operation",
    OperationAbort = "operation_abort",
    OperationBegin = "operation_begin",
    OperationHold = "operation_hold",
    OperationInTheWay = "operation_in_the_way",
    OperationPrune = "operation_prune",
    OperationStep = "operation_step",
    OperationTake = "operation_take",
    KeyTenant = "key_tenant",
    WebhookAny = "webhook_any",
    WebhookTell = "webhook_tell",
    WebhookTellOwn = "webhook_tell_own",
    WebhookAdd = "webhook_add",
    WebhookChange = "webhook_change",
    WebhookDrop = "webhook_drop",
    WebhookOff = "webhook_off",
    SigningSecretPut = "signing_secret_put",
    SigningSecretRewrap = "signing_secret_rewrap",
    SigningSecretsLimit = "signing_secrets_limit",
    SigningSecretsDrop = "signing_secrets_drop",
    CircuitAgain = "circuit_again",
    CircuitOpen = "circuit_open",
    CircuitClose = "circuit_close",
    DeliveryClaim = "delivery_claim",
    DeliveryRow = "delivery_row",
    DeliveryLog = "delivery_log",
    DeliveryNote = "delivery_note",
    DeliveriesGiveUp = "deliveries_give_up",
    DeliveryReplay = "delivery_replay",
    DeliveriesPrune = "deliveries_prune",
    AttemptsPrune = "attempts_prune",
    AuditLast = "audit_last",
    AuditAdd = "audit_add",
    AuditHeadSet = "audit_head_set",
    EraseBegin = "erase_begin",
    EraseEnd = "erase_end",
    EraseEndpoints = "erase_endpoints",
    EraseFound = "erase_found",
    EraseHold = "erase_hold",
    EraseIsOver = "erase_is_over",
    EraseKeys = "erase_keys",
    EraseReplay = "erase_replay",
    EraseSecrets = "erase_secrets",
    EraseShred = "erase_shred",
    EraseSweep = "erase_walk",
    AuditFloorAdd = "audit_floor_add",
    AuditFloorRaise = "audit_floor_raise",
    AuditForget = "audit_forget",
    RetentionOrder = "retention_order",
    RetentionTake = "retention_take",
    RetentionEnd = "retention_end",
    RetentionNote = "retention_note",
    ResultTtlAdd = "result_ttl_add",
    ResultsExpire = "results_expire",
    ResultsForget = "results_forget",
    ResultsLater = "results_later",
    IdempotencyForget = "idempotency_forget",
    ForgetSpend = "forget_spend",
    ForgetCharges = "forget_charges",
    ForgetSavings = "forget_savings",
    PayloadsForget = "payloads_forget",
    MemosForget = "memos_forget",
    AttemptsForget = "attempts_forget",
    ScheduleAdd = "schedule_add",
    ScheduleAdvance = "schedule_advance",
    ScheduleChange = "schedule_change",
    ScheduleClaim = "schedule_claim",
    ScheduleDrop = "schedule_drop",
    ScheduleNamed = "schedule_named",
}

macro_rules! reads {
    ($($name:ident = $($file:literal)and+,)*) => {
        /// The statements of readers.
        pub(super) mod read {
            $(pub(in super::super) const $name: &str = concat!($(text!($file)),+);)*
        }
    };
}

reads! {
    ANSWERED = "answered",
    ARCHIVES = "archives",
    ARCHIVE_OBJECTS = "archive_objects",
    LETTER = "letter",
    LOAD = "load",
    LIVE = "live",
    MEMOS = "memos",
    JOB = "job",
    PAYLOAD_OF = "payload_of",
    FALLBACK_OF = "fallback_of",
    RESULT_OF = "result_of",
    ATTEMPTS_OF = "attempts_of",
    CALLS_OF = "calls_of",
    SAVINGS_OF = "savings_of",
    RECENT_CALLS = "recent_calls",
    NEWEST_OF = "newest_of",
    LIVE_FEW = "live_few",
    DEAD_GROUPS = "dead_groups",
    DEAD_GROUPS_OF_KEY = "dead_groups_of_key",
    DEAD_GROUPS_OF_TENANT = "dead_groups_of_tenant",
    TOTALS = "totals",
    BATCH = "batch",
    BATCH_OF = "batch_of",
    COSTS = "costs",
    QUEUES = "queues",
    TENANTS = "tenants",
    TENANTS_KNOWN = "tenants_known",
    TARGETS = "targets",
    CREDENTIALS_SINCE = "credentials_since",
    CREDENTIAL_POLICIES = "credential_policies",
    BUDGETS = "budgets",
    BUDGET_ALERTS = "budget_alerts",
    BUDGET_SPENT = "budget_spent",
    BUDGET_SPENT_OF_KEY = "budget_spent_of_key",
    WEBHOOK_ENDPOINTS = "webhook_endpoints",
    WEBHOOK_CIRCUITS = "webhook_circuits",
    SIGNING_SECRETS = "signing_secrets",
    SIGNING_SECRETS_BEHIND = "signing_secrets_behind",
    DELIVERIES_ALL = "deliveries_all",
    DELIVERIES_DUE = "deliveries_due",
    DELIVERIES_ENDPOINT = "deliveries_endpoint",
    DELIVERIES_JOB = "deliveries_job",
    DELIVERIES_ONE = "deliveries_one",
    DELIVERY_ATTEMPTS = "delivery_attempts",
    AUDIT_AFTER = "audit_after",
    AUDIT_BEFORE = "audit_before",
    AUDIT_HEADS = "audit_heads",
    BACKLOG = "backlog",
    BACKUP = "backup",
    BACKUPS = "backups",
    BACKUP_WORK = "backup_work",
    KEY_FIND = "key_find",
    KEYS_PAGE = "keys_page",
    TOKEN_REVOKED = "token_revoked",
    KEY_COUNT = "key_count",
    SESSIONS = "sessions",
    MAINTENANCE = "maintenance",
    LOG_LEVEL = "log_level",
    RESTORED = "restored",
    ORDERS = "orders",
    ERASE_COUNTS = "erase_counts",
    ERASE_WALK = "erase_walk",
    ERASURES = "erasures",
    FILLING = "filling",
    INCARNATION = "incarnation",
    WALK_NEWEST = "walk_newest",
    WALK_DEAD = "walk_dead",
    WALK_BATCH = "walk_batch",
    WALK_CAUSE = "walk_cause",
    WALK_QUEUE = "walk_queue",
    OPERATION = "operation",
    OPERATIONS = "operations",
    SCHEDULE = "schedule",
    SCHEDULES = "schedules",
    SCHEDULES_DUE = "schedules_due",
    LIST_NEWEST = "list_newest" and "list_filter",
    LIST_LIVE = "list_live" and "list_filter",
    LIST_DEAD = "list_dead" and "list_filter",
    LIST_CAUSE = "list_cause" and "list_filter",
    LIST_DEAD_QUEUE = "list_dead_queue" and "list_filter",
    LIST_BATCH = "list_batch" and "list_filter",
    RETENTION_TURN = "retention_turn",
    RETENTION_NOTES = "retention_notes",
    RETENTION_NEWEST = "retention_newest",
    SETTLED_PAGE = "settled_page",
    PILE_PAYLOADS = "pile_payloads",
    PILE_ATTEMPTS = "pile_attempts",
    PILE_RESULTS = "pile_results",
    PILE_KEYS = "pile_keys",
    PILE_COSTS = "pile_costs",
    PILE_DELIVERIES = "pile_deliveries",
    AUDIT_FLOOR = "audit_floor",
    AUDIT_DAYS = "audit_days",
}

/// The scripts of an erasure: several statements each, without arguments.
pub(super) const ERASE_WHOLE: &str = text!("erase_whole");
/// See [`ERASE_WHOLE`].
pub(super) const ERASE_WINDOW: &str = text!("erase_window");

/// The writer's statements, each prepared when it is first needed and then kept: looking one up by its text would
/// cost as much as a small statement takes to run.
pub(super) struct Prepared<'c> {
    connection: &'c Connection,
    statements: Vec<Option<Statement<'c>>>,
}

impl<'c> Prepared<'c> {
    /// Nothing is prepared yet.
    pub(super) fn on(connection: &'c Connection) -> Self {
        Self { connection, statements: WRITES.iter().map(|_| None).collect() }
    }

    /// Runs a statement that returns no rows; how many it changed.
    pub(super) fn execute(&mut self, write: Write, params: impl Params) -> rusqlite::Result<usize> {
        self.statement(write)?.execute(params)
    }

    /// Runs a statement that returns at most one row.
    pub(super) fn find<T>(
        &mut self,
        write: Write,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.statement(write)?.query_row(params, read).optional()
    }

    /// Runs a statement that returns a few rows.
    pub(super) fn all<T>(
        &mut self,
        write: Write,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.statement(write)?.query_map(params, read)?.collect()
    }

    /// Runs a statement that returns exactly one row.
    pub(super) fn one<T>(
        &mut self,
        write: Write,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.statement(write)?.query_row(params, read)
    }

    /// Lets go of the values of the last run: a large payload must not stay in memory until the next one.
    pub(super) fn forget_values(&mut self) {
        self.statements.iter_mut().flatten().for_each(Statement::clear_bindings);
    }

    fn statement(&mut self, write: Write) -> rusqlite::Result<&mut Statement<'c>> {
        let slot = &mut self.statements[write as usize];
        match slot {
            Some(statement) => Ok(statement),
            None => Ok(slot.insert(self.connection.prepare(WRITES[write as usize])?)),
        }
    }
}
