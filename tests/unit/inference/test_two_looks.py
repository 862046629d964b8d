"""Two looks at an ear, one voxel apart, come back in register, and the second shows no more than the first."""

from __future__ import annotations

import pytest
import torch

from inference.two_looks import mean_of_looks, seen_twice


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 6, 8, 10, generator=torch.Generator().manual_seed(1))


def test_the_second_look_is_the_first_moved_by_one_voxel_with_repeated_borders(images: torch.Tensor) -> None:
    seen = seen_twice(images)
    assert seen.shape == (4, 3, 6, 8, 10)
    assert (seen[:2] == images).all()
    assert (seen[2:, :, 1:, 1:, 1:] == images[:, :, :-1, :-1, :-1]).all()
    assert (seen[2:, :, 0, 1:, 1:] == images[:, :, 0, :-1, :-1]).all()


def test_what_is_read_voxel_by_voxel_is_the_same_in_two_looks_as_in_one(images: torch.Tensor) -> None:
    assert torch.allclose(mean_of_looks(seen_twice(images)), images)


def test_both_looks_weigh_the_same_and_each_ear_keeps_its_own(images: torch.Tensor) -> None:
    seen = seen_twice(images)
    seen[2:] += torch.tensor([2.0, 6.0]).view(2, 1, 1, 1, 1)
    found = mean_of_looks(seen) - images
    for ear, more in enumerate((1.0, 3.0)):
        assert torch.allclose(found[ear, :, :-1, :-1, :-1], torch.tensor(more), atol=1e-5)
    assert torch.allclose(found[:, :, -1], torch.tensor(0.0))  # where the second look does not reach


def test_a_pooling_network_whose_answer_depends_on_the_pairs_gets_both_pairings() -> None:
    line = torch.zeros(1, 1, 4, 4, 8)
    line[..., 3] = 1.0  # paired with 2 in one look, with 4 in the other

    def pooled(images: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool3d(images, (1, 1, 2))
        return means.repeat_interleave(2, dim=-1)

    assert mean_of_looks(pooled(seen_twice(line)))[0, 0, 0, 0].tolist() == [0.0, 0.0, 0.25, 0.5, 0.25, 0.0, 0.0, 0.0]
