"""``diffnas`` and ``python -m diffnas``."""

import sys

from diffnas.errors import INTERRUPTED, INTERRUPTION


def main() -> int:
    """The command line, which can be interrupted while it is still imported."""
    try:
        from diffnas.cli import main as command

        return command()
    except KeyboardInterrupt:
        print(f"diffnas: {INTERRUPTION}", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
