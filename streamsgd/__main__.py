"""`python -m streamsgd` is `streamsgd`."""

import sys

from streamsgd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
