"""Run ``python -m kaggle_submission``."""

import sys

from kaggle_submission.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
