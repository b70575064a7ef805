"""The limits of a clip's length, for modules that may import nothing else."""

from __future__ import annotations

DURATION_MIN_S, DURATION_MAX_S = 1.0, 300.0
WINDOW_S = 30.0
"""What released models were trained on; a longer clip is made in windows of this length."""
