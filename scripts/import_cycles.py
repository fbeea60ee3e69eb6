"""Import cycles of the package, imports inside functions included: prints each, exit code 1 if any.

    python scripts/import_cycles.py

Imports under TYPE_CHECKING do not count: they never run. A cycle is a set of modules each of which
reaches every other one (a strongly connected component of the graph of imports).
"""

from __future__ import annotations
