"""`python -m tlrun` is the command `tlrun`."""

import sys

from tlrun.cli.main import main

sys.exit(main())
