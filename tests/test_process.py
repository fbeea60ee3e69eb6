"""What a process is set to before it trains."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, statistics, torch
from tlrun.process import keep_freed_memory
assert keep_freed_memory() is {expected}
def faults():  # of 256 MB, touched and freed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(8):  # the first ones still find no place
    faults()
print(statistics.median(faults() for _ in range(7)))
"""


def faults(expected, **environment):
    """Page faults of using and freeing 256 MB in a fresh process: of the usual time, since glibc
    may well move to another place once."""
    found = subprocess.run(
        [sys.executable, "-c", FAULTS.format(expected=expected)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back so eagerly")
def test_memory_that_a_step_frees_is_used_again():
    kept = faults(True)
    given_back = faults(False, MALLOC_TRIM_THRESHOLD_="131072")  # what the user sets stays
    assert kept < 0.05 * given_back
