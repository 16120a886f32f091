"""`python -m lensneurons` is the command `lensneurons`."""

import sys

from lensneurons.cli import main

if __name__ == "__main__":
    sys.exit(main())
