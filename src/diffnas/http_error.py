"""The error of whichever HTTP library is behind the Hugging Face Hub's client."""

import huggingface_hub.errors

HTTPError: type[Exception] = vars(huggingface_hub.errors)["HTTPError"]
"""No OSError in newer versions. requests', httpx's or httpx2's, as the client has it: its own
module imports the right one, and exports it to nobody."""
