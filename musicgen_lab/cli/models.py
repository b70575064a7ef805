"""`models`: lists the models on this machine, and converts checkpoints to model folders."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from musicgen_lab.cli.exits import show
from musicgen_lab.errors import ModelUnavailable, MusicGenLabWarning


@click.group()
def models() -> None:
    """Prepare, list and describe models."""


@models.command("list")
def list_models() -> None:
    """List the models on this machine, with size and licence.

    A damaged one is a warning instead; `models verify` compares every byte of one.
    """
    from musicgen_lab.models.checksums import check_headers
    from musicgen_lab.models.locate import prepared_models

    for source in prepared_models():
        try:
            config, folder = source.config(), source.prepared
            assert config is not None and folder is not None
            check_headers(folder)
        except ModelUnavailable as error:
            warnings.warn(str(error), MusicGenLabWarning, stacklevel=1)
            continue
        size = f"{config.parameters / 1e6:,.1f} M parameters, {megabytes(folder):,.1f} MB"
        show(f"{source.identity:<50}  {size:<36}  {config.license}")


@models.command()
@click.argument("model")
def info(model: str) -> None:
    """Describe a model on this machine, by name or by its folder."""
    from musicgen_lab.models.locate import locate

    source = locate(model)
    config, folder = source.config(), source.prepared
    if config is None or folder is None:
        raise ModelUnavailable(
            f"{source.identity} is not prepared yet; run: musicgen-lab models prepare {model}"
        )
    kind = "stereo" if config.channels == 2 else "mono"
    lines = {
        "model": source.identity,
        "folder": folder,
        "size": f"{config.parameters / 1e6:,.1f} M parameters, {megabytes(folder):,.1f} MB",
        "precision": config.dtype,
        "language model": f"{config.layers} layers of width {config.dim}, {config.heads} heads",
        "codes": f"{config.codebooks} codebooks of {config.card:,}, delays {config.delays}",
        "sound": f"{kind}, {config.sample_rate:,} Hz, {config.frame_rate:g} frames a second",
        "made from": config.source.name,
        "revision": config.source.revision or "unknown",
        "checksums": ", ".join(f"{name} {sum_}" for name, sum_ in config.source.sha256.items()),
        "licence": config.license,
    }
    for label, value in lines.items():
        show(f"{label:<15} {value}")


@models.command()
@click.argument("source")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The model folder to write.",
)
def prepare(source: str, out: Path | None) -> None:
    """Convert a checkpoint into a model folder.

    SOURCE is a Hub id, or a folder in audiocraft's or transformers' format. A model that was
    prepared before is verified, and made again if it is damaged.
    """
    from musicgen_lab.conversion.prepare import prepare as prepare_model
    from musicgen_lab.models.locate import locate

    click.echo(prepare_model(locate(source), out, verified=True))


@models.command()
@click.argument("model")
def verify(model: str) -> None:
    """Compare every byte of a prepared model with its checksums.

    Opening a model compares sizes and headers alone.
    """
    from musicgen_lab.models.checksums import verify as verify_folder
    from musicgen_lab.models.locate import locate

    source = locate(model)
    if source.prepared is None:
        raise ModelUnavailable(
            f"{source.identity} is not prepared yet; run: musicgen-lab models prepare {model}"
        )
    count = verify_folder(source.prepared)
    click.echo(f"{source.identity}: {count} files are as they were when it was prepared")


def megabytes(folder: Path) -> float:
    """Return the size of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
