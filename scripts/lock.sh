#!/usr/bin/env bash
# Write the lock files, or with --check say whether they fit pyproject.toml.
#
#   requirements.lock   everything: all extras, the tests and the documentation
#   service/gpu.lock    what the GPU image on Modal holds, at the versions of requirements.lock
#   service/web.lock    what the web image holds, at the same versions
#
# Versions that are locked already stay, unless pyproject.toml no longer allows them. To move to
# the newest ones, delete requirements.lock first.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {  # compile OUTPUT ARGUMENTS...
  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --no-annotate --no-header -o "$@" >/dev/null
}

folder=.
if [ "${1:-}" = --check ]; then
  folder=$(mktemp -d)
  trap 'rm -r "$folder"' EXIT
  mkdir "$folder/service"
  cp requirements.lock "$folder"
fi
compile "$folder/requirements.lock" pyproject.toml --all-extras --group test --group docs
for image in gpu web; do
  compile "$folder/service/$image.lock" --group "$image-image" -c "$folder/requirements.lock"
done
if [ "${1:-}" = --check ]; then
  for lock in requirements.lock service/gpu.lock service/web.lock; do
    diff "$lock" "$folder/$lock" || { echo "$lock does not fit pyproject.toml: run scripts/lock.sh"; exit 1; }
  done
fi
