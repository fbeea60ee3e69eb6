"""A sweep on two nodes of Ray, of which one dies: it ends like an undisturbed sweep.

    pip install "tlrun[ray]"
    python scripts/prove_ray.py

Starts two nodes of `ray.cluster_utils` on this one machine, with one core each. Once both train,
the second is killed with the job that it runs; Ray gives that job to the first, where it goes on
from its checkpoint. Exits 1 where a claim does not hold. Minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from prove_slurm import differences, states, sweep, training, wait_for
from ray.cluster_utils import Cluster

from tlrun.run_folder.run_dir import RunDir, runs_in


def prove(folder: Path, steps: int) -> bool:
    straight = sweep(folder / "straight", steps, "seed=0,1,2")
    if straight.wait():
        raise SystemExit(straight.communicate()[0][-2000:])
    one_core = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=one_core)
    second = cluster.add_node(**one_core)
    try:
        struck = folder / "struck"
        words = [f"launcher.ray.init.address={cluster.address}"]
        # an existing cluster has its memory; the launcher would ask for some
        words += ["+hydra.launcher.ray.init.object_store_memory=null"]
        process = sweep(struck, steps, "seed=0,1,2", "launcher=ray", *words)
        wait_for(lambda: training(struck) == 2, "2 jobs that train")
        cluster.remove_node(second, allow_graceful=False)
        output = process.communicate()[0]
    finally:
        cluster.shutdown()
    left, ends = differences(struck, folder / "straight"), states(struck)
    again = sum("resumed at step" in RunDir(path).log.read_text() for path in runs_in(struck))
    print(
        f"exit code {process.returncode}, jobs {ends}, {again} of them resumed, "
        f"differences from the straight sweep: {left or 'none'}"
    )
    good = process.returncode == 0 and ends == ["completed"] * 3 and not left and again == 1
    if not good:
        print(output[-3000:])
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="for all that it writes; default: a new one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="prove_ray_"))
    sys.exit(0 if prove(folder.absolute(), arguments.steps) else 1)


if __name__ == "__main__":
    main()
