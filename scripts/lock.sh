#!/usr/bin/env bash
# Write the locked versions, or with --check say whether they fit pyproject.toml.
#
#   requirements.lock   everything: all extras, the tests and the documentation, with the checksums
#                       of their files
#   pyproject.toml      the same versions as uv's constraint-dependencies, at the end of the file,
#                       so that `uv run` and `uv sync` install them on a new machine
#   service/gpu.lock    what the GPU image on Modal holds, at the same versions and checksums
#   service/web.lock    and the web image
#
# Versions that are locked already stay, unless pyproject.toml no longer allows them. To move to
# the newest ones, delete requirements.lock first.
set -euo pipefail
cd "$(dirname "$0")/.."

mark="# Written by scripts/lock.sh"
new=$(mktemp -d)
trap 'rm -r "$new"' EXIT

compile() {  # compile OUTPUT ARGUMENTS..., without the versions that pyproject.toml has now
  (cd "$new" && uv pip compile --quiet --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --generate-hashes \
    -o "$@" >/dev/null)
}

mkdir "$new/service"
sed "\|^$mark|,\$d" pyproject.toml > "$new/pyproject.toml"
if [ -f requirements.lock ]; then cp requirements.lock "$new"; fi
compile requirements.lock pyproject.toml --all-extras --group test --group docs
for image in gpu web; do
  compile "service/$image.lock" --group "$image-image" -c requirements.lock
done
{
  echo "$mark: the versions of requirements.lock."
  echo "constraint-dependencies = ["
  sed -n 's/^\([^ ]*==[^ ]*\).*/    "\1",/p' "$new/requirements.lock"
  echo "]"
} >> "$new/pyproject.toml"

for file in requirements.lock pyproject.toml service/gpu.lock service/web.lock; do
  if [ "${1:-}" = --check ]; then
    diff "$file" "$new/$file" || { echo "$file is not up to date: run scripts/lock.sh"; exit 1; }
  else
    cp "$new/$file" "$file"
  fi
done
