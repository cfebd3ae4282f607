"""``python -m diffnas``."""

import sys

from diffnas.cli import main

if __name__ == "__main__":
    sys.exit(main())
