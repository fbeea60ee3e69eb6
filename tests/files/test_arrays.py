"""Packed arrays are numpy's, equal and small."""

from pathlib import Path

import numpy as np

from tlrun.files.arrays import write_arrays


def test_numpy_reads_them_and_equal_arrays_give_equal_files(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).normal(size=(300, 40)).clip(0).astype(np.float32)
    arrays = {"features": draws, "label": np.arange(300)}
    for name in ("a", "b"):
        write_arrays(tmp_path / f"{name}.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as packed:
        assert packed.keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(packed[name], values)
            assert packed[name].dtype == values.dtype
    assert (tmp_path / "a.npz").stat().st_size < 0.8 * draws.nbytes
