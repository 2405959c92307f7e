#!/usr/bin/env bash
# Stands in for kubectl where `cargo xtask deploy-check` rehearses release.sh: overlays are rendered by the real one ($REAL), all else is
# written down in $CALLS. $COLOUR is the file with the colour that clients are on; what matches $FAILS fails, as does a smoke with $SMOKE_FAILS.
set -euo pipefail
[ "$1" = kustomize ] && exec "$REAL" "$@"
words=$*
printf '%s\n' "$words" >> "$CALLS"
if [[ $words == *"-f -"* ]]; then cat > /dev/null; fi
if [[ -n ${FAILS:-} && $words =~ $FAILS ]]; then exit 1; fi
smoke_fails=
if [[ -n ${SMOKE_FAILS:-} && $words == *longshore-smoke* ]]; then smoke_fails=yes; fi
case $words in
  *"get service longshore-api"*) cat "$COLOUR" ;;
  *"patch service longshore-api"*) [[ $words =~ colour\":\"([a-z]+) ]] && printf '%s' "${BASH_REMATCH[1]}" > "$COLOUR" ;;
  *"get deployment/longshore-api-"*) printf 'registry.example/longshore:2' ;;
  # A Job ends one way; the other is waited for until it is told to stop.
  *"condition=complete"*) if [ -n "$smoke_fails" ]; then exec sleep 60; fi ;;
  *"condition=failed"*) if [ -z "$smoke_fails" ]; then exec sleep 60; fi ;;
  *"get job/"*) if [ -z "$smoke_fails" ]; then printf 1; fi ;;
esac
