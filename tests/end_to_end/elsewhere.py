"""Students in a clean process without DiffNAS, which loads them as anyone would."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER = """
import json, os, sys, traceback
sys.modules["diffnas"] = None
import numpy as np
import torch
from diffusers import DiffusionPipeline, FluxPipeline, StableDiffusionXLPipeline
for line in sys.stdin:
    code, out = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    status, sys.stdout = 0, open(out, "w")
    sys.stderr = sys.stdout
    try:
        exec(code)
    except BaseException:
        status = 1
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)
"""
"""Imports what takes seconds once, and does each piece of work in a process of its own."""

ELSEWHERE = """
pipeline = DiffusionPipeline.from_pretrained({folder!r}, trust_remote_code=True)
pipeline.set_progress_bar_config(disable=True)
{first}
with torch.no_grad():
    images = np.asarray({images})
assert images.shape == {shape}, images.shape
assert np.isfinite(images).all()
print(type(pipeline).__name__)
"""


@cache
def server() -> subprocess.Popen[str]:
    """It ends with the process of these tests, when there is nothing more to read."""
    words = [sys.executable, "-c", SERVER]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def samples_elsewhere(student: Path, call: str, *, first: str = "") -> str:
    """The class of the pipeline, which sampled two images by its own call after that line."""
    call = f'pipeline({call}, num_inference_steps=3, output_type="np").images'
    return made_elsewhere(student, call, (2, 16, 16, 3), first=first)


def made_elsewhere(student: Path, images: str, shape: tuple[int, ...], *, first: str = "") -> str:
    """The class of ``pipeline``, of which that expression made finite numbers of that shape."""
    given = {"folder": str(student / "pipeline"), "images": images, "shape": shape, "first": first}
    own = server()
    with TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        print(json.dumps([ELSEWHERE.format(**given), str(told)]), file=own.stdin, flush=True)
        status = own.stdout.readline()
        assert status == "0\n", told.read_text()
        return told.read_text().split()[-1]
