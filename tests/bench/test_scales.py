"""What int8 leaves of weights."""

import pytest

torch = pytest.importorskip("torch")

from bench.scales import rounded  # noqa: E402 - needs torch

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("group", [32, 64, 100, None])
def test_what_is_lost_is_bounded_by_the_largest_of_its_group(group: int | None) -> None:
    """Half a step of the scale, and what the scale itself loses in bfloat16."""
    weight = torch.randn(7, 160, generator=torch.Generator().manual_seed(1))
    weight[:, 5] *= 50
    left = rounded(weight, group)
    assert left.shape == weight.shape
    for part, kept in zip(
        weight.split(group or 160, dim=1), left.split(group or 160, dim=1), strict=True
    ):
        largest = part.abs().amax(1, keepdim=True)
        assert ((part - kept).abs() <= largest * (0.5 / 127 + 2**-8)).all()


def test_smaller_groups_lose_less() -> None:
    weight = torch.randn(16, 256, generator=torch.Generator().manual_seed(2))
    weight[:, ::64] *= 20
    lost = [
        float((weight - rounded(weight, group)).square().sum()) for group in (32, 64, 128, None)
    ]
    assert lost == sorted(lost)
    assert lost[0] < lost[-1] / 2
