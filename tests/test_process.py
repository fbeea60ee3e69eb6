"""What a process is set to before it trains."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from tlrun.process import keep_freed_memory
assert keep_freed_memory() is {expected}
def used():  # 256 MB, touched and freed
    torch.ones(64 * 2**20)
for _ in range(8):  # the first ones still find no place
    used()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    used()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(expected, **environment):
    """Page faults of using and freeing 256 MB five times, in a fresh process."""
    found = subprocess.run(
        [sys.executable, "-c", FAULTS.format(expected=expected)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back so eagerly")
def test_memory_that_a_step_frees_is_used_again():
    kept = faults(True)
    given_back = faults(False, MALLOC_TRIM_THRESHOLD_="131072")  # what the user sets stays
    assert kept < 0.05 * given_back
