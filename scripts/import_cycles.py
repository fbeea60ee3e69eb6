"""Import cycles of the package, imports inside functions included; exit code 1 if there is one.

    python scripts/import_cycles.py

Imports under TYPE_CHECKING do not count: they never run. A cycle is a set of modules each of which
reaches every other one (a strongly connected component of the graph of imports). Which room may
import which is the matter of import-linter (pyproject.toml).
"""

from __future__ import annotations

import sys

import grimp
import networkx


def main() -> int:
    imports = grimp.build_graph("tlrun", exclude_type_checking_imports=True, cache_dir=None)
    graph = networkx.DiGraph(
        (module, imported)
        for module in imports.modules
        for imported in imports.find_modules_directly_imported_by(module)
    )
    cycles = [c for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    for modules in cycles:
        print("cycle:", *sorted(modules))
        for module in sorted(modules):
            print(f"  {module} -> {', '.join(sorted(modules & set(graph[module])))}")
    size = f"{len(imports.modules)} modules, {graph.number_of_edges()} imports"
    print(f"{size}, {len(cycles)} cycles")
    return 1 if cycles else 0


if __name__ == "__main__":
    sys.exit(main())
