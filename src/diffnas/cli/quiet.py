"""Third-party chatter stays off the terminal: a person should see DiffNAS's lines only."""

import logging
import os
import warnings


def hush() -> None:
    """Silence warnings, log lines and progress bars of the libraries; call before their import."""
    warnings.simplefilter("ignore")
    for name, value in {
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("torch", "torchao", "accelerate", "fsspec", "PIL", "urllib3", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # torch sets its own level when it is imported, but not that of its parts.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def hush_diffusers() -> None:
    """Silence diffusers' bars while loading and sampling, which no variable switches off."""
    # Only here: diffusers takes seconds to import, and usage errors must not wait for it.
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torch sets it when imported
