#!/usr/bin/env bash
# Rules and dashboards of deploy/monitoring as the Prometheus operator and Grafana's sidecar look for them.
#
#     monitoring.sh | kubectl --namespace monitoring apply -f -
set -euo pipefail
cd "$(dirname "$0")/../monitoring"

# A rule file is what a PrometheusRule has below `spec`.
cat <<'YAML'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: longshore
spec:
YAML
sed 's/^/  /' alerts.yml

# A dashboard each: a ConfigMap holds 1 MiB at most.
for dashboard in dashboards/*.json; do
  printf -- '---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: longshore-dashboard-%s\n  labels:\n    grafana_dashboard: "1"\ndata:\n  %s: |\n' \
    "$(basename "$dashboard" .json)" "$(basename "$dashboard")"
  sed 's/^/    /' "$dashboard"
done
