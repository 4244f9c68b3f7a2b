"""``python -m warmstart`` is the command."""

import sys

from warmstart.cli import main

sys.exit(main())
