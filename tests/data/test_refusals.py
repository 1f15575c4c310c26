import numpy as np
import pytest

from offramp.data.batches import as_dataset, batches, check_labels
from offramp.errors import DataError


def test_raw_pixels_are_refused_with_what_to_do() -> None:
    data = np.zeros((2, 3, 4, 5), np.uint8), np.zeros(2, np.int64)
    with pytest.raises(DataError, match=r"uint8, raw pixels it seems\. Scale and normalise"):
        next(batches(as_dataset(data), 2))


def test_the_first_label_that_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="the first is that of sample 2"):
        check_labels(np.array([0, 1, 3, 2, 5]), 3)
