"""Students in a clean process without DiffNAS, which loads them as anyone would."""

import subprocess
import sys
from pathlib import Path

ELSEWHERE = """
import sys
sys.modules["diffnas"] = None
import numpy as np
import torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipeline.set_progress_bar_config(disable=True)
{first}
with torch.no_grad():
    images = np.asarray({images})
assert images.shape == {shape}, images.shape
assert np.isfinite(images).all()
print(type(pipeline).__name__)
"""


def samples_elsewhere(student: Path, call: str, *, first: str = "") -> str:
    """The class of the pipeline, which sampled two images by its own call after that line."""
    call = f'pipeline({call}, num_inference_steps=3, output_type="np").images'
    return made_elsewhere(student, call, (2, 16, 16, 3), first=first)


def made_elsewhere(student: Path, images: str, shape: tuple[int, ...], *, first: str = "") -> str:
    """The class of ``pipeline``, of which that expression made finite numbers of that shape."""
    code = ELSEWHERE.format(images=images, shape=shape, first=first)
    words = [sys.executable, "-c", code, str(student / "pipeline")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]
