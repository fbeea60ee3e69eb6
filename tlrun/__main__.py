"""`python -m tlrun` is the command `tlrun`."""

import sys

from tlrun.cli import main

sys.exit(main())
