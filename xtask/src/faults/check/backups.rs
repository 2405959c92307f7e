//! Backups whose makers are killed: what is called good is whole, and somebody goes on.

use std::time::Duration;

use super::{super::history::InjectorEvent, super::scenario::Demands, Evidence, Report, Rule};

/// Looks at each of them.
pub(super) fn judge(evidence: &Evidence, demands: Demands, report: &mut Report) {
    for (at, line) in evidence.injector.iter().enumerate() {
        match &line.event {
            InjectorEvent::Good { backup, fault } => {
                report.good_backups += 1;
                if let Some(fault) = fault {
                    report.violate(Rule::Backup, format!("{backup} is called good and is not: {fault}"));
                }
            }
            InjectorEvent::KilledInBackup { process } => {
                report.kills_in_backups += 1;
                let begins = |event: &InjectorEvent| matches!(event, InjectorEvent::CopyBegan { .. });
                match evidence.injector[at..].iter().find(|next| begins(&next.event)) {
                    Some(next) => {
                        let gap = Duration::from_micros(next.mono_us - line.mono_us);
                        report.backup_gap = report.backup_gap.max(Some(gap));
                    }
                    None => report.violate(Rule::Backup, format!("nobody went on where {process} was killed")),
                }
            }
            _ => {}
        }
    }
    let Some(limit) = demands.taken_over_within else { return };
    if report.kills_in_backups == 0 || report.good_backups == 0 {
        report.violate(Rule::Witness, "no kill met a backup, or none was good: the run shows nothing");
    }
    if let Some(gap) = report.backup_gap.filter(|gap| *gap > limit) {
        let seen = format!("a backup was begun anew {:.1} s after its maker was killed", gap.as_secs_f64());
        report.violate(Rule::Slow, seen);
    }
}
