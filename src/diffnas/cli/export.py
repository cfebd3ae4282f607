"""``diffnas export``: a pipeline's networks for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from diffnas.alone import check_folder
from diffnas.cli import options
from diffnas.cli.output import print_table
from diffnas.cli.progress import show_progress
from diffnas.cli.quiet import hush_diffusers
from diffnas.names import FORMATS


def export(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="onnx or openvino.")],
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE", help="A diffusers pipeline folder, or a Hub id.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    *,
    revision: options.Revision = None,
    variant: options.Variant = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Write a pipeline's denoiser, and its decoder, for ONNX Runtime or OpenVINO.

    Every file is compared with PyTorch, and timed beside it.
    """
    options.check_choice("FORMAT", kind, FORMATS)
    out = out.expanduser()
    check_folder("OUT", out)
    # Only now: usage errors must not wait for torch.
    from diffnas.export import export as export_
    from diffnas.export import find_format
    from diffnas.report.table import plain_table

    find_format(kind)
    hush_diffusers()
    from diffnas.families.loading import load_teacher

    loaded = load_teacher(
        pipeline, revision=revision, variant=variant, trust_remote_code=trust_remote_code
    )
    with show_progress() as progress:
        parts = export_(kind, loaded, out, progress)
    table = plain_table(None, ("file", "size", "from PyTorch", "PyTorch", kind, "faster by"))
    for part in parts.values():
        table.add_row(
            part.file,
            f"{part.bytes / 2**20:.1f} MiB",
            f"{part.difference:.1e}",
            f"{part.pytorch_ms:.2f} ms",
            f"{part.runtime_ms:.2f} ms",
            f"{part.pytorch_ms / part.runtime_ms:.2f}",
        )
    print_table(table)
    print(f"\nexported  {out}")
