"""What the network is asked for: the truth is the best answer, and doubtful voxels do not bend the sums."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from inference.training.losses import fraction_loss, predicted
from inference.training.paper import focal_tversky_loss, nested_maps

SHAPE = (6, 8, 8)


def ears(count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Total fluid and endolymph with partial volumes, and empty bone around them."""
    draw = torch.Generator().manual_seed(seed)
    total = torch.rand(count, *SHAPE, generator=draw) * (torch.rand(count, *SHAPE, generator=draw) < 0.4)
    return total, total * torch.rand(count, *SHAPE, generator=draw)


def logits_of(total: Tensor, endolymph: Tensor) -> Tensor:
    share = endolymph / total.clamp(min=1e-6)
    return torch.logit(torch.stack([total, share], dim=1), eps=1e-6)


def test_the_truth_is_the_best_answer() -> None:
    total, endolymph = ears()
    log_sd = torch.full((2,), log(0.02))
    best = fraction_loss(logits_of(total, endolymph), log_sd, total, endolymph)
    draw = torch.Generator().manual_seed(1)
    for _ in range(20):
        off = 0.3 * torch.randn(2, 2, *SHAPE, generator=draw)
        assert fraction_loss(logits_of(total, endolymph) + off, log_sd, total, endolymph) > best


def test_predicted_endolymph_lies_inside_total_fluid_and_makes_the_ratio() -> None:
    total, endolymph = ears()
    answer = predicted(logits_of(total, endolymph), torch.zeros(2))
    assert torch.allclose(answer.endolymph, endolymph, atol=1e-4)
    assert (answer.endolymph <= answer.total).all()
    assert torch.allclose(answer.ratio, endolymph.sum(dim=(1, 2, 3)) / total.sum(dim=(1, 2, 3)), atol=1e-3)


def test_sums_are_unbiased_where_a_voxel_cannot_be_read() -> None:
    """Twelve ears look the same and differ at the rim: the one best answer has their mean volume and mean endolymph."""
    draw = torch.Generator().manual_seed(3)
    total = torch.zeros(12, *SHAPE)
    total[:, 1:5, 2:6, 2:6] = 1.0
    total[:, 1:5, 2:6, 1] = torch.rand(12, 4, 4, generator=draw)
    endolymph = total * 0.0
    endolymph[:, 2:4, 3:5, 2:5] = torch.rand(12, 2, 2, 3, generator=draw)
    shared = torch.zeros(1, 2, *SHAPE, requires_grad=True)
    optimizer = torch.optim.Adam([shared], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        fraction_loss(shared.expand(12, -1, -1, -1, -1), torch.zeros(12), total, endolymph).backward()
        optimizer.step()
    answer = predicted(shared.detach(), torch.zeros(1))
    assert float(answer.total.sum()) == pytest.approx(float(total.sum()) / 12, rel=0.02)
    assert float(answer.endolymph.sum()) == pytest.approx(float(endolymph.sum()) / 12, rel=0.08)


def test_the_doubt_learns_how_large_the_error_of_the_ratio_is() -> None:
    total, endolymph = ears(1)
    logits = logits_of(total, endolymph * 0.8)
    off = float(predicted(logits, torch.zeros(1)).ratio - endolymph.sum() / total.sum())
    tried = torch.linspace(log(0.003), log(0.5), 200)
    losses = [float(fraction_loss(logits, log_sd[None], total, endolymph)) for log_sd in tried]
    assert float(tried[losses.index(min(losses))].exp()) == pytest.approx(abs(off), rel=0.05)


def test_an_ear_without_fluid_has_a_finite_loss() -> None:
    nothing = torch.zeros(1, *SHAPE)
    assert torch.isfinite(fraction_loss(torch.zeros(1, 2, *SHAPE), torch.zeros(1), nothing, nothing))


def masks() -> tuple[Tensor, Tensor]:
    total = torch.zeros(1, *SHAPE)
    total[:, 1:5, 2:6, 2:6] = 1.0
    endolymph = torch.zeros(1, *SHAPE)
    endolymph[:, 2:4, 3:5, 3:5] = 1.0
    return total, endolymph


def maps_of(total: Tensor, endolymph: Tensor) -> Tensor:
    return 20.0 * (torch.stack([total, endolymph], dim=1) - 0.5)


def test_the_papers_loss_vanishes_at_the_masks_of_the_truth() -> None:
    total, endolymph = masks()
    soft = torch.where(total > 0, 0.8 * total, 0.3)  # the half-voxel rule makes the same masks
    assert float(focal_tversky_loss(maps_of(total, endolymph), torch.zeros(1), soft, 0.8 * endolymph)) < 1e-4


def test_the_papers_loss_counts_missed_fluid_nine_times_as_much_as_invented_fluid() -> None:
    total, endolymph = masks()
    missed, invented = total.clone(), total.clone()
    missed[:, 1, 2, 2:6] = 0.0
    invented[:, 0, 2, 2:6] = 1.0
    by_missing, by_inventing = (
        float(focal_tversky_loss(maps_of(one, endolymph), torch.zeros(1), total, endolymph)) ** 0.5
        for one in (missed, invented)
    )
    assert by_missing / by_inventing == pytest.approx(9.0, rel=0.1)


def test_maps_that_exceed_total_fluid_are_taken_back_inside() -> None:
    total, endolymph = masks()
    answer = nested_maps(maps_of(endolymph, total), torch.zeros(1))
    assert torch.allclose(answer.endolymph, endolymph, atol=1e-3)
