"""Run ``python -m local_scorer``."""

import sys

from local_scorer.cli import main

if __name__ == "__main__":
    sys.exit(main())
