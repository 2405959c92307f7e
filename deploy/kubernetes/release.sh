#!/usr/bin/env bash
# Brings a version into the cluster, and takes it back.
#
#     release.sh roll OVERLAY IMAGE      # dev or production: migrate (backup first), roll, smoke; rolled back where that fails
#     release.sh prepare COLOUR IMAGE    # blue or green beside the other one: migrate, start, smoke; no client notices
#     release.sh switch COLOUR           # clients go to it, smoke; back to the other one where that fails
#     release.sh retire COLOUR           # workers of the colour that nobody uses any more drain and go
#
# Needs kubectl 1.27 or newer with rights to the namespace. A version never takes back a schema: what came before starts only while the
# schema is the one that it knows (README.md, "Back").
set -euo pipefail
cd "$(dirname "$0")"

ROLL_OUT=${ROLL_OUT_TIMEOUT:-15m}
MIGRATE=${MIGRATE_TIMEOUT:-60m}

fail() { echo "release.sh: $*" >&2; exit 1; }
say() { echo "release.sh: $*" >&2; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# The overlay with this image: in a folder of its own, since kubectl has no flag for it.
render() {
  local overlay=$1 image=$2 name=$2 pinned
  case $image in
    *@sha256:*) name=${image%%@*} pinned="digest: ${image#*@}" ;;
    *:*) name=${image%:*} pinned="newTag: '${image##*:}'" ;;
    *) fail "the image $image has neither a tag nor a digest" ;;
  esac
  work=$(mktemp -d .release.XXXXXX)
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../%s]\nimages:\n  - name: longshore\n    newName: %s\n    %s\n' \
    "$overlay" "$name" "$pinned" > "$work/kustomization.yaml"
  [ -z "${3:-}" ] || printf '%s\n' "$3" >> "$work/kustomization.yaml"
  kubectl kustomize "$work"
  rm -r "$work"
}
trap 'rm -rf .release.??????' EXIT

namespace_of() { sed -n 's/^namespace: *//p' "overlays/$1/kustomization.yaml"; }

# Waits for a Job to end, well or not: `kubectl wait` alone would sit out its whole time when one fails.
await_job() {
  local job=$1 within=$2
  # Not by way of `kube`: what is ended below has to be kubectl itself.
  kubectl --namespace "$namespace" wait --for=condition=complete --timeout="$within" "job/$job" & local good=$!
  kubectl --namespace "$namespace" wait --for=condition=failed --timeout="$within" "job/$job" & local bad=$!
  wait -n "$good" "$bad" || true
  kill "$good" "$bad" 2>/dev/null || true
  wait 2>/dev/null || true
  kube logs "job/$job" --tail=50 >&2 || true
  [ "$(kube get "job/$job" -o 'jsonpath={.status.succeeded}')" = 1 ]
}

kube() { kubectl --namespace "$namespace" "$@"; }

# What everything else needs, then the migration, and nothing else until that has worked.
migrate() {
  kubectl apply --selector longshore.dev/phase=before -f "$manifests"
  kube delete job --selector "app.kubernetes.io/component=migrate$1" --ignore-not-found --wait
  kubectl apply --selector longshore.dev/phase=migrate -f "$manifests"
  await_job "longshore-migrate$2" "$MIGRATE" || fail "the migration failed: nothing was rolled. A backup was made first, where one is configured"
}

rolled() {
  local role
  for role in api worker scheduler; do
    kube rollout status --timeout="$ROLL_OUT" "deployment/longshore-$role$1" || return 1
  done
}

# Submits a job, waits for its result, reads the metrics. Its callers look at how it ends, so each step has to say so itself.
smoke() {
  local url=$1 image=$2 job
  job=longshore-smoke
  kube delete "job/$job" --ignore-not-found --wait || return 1
  render smoke "$image" "patches:
  - target: { kind: Job }
    patch: |-
      - { op: replace, path: /spec/template/spec/containers/0/env/0/value, value: \"$url\" }" | kube apply -f - || return 1
  await_job "$job" 4m
}

image_of() { kube get "deployment/longshore-api-$1" -o 'jsonpath={.spec.template.spec.containers[0].image}'; }

clients_on() { kube get service longshore-api -o 'jsonpath={.spec.selector.longshore\.dev/colour}'; }

lead_to() { kube patch service longshore-api --type merge --patch "{\"spec\":{\"selector\":{\"longshore.dev/colour\":\"$1\"}}}"; }

other() { if [ "$1" = blue ]; then echo green; else echo blue; fi; }

is_colour() { case $1 in blue | green) ;; *) fail "$1 is no colour: blue or green" ;; esac; }

roll() {
  local overlay=$1 image=$2 role
  namespace=$(namespace_of "$overlay")
  manifests=$(mktemp)
  render "overlays/$overlay" "$image" > "$manifests"
  migrate "" ""
  kubectl apply --selector 'longshore.dev/phase!=migrate' -f "$manifests"
  rm "$manifests"
  if rolled "" && smoke http://longshore-api:8080 "$image"; then
    say "$image runs in $namespace"
    return
  fi
  say "rolling back"
  for role in api worker scheduler; do kube rollout undo "deployment/longshore-$role" || true; done
  rolled "" || say "the version before does not start either: where the schema has changed, see README.md, \"Back\""
  fail "$image was rolled back"
}

prepare() {
  local colour=$1 image=$2 now
  is_colour "$colour"
  namespace=$(namespace_of "$colour")
  # By itself: within a test, a question that fails would not end this.
  now=$(clients_on)
  [ "$now" != "$colour" ] || fail "clients are on $colour: prepare $(other "$colour")"
  manifests=$(mktemp)
  render "overlays/$colour" "$image" > "$manifests"
  migrate ",longshore.dev/colour=$colour" "-$colour"
  kubectl apply --selector 'longshore.dev/phase!=migrate' -f "$manifests"
  rm "$manifests"
  rolled "-$colour" || fail "$colour does not start; clients are where they were"
  smoke "http://longshore-api-$colour:8080" "$image" || fail "$colour does not work; clients are where they were"
  say "$colour is ready: release.sh switch $colour"
}

switch() {
  local colour=$1 before image
  is_colour "$colour"
  namespace=$(namespace_of "$colour")
  before=$(clients_on)
  image=$(image_of "$colour")
  rolled "-$colour" || fail "$colour is not up: release.sh prepare $colour IMAGE"
  lead_to "$colour"
  if smoke http://longshore-api:8080 "$image"; then
    say "clients are on $colour ($image). Back: release.sh switch $before. Done with it: release.sh retire $before"
    return
  fi
  lead_to "$before"
  fail "$colour did not work: clients are on $before again"
}

retire() {
  local colour=$1 now
  is_colour "$colour"
  namespace=$(namespace_of "$colour")
  now=$(clients_on)
  [ "$now" != "$colour" ] || fail "clients are on $colour"
  # SIGTERM: workers end what they run, or give it back.
  kube delete scaledobject,horizontalpodautoscaler,poddisruptionbudget,deployment,service,job,serviceaccount,configmap \
    --selector "longshore.dev/colour=$colour" --ignore-not-found
  say "$colour is gone"
}

case ${1:-} in
  roll | prepare) [ $# -eq 3 ] || usage ;;
  switch | retire) [ $# -eq 2 ] || usage ;;
  *) usage ;;
esac
"$@"
