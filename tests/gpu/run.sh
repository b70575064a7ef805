#!/usr/bin/env bash
# What a person with an NVIDIA GPU runs: the tests that need one, the table of docs/performance.md,
# and where the time goes. It takes some four minutes on an H100.
#
# With the project installed: tests/gpu/run.sh
# On a machine without network, whose python has torch, triton, pytest and the project's other
# dependencies: PYTHON=python3 tests/gpu/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra python <<< "${PYTHON:-uv run python}"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

bench() { "${python[@]}" -c "from musicgen_lab.cli import main; main()" bench --rounds 1 "$@"; }

"${python[@]}" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)'
"${python[@]}" -m pytest -q tests/engine/test_cuda.py tests/engine/test_opening_cuda.py

for size in small large; do
  bench --size $size --engines lab --max-clips 1
  bench --size $size --engines lab --max-clips 25 --grid 5x5
done
if "${python[@]}" -c "import audiocraft" 2>/dev/null; then
  bench --size large --engines lab,audiocraft --max-clips 1 --peer-seconds 2
fi

bench --size large --max-clips 1 --seconds 2 --profile
bench --size large --max-clips 25 --grid 5x5 --seconds 2 --profile
