#!/usr/bin/env bash
# What a person with an NVIDIA GPU runs: the tests that need one, the table of docs/performance.md,
# and where the time goes. It takes some five minutes on an H100, and 8 GB of temporary files.
#
# With the project installed: tests/gpu/run.sh
# On a machine without network, whose python has torch, triton, pytest, pytest-xdist and the
# project's other dependencies: PYTHON=python3 tests/gpu/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra python <<< "${PYTHON:-uv run python}"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT

bench() {
  local size=$1
  shift
  "${python[@]}" -c "from musicgen_lab.cli import main; main()" bench --model "$models/$size" "$@"
}

"${python[@]}" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)'
# Without the fixtures of other tests, and several tests of a file at once.
"${python[@]}" -m pytest -q --noconftest -n 8 --dist load \
  tests/engine/test_cuda.py tests/engine/test_opening_cuda.py

for size in small large; do
  "${python[@]}" -c "import pathlib; from musicgen_lab.bench.random_model import write_random_model
write_random_model(pathlib.Path('$models/$size'), '$size')"
  bench $size --rounds 2 --engines lab --max-clips 1
  bench $size --rounds 2 --engines lab --max-clips 25 --grid 5x5
done
# Launching the kernels bounds the time of prefill, which shows in clips of two windows
# (docs/performance.md).
"${python[@]}" - "$models/small" <<'END'
import sys
from pathlib import Path

from musicgen_lab.bench.run import run
from musicgen_lab.engine.options import EngineOptions


def time_s(seconds):
    (row,) = run(
        size="small", model=Path(sys.argv[1]), grid=(5, 5), seconds=seconds, engines=["lab"],
        options=EngineOptions(max_clips=25),
    )
    return row.clips * row.seconds / row.clip_seconds_per_second


one_window_s, two_windows_s = time_s(30), time_s(60)
print(
    f"small: 25 clips of 30 s {one_window_s:.2f} s, of 60 s {two_windows_s:.2f} s: a ratio of "
    f"{two_windows_s / one_window_s:.2f}; 2.1 is predicted, and it was 3.5 before four clips' "
    "chunks ran at once"
)
END

if "${python[@]}" -c "import audiocraft" 2>/dev/null; then
  bench large --rounds 1 --engines lab,audiocraft --max-clips 1 --peer-seconds 2
fi

bench large --max-clips 1 --seconds 2 --profile
bench large --max-clips 25 --grid 5x5 --seconds 2 --profile
