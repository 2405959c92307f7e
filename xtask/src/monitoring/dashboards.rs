//! Grafana's dashboards, from a list of panels.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::root;

/// Where they are read from, and where the JSON lies.
pub(super) const SOURCE: &str = "deploy/monitoring/dashboards.toml";
pub(super) const FOLDER: &str = "deploy/monitoring/dashboards";
/// Columns of Grafana's grid, and rows of a panel.
const COLUMNS: u32 = 24;
const ROWS: u32 = 8;
const ROWS_OF_STAT: u32 = 4;
/// The form of the JSON, as Grafana 11 and 12 read it.
const SCHEMA_VERSION: u32 = 39;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    dashboard: Vec<Dashboard>,
}

/// One dashboard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dashboard {
    /// Names its file and its address.
    pub(super) uid: String,
    title: String,
    about: String,
    pub(super) panel: Vec<Panel>,
}

/// One panel of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Panel {
    pub(super) title: String,
    unit: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default = "half")]
    width: u32,
    #[serde(default)]
    stack: bool,
    #[serde(default)]
    exemplars: bool,
    max: Option<u32>,
    #[serde(default)]
    help: String,
    /// Expression and legend.
    pub(super) queries: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    TimeSeries,
    Stat,
}

fn half() -> u32 {
    COLUMNS / 2
}

/// All of them.
pub(super) fn read() -> Result<Vec<Dashboard>> {
    let text = fs::read_to_string(root().join(SOURCE))?;
    let all: All = toml::from_str(&text).with_context(|| SOURCE)?;
    Ok(all.dashboard)
}

/// The files that there should be.
pub(super) fn files() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for dashboard in read()? {
        let text = format!("{:#}\n", json_of(&dashboard)?);
        let path = PathBuf::from(FOLDER).join(format!("{}.json", dashboard.uid));
        ensure!(files.insert(path, text).is_none(), "two dashboards are called {}", dashboard.uid);
    }
    Ok(files)
}

/// The files that there are.
pub(super) fn on_disk() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root().join(FOLDER))?;
    entries.map(|entry| Ok(PathBuf::from(FOLDER).join(entry?.file_name()))).collect()
}

fn json_of(dashboard: &Dashboard) -> Result<Value> {
    let mut panels = vec![];
    let (mut x, mut y, mut row) = (0, 0, 0);
    for (number, panel) in (1u32..).zip(&dashboard.panel) {
        ensure!(!panel.unit.is_empty() && !panel.queries.is_empty(), "`{}` has no unit or query", panel.title);
        let height = if panel.kind == Kind::Stat { ROWS_OF_STAT } else { ROWS };
        if x + panel.width > COLUMNS || (x > 0 && height != row) {
            (x, y) = (0, y + row);
        }
        row = height;
        panels.push(panel_json(panel, number, json!({"x": x, "y": y, "w": panel.width, "h": height})));
        x += panel.width;
    }
    let uses_queue = dashboard.panel.iter().flat_map(|panel| &panel.queries).any(|(query, _)| query.contains("$queue"));
    let mut variables = vec![json!({
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0,
    })];
    if uses_queue {
        variables.push(json!({
            "name": "queue", "label": "Queue", "type": "query", "datasource": source(),
            "query": {"query": "label_values(longshore_queue_jobs, queue)", "refId": "queue"},
            "refresh": 2, "multi": true, "includeAll": true, "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }));
    }
    Ok(json!({
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["longshore"],
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "schemaVersion": SCHEMA_VERSION,
        "templating": {"list": variables},
        "links": [{
            "title": "Longshore", "type": "dashboards", "tags": ["longshore"], "asDropdown": true, "keepTime": true,
        }],
        "panels": panels,
    }))
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn panel_json(panel: &Panel, number: u32, place: Value) -> Value {
    let targets: Vec<Value> = (b'A'..)
        .zip(&panel.queries)
        .map(|(letter, (query, legend))| {
            json!({
                "refId": char::from(letter).to_string(), "datasource": source(), "expr": query, "legendFormat": legend,
                "exemplar": panel.exemplars, "instant": panel.kind == Kind::Stat, "range": panel.kind != Kind::Stat,
            })
        })
        .collect();
    let stacking = if panel.stack { "normal" } else { "none" };
    let mut defaults = json!({"unit": panel.unit, "min": 0});
    if let Some(max) = panel.max {
        defaults["max"] = json!(max);
    }
    let (kind, options) = match panel.kind {
        Kind::TimeSeries => {
            defaults["custom"] = json!({
                "drawStyle": "line", "lineWidth": 1, "fillOpacity": if panel.stack { 30 } else { 5 },
                "showPoints": "never", "spanNulls": false, "stacking": {"mode": stacking, "group": "A"},
            });
            let options = json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            });
            ("timeseries", options)
        }
        Kind::Stat => {
            let options = json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "colorMode": "none", "graphMode": "none", "textMode": "auto", "orientation": "auto",
            });
            ("stat", options)
        }
    };
    json!({
        "id": number, "title": panel.title, "description": panel.help, "type": kind, "datasource": source(),
        "gridPos": place, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options, "targets": targets,
    })
}
