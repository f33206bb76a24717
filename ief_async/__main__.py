"""``python -m ief_async`` is the command ``ief-async``."""

import sys

from ief_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
