"""Measure pieces whose onsets, tempo and key are known, and write docs/features.md.

    uv run --with essentia==2.1b6.dev1389 scripts/feature_truth.py

The pieces are played by the synthesiser that the demo model was trained on. librosa and
essentia measure them too, with their defaults. Takes some minutes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from inspect import getdoc
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from musicgen_lab.analysis.drift import (
    DRIFT_FEATURES,
    drifts,
    measure_windows,
    seam_times_s,
)
from musicgen_lab.analysis.features import FEATURES, measure
from musicgen_lab.analysis.pitch import PITCH_CLASSES
from musicgen_lab.analysis.rhythm import onset_times_s
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.demo.composition import (
    INSTRUMENTS,
    MODES,
    TEMPI_BPM,
    TEXTURES,
    TONICS,
    Note,
    Piece,
    compose,
)
from musicgen_lab.demo.instruments import FRAME_SAMPLES, SAMPLE_RATE, play_drum, play_note
from musicgen_lab.demo.synthesiser import play
from musicgen_lab.formatting import signed

PAGE = Path(__file__).parents[1] / "docs" / "features.md"
DURATION_S = 8.0
TOLERANCE_S = 0.05  # of an onset, as in MIREX
TEMPO_TOLERANCE = 0.04  # as in MIREX
FIRST_FRAME_S = 0.064  # what sounds from the start has no onset

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class KnownPiece:
    """A piece of music and what is known of it; its samples are mono at 32 kHz."""

    name: str
    samples: Array
    tempo_bpm: float
    onsets_s: Array
    key: str | None = None


def rendered_pieces(count: int, seed: int = 1) -> Iterator[KnownPiece]:
    """Render pieces of all nine instruments in turn, every other attribute drawn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        instrument = INSTRUMENTS[number % len(INSTRUMENTS)]
        texture = TEXTURES[number // len(INSTRUMENTS) % len(TEXTURES)]
        piece = Piece(
            instrument,
            tempo_bpm=int(rng.choice(TEMPI_BPM)),
            mode=str(rng.choice(MODES)),
            texture="chords" if instrument == "orchestra" else texture,
            drums=bool(rng.random() < 0.4),
            bass=bool(rng.random() < 0.3),
            bright=bool(rng.random() < 0.5),
            loud=True,
            swing=bool(rng.random() < 0.15),
        )
        draw = int(rng.integers(2**31))
        tonic = int(np.random.default_rng(draw).choice(TONICS))  # the first that compose draws
        notes = compose(
            piece, round(DURATION_S * SAMPLE_RATE / FRAME_SAMPLES), np.random.default_rng(draw)
        )
        yield KnownPiece(
            instrument,
            play(notes, round(DURATION_S * SAMPLE_RATE), bright=piece.bright) * 0.6,
            piece.tempo_bpm,
            np.unique([note.frame * FRAME_SAMPLES / SAMPLE_RATE for note in notes]),
            f"{PITCH_CLASSES[tonic]} {piece.mode}",
        )


EIGHTHS = tuple(number / 2 for number in range(8))
DRUM_PATTERNS = {  # beats in a bar of four
    "kick on every beat": {"kick": (0, 1, 2, 3)},
    "kick and snare": {"kick": (0, 2), "snare": (1, 3)},
    "rock": {"kick": (0, 2), "snare": (1, 3), "hat": EIGHTHS},
    "rock, kick off the beat": {"kick": (0, 2, 2.5), "snare": (1, 3), "hat": EIGHTHS},
    "house": {"kick": (0, 1, 2, 3), "snare": (1, 3), "hat": (0.5, 1.5, 2.5, 3.5)},
    "half time": {"kick": (0, 1.5), "snare": (2,), "hat": EIGHTHS},
}
DRUM_GAINS = {"kick": 0.4, "snare": 0.32, "hat": 0.2}


def drum_pieces(tempi_bpm: tuple[int, ...]) -> Iterator[KnownPiece]:
    """Play every pattern at every tempo."""
    for name, pattern in DRUM_PATTERNS.items():
        for tempo_bpm in tempi_bpm:
            strokes = [
                (drum, 60 / tempo_bpm * (4 * bar + beat))
                for bar in range(40)
                for drum, beats in pattern.items()
                for beat in beats
            ]
            strokes = [(drum, at_s) for drum, at_s in strokes if at_s < DURATION_S - 0.1]
            samples = np.zeros(round(DURATION_S * SAMPLE_RATE), np.float32)
            for drum, at_s in strokes:
                add(samples, DRUM_GAINS[drum] * play_drum(drum, bright=True), at_s)
            yield KnownPiece(name, samples, tempo_bpm, np.unique([at_s for _, at_s in strokes]))


def click_pieces(tempi_bpm: tuple[int, ...]) -> Iterator[KnownPiece]:
    """Return single loud samples at even distances."""
    for tempo_bpm in tempi_bpm:
        at_s = np.arange(0.1, DURATION_S, 60 / tempo_bpm)
        samples = np.zeros(round(DURATION_S * SAMPLE_RATE), np.float32)
        samples[np.round(at_s * SAMPLE_RATE).astype(int)] = 0.8
        yield KnownPiece("clicks", samples, tempo_bpm, at_s)


def without_beat(count: int) -> Iterator[Array]:
    """Play notes at random times."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        samples = np.zeros(round(DURATION_S * SAMPLE_RATE), np.float32)
        for at_s in rng.uniform(0, DURATION_S, 20):
            add(samples, 0.5 * play_note("piano", int(rng.integers(48, 80)), 0.3, True), at_s)
        yield samples


def add(samples: Array, sound: Array, at_s: float) -> None:
    """Add a sound to samples at a time."""
    start = round(at_s * SAMPLE_RATE)
    samples[start : start + len(sound)] += sound[: len(samples) - start]


def steady_sounds() -> dict[str, Array]:
    """Return noise, pads and slow changes: sounds without onset, beat or repetition."""
    rng = np.random.default_rng(9)
    n = round(DURATION_S * SAMPLE_RATE)
    share = np.arange(n) / n

    def noise(slope: float) -> Array:
        bins = np.maximum(np.arange(n // 2 + 1), 200)
        shaped = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / bins**slope, n)
        return np.asarray(0.1 * shaped / shaped.std())

    def pad(*frequencies_hz: float, vibrato: float = 0.0) -> Array:
        wobble = 1 + vibrato * np.sin(2 * np.pi * 5 * share * DURATION_S)
        cycles = np.cumsum(wobble) / SAMPLE_RATE
        return np.asarray(
            sum(
                0.05 / number * np.sin(2 * np.pi * (number * hz * cycles + rng.random()))
                for hz in frequencies_hz
                for number in range(1, 13)
            )
        )

    a_minor, g_major = (220.0, 261.63, 329.63), (196.0, 246.94, 392.0)
    return {
        "white noise": noise(0),
        "pink noise": noise(0.5),
        "brown noise": noise(1),
        "pad": pad(*a_minor),
        "pad with vibrato": pad(*a_minor, vibrato=0.01),
        "pad that fades by 12 dB": pad(*a_minor) * 10 ** (-12 * share / 20),
        "pad that swells": pad(*a_minor) * np.sin(np.pi * share),
        "pad that crossfades to another chord": pad(*a_minor) * (1 - share) + pad(*g_major) * share,
    }


def repeating_pieces() -> dict[str, Array]:
    """Return a loop, two phrases in turn, and a melody that never comes back."""
    phrase, other = [60, 67, 64, 71, 62, 69, 65, 72], [50, 57, 54, 62, 52, 59, 55, 50]
    melodies = {
        "loop of 2 s": phrase * 4,
        "two phrases in turn": (phrase[:4] + other[:4]) * 4,
        "melody that never returns": list(np.random.default_rng(3).permutation(range(50, 82))),
    }
    return {
        name: play(
            [Note(12 * place, 12, "piano", int(midi), 0.8) for place, midi in enumerate(melody)],
            round(DURATION_S * SAMPLE_RATE),
            bright=True,
        )
        for name, melody in melodies.items()
    }


def onset_score(estimated_s: Array, known_s: Array) -> tuple[float, float, float]:
    """Return F, precision and recall of onsets within 50 ms, each matched once.

    Both rising. Known onsets in the first frame, and within 30 ms of the one before, are left out.
    """
    known = [known_s[0]]
    for at_s in known_s[1:]:
        if at_s - known[-1] > 0.03:
            known.append(at_s)
    known = [at_s for at_s in known if at_s > FIRST_FRAME_S]
    matched = first = 0
    for at_s in estimated_s:
        while first < len(known) and known[first] < at_s - TOLERANCE_S:
            first += 1
        if first < len(known) and known[first] <= at_s + TOLERANCE_S:
            matched, first = matched + 1, first + 1
    precision, recall = (matched / max(1, len(times)) for times in (estimated_s, known))
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def is_tempo(estimated_bpm: object, known_bpm: float) -> bool:
    """Return whether a tempo is right within 4%."""
    return isinstance(estimated_bpm, float) and abs(estimated_bpm / known_bpm - 1) < TEMPO_TOLERANCE


class Essentia:
    """essentia's onsets, tempo and key, by the algorithms that its tutorial uses.

    They expect 44.1 kHz.
    """

    def __init__(self) -> None:
        import essentia
        from essentia import standard

        essentia.log.infoActive = essentia.log.warningActive = False
        self._new_onset_rate = standard.OnsetRate  # one finds nothing in a second sound
        self._tempo = standard.RhythmExtractor2013(method="multifeature")
        self._key = standard.KeyExtractor()

    def onsets_s(self, samples: Array) -> Array:
        """Return the times of onsets."""
        return np.asarray(self._new_onset_rate()(self._resampled(samples))[0])

    def tempo_bpm(self, samples: Array) -> float:
        """Return the tempo."""
        return float(self._tempo(self._resampled(samples))[0])

    def key(self, samples: Array) -> str:
        """Return the key, named as ours are."""
        tonic, mode, _ = self._key(self._resampled(samples))
        sharps = {"Ab": "G#", "Bb": "A#", "Db": "C#", "Eb": "D#", "Gb": "F#"}
        return f"{sharps.get(tonic, tonic)} {mode}"

    @staticmethod
    def _resampled(samples: Array) -> Array:
        return resample_poly(samples, 441, 320).astype(np.float32)


def truth_rows() -> Iterator[tuple[str, str, str, str, str]]:
    """Return (feature, reference, what is measured, librosa's default, essentia's)."""
    import librosa

    essentia = Essentia()
    pieces = list(rendered_pieces(81))
    measured = [measure(piece.samples[np.newaxis], SAMPLE_RATE) for piece in pieces]
    estimates = {
        "ours": [onset_times_s(Sound(piece.samples[np.newaxis], SAMPLE_RATE)) for piece in pieces],
        "librosa": [
            librosa.onset.onset_detect(y=piece.samples, sr=SAMPLE_RATE, units="time")
            for piece in pieces
        ],
        "essentia": [essentia.onsets_s(piece.samples) for piece in pieces],
    }
    texts = {}
    for who, times in estimates.items():
        scores = np.array([onset_score(a, b.onsets_s) for a, b in zip(times, pieces, strict=True)])
        known = [len(piece.onsets_s[piece.onsets_s > FIRST_FRAME_S]) for piece in pieces]
        r = np.corrcoef(known, [len(a) for a in times])[0, 1]
        f, precision, recall = scores.mean(axis=0)
        texts[who] = f"F {f:.2f}, precision {precision:.2f}, recall {recall:.2f}, rate r {r:.2f}"
        if who == "ours":
            by_instrument = {
                name: scores[[piece.name == name for piece in pieces], 0].mean()
                for name in INSTRUMENTS
            }
            weakest = min(by_instrument, key=lambda name: by_instrument[name])
            texts[who] += f"; weakest {weakest}, F {by_instrument[weakest]:.2f}"
    yield "Onset rate", "81 rendered pieces, onsets within 50 ms", *texts.values()
    steady = steady_sounds()
    still = {name: measure(one[np.newaxis], SAMPLE_RATE) for name, one in steady.items()}
    rates = [values["onset_rate_hz"] for values in still.values()]
    theirs = [
        len(librosa.onset.onset_detect(y=one, sr=SAMPLE_RATE)) / DURATION_S
        for one in steady.values()
    ]
    essentias = [len(essentia.onsets_s(one)) / DURATION_S for one in steady.values()]
    yield (
        "Onset rate",
        "noise, pads, fades: none",
        f"{np.mean(rates):.2f} per second, at most {max(rates):.2f}",
        f"{np.mean(theirs):.1f} per second, at most {max(theirs):.1f}",
        f"{np.mean(essentias):.1f} per second, at most {max(essentias):.1f}",
    )
    drums = list(drum_pieces((70, 80, 90, 100, 110, 120, 128, 140, 150, 160, 174, 180)))
    clicks = list(click_pieces((50, 70, 88, 100, 120, 140, 160, 180, 200, 220)))
    for name, group, values in (
        ("81 rendered pieces, 60 to 150 BPM", pieces, measured),
        ("72 drum patterns, 70 to 180 BPM", drums, None),
        ("clicks, 50 to 220 BPM", clicks, None),
    ):
        values = values or [measure(one.samples[np.newaxis], SAMPLE_RATE) for one in group]
        right = [
            is_tempo(value["tempo_bpm"], one.tempo_bpm)
            for value, one in zip(values, group, strict=True)
        ]
        either = [
            is_tempo(value["tempo_alternative_bpm"], one.tempo_bpm) or is_right
            for value, one, is_right in zip(values, group, right, strict=True)
        ]
        theirs = [
            is_tempo(float(librosa.feature.tempo(y=one.samples, sr=SAMPLE_RATE)[0]), one.tempo_bpm)
            for one in group
        ]
        essentias = [is_tempo(essentia.tempo_bpm(one.samples), one.tempo_bpm) for one in group]
        yield (
            "Tempo",
            f"{name}, within 4%",
            f"{np.mean(right):.0%} right; {np.mean(either):.0%} with the alternative",
            f"{np.mean(theirs):.0%} right",
            f"{np.mean(essentias):.0%} right",
        )
    random = [measure(one[np.newaxis], SAMPLE_RATE) for one in without_beat(20)]
    none = [np.isnan(values["tempo_bpm"]) for values in [*random, *still.values()]]
    yield (
        "Tempo",
        "notes at random times, noise, pads: none",
        f"{np.mean(none):.0%} NaN",
        "names one",
        "names one",
    )
    right = [value["key_estimate"] == one.key for value, one in zip(measured, pieces, strict=True)]
    essentias = [essentia.key(piece.samples) == piece.key for piece in pieces]
    yield (
        "Key",
        "81 rendered pieces in 6 keys",
        f"{np.mean(right):.0%} right",
        "has no key",
        f"{np.mean(essentias):.0%} right",
    )
    named = [values["key_estimate"] for name, values in still.items() if "noise" in name]
    count = f"{sum(key is not None for key in named)} of {len(named)} named"
    yield "Key", "noise: none", count, "has no key", "names one"
    clarity = np.array([value["key_clarity"] for value in measured])
    good, bad = clarity[right], clarity[~np.array(right)]
    share = np.mean(good[:, np.newaxis] > bad)
    yield "Key clarity", "higher where the key is right", f"in {share:.0%} of the pairs", "", ""
    repeated = {
        name: measure(one[np.newaxis], SAMPLE_RATE)["self_similarity"]
        for name, one in repeating_pieces().items()
    }
    repeated |= {name: values["self_similarity"] for name, values in still.items()}
    for name, value in repeated.items():
        yield "Repetition", name, f"{value:.2f}", "", ""


def steady_music(duration_s: float, *, instrument: str = "piano", tempo_bpm: float = 100) -> Array:
    """Return eighth notes of a chord, the same from beginning to end, (n,)."""
    frames = round(60 / tempo_bpm / 2 * SAMPLE_RATE / FRAME_SAMPLES)
    notes = [
        Note(number * frames, frames, instrument, (60, 64, 67, 72)[number % 4], 0.8)
        for number in range(int(duration_s * SAMPLE_RATE / FRAME_SAMPLES / frames))
    ]
    return play(notes, round(duration_s * SAMPLE_RATE), bright=True)


def drift_rows() -> Iterator[tuple[str, str, str, str, str]]:
    """Return rows for the drift of two minutes of music that change at the seam at 84 s."""
    steady = steady_music(120)
    until = 84 * SAMPLE_RATE
    quiet = np.concatenate([steady[:until], steady[until:] * 10 ** (-6 / 20)])
    faster = np.concatenate([steady[:until], steady_music(36, tempo_bpm=125)])
    flute = np.concatenate([steady[:until], steady_music(36, instrument="flute")])
    for name, reference, samples in (
        ("loudness_drift_lu", "two minutes that stay: 0", steady),
        ("loudness_drift_lu", "turned down by 6 dB at 84 s", quiet),
        ("brightness_drift_hz", "two minutes that stay: 0", steady),
        ("tempo_drift_bpm", "two minutes that stay: 0", steady),
        ("tempo_drift_bpm", "100 BPM, from 84 s on 125", faster),
        ("timbre_drift_db", "two minutes that stay: 0", steady),
        ("timbre_drift_db", "piano, from 84 s on flute", flute),
    ):
        windows = measure_windows(samples[np.newaxis], SAMPLE_RATE, seam_times_s(120, 18))
        drift = drifts(windows)[name] + 0.0
        feature = DRIFT_FEATURES[name]
        measured = f"{signed(drift, 1 if abs(drift) >= 0.05 else 2)} {feature.unit}"
        yield feature.label, reference, measured, "", ""


def feature_sections() -> str:
    """Return what every feature is, as Markdown: its docstring under its label."""
    return "\n".join(
        _section(
            name,
            feature.label,
            f"{feature.unit}{', by default in a report' if feature.default else ''}",
            feature.measure,
        )
        for name, feature in FEATURES.items()
    )


def drift_sections() -> str:
    """Return what every drift feature of long clips is, as Markdown."""
    return "\n".join(
        _section(name, feature.label, feature.unit, feature.measure)
        for name, feature in DRIFT_FEATURES.items()
    )


def _section(name: str, label: str, unit: str, measure: object) -> str:
    paragraphs = [" ".join(one.split()) for one in (getdoc(measure) or "").split("\n\n")]
    for head in ("Known truth:", "Limits:", "Source:"):
        paragraphs = [one.replace(head, f"**{head}**", 1) for one in paragraphs]
    return "\n".join(
        [f"### {label}\n\n`{name}`, {unit}\n", *(f"{paragraph}\n" for paragraph in paragraphs)]
    )


def describe_run() -> str:
    """Return the machine and the versions of what measures."""
    packages = ("librosa", "numpy", "scipy", "pyloudnorm")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{platform.system()} {platform.machine()} with {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}"
    )


def page() -> str:
    """Return docs/features.md."""
    rows = []
    for row in chain(truth_rows(), drift_rows()):
        rows.append(f"| {' | '.join(row)} |")
        print(rows[-1], flush=True)
    table = "\n".join(rows)
    return f"""# Features

The features of a clip, as columns of `Results.frame`. Everything is measured on the raw samples. A
clip that does not have a feature has NaN: silence has no tempo.

`scripts/feature_truth.py` generates this page from the docstrings and from measurements.

## Compared with known truth

Pieces of 8 s, played by the synthesiser that the demo model was trained on, so that onsets, tempo
and key are known. They are not recordings: results on dense mixes and voices will be worse. Beside
them stand librosa's defaults and essentia 2.1b6's OnsetRate, RhythmExtractor2013 and KeyExtractor.

| Feature | Reference | Measured | librosa | essentia |
|---|---|---|---|---|
{table}

All rows are from one run, on {describe_run()}.

## Every feature

{feature_sections()}
## Drift of long clips

A clip of over 30 s is made in windows of 30 s, and each is measured by itself: what it adds to the
clip. These features compare the last window with the first, and are NaN for clips of up to 30 s.
`results.plot_drift()` draws all windows, and a report has them under "Long clips". They are named
like any feature in `effects`, `summary`, `plot_heatmap` and a report's `features`.

{drift_sections()}"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
