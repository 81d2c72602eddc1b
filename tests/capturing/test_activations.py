"""Activations as columns of batches: by hand, and in Ray Data where it is installed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import hookline
from hookline.testing import assert_unhooked


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 3)).eval()


def ids(batch: Any) -> torch.Tensor:
    return torch.as_tensor(numpy.stack([*batch["ids"]]))


def batch() -> dict[str, Any]:
    return {"name": numpy.array(["a", "b"]), "ids": numpy.array([[1, 2, 3], [4, 5, 0]])}


def counted(inputs: Any) -> torch.Tensor:
    return inputs[0] != 0


def test_each_point_is_a_column() -> None:
    model = make_model()
    added = hookline.Activations(model, ["0", "1"], call=ids)(batch())

    assert sorted(added) == ["0", "1", "ids", "name"]
    assert torch.equal(torch.tensor(added["1"]), model(ids(batch())).detach())


def test_no_hook_is_left_on_the_model() -> None:
    model = make_model()
    hookline.Activations(model, ["0", "1"], call=ids)(batch())

    assert_unhooked(model)


def test_rows_of_different_number_are_an_array_of_arrays() -> None:
    added = hookline.Activations(make_model, "1", call=ids, rows=hookline.rows(counted))(batch())

    assert [rows.shape for rows in added["1"]] == [(3, 3), (2, 3)]


def test_sample_needs_an_id() -> None:
    with pytest.raises(hookline.ArgumentError, match="needs id="):
        hookline.Activations(make_model, "1", call=ids, rows=hookline.rows(sample=1))


def test_sample_follows_the_id_and_not_the_place() -> None:
    activations = hookline.Activations(make_model, "0", call=ids, rows=hookline.rows(sample=1), id="name")
    whole, alone = activations(batch()), activations({name: column[1:] for name, column in batch().items()})

    assert numpy.array_equal(whole["0"][1], alone["0"][0])


def failing(batch: Any) -> torch.Tensor:
    if "e30" in batch["name"]:
        raise RuntimeError("the machine is gone")
    return ids(batch)


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.data.DataContext.get_current().checkpoint_config = None
    ray.shutdown()


def arrive(ray: Any, folder: Path, examples: Any) -> None:
    """Write examples as a file for `store` to read: to items Ray applies no checkpoint."""
    context = ray.data.DataContext.get_current()
    config, context.checkpoint_config = context.checkpoint_config, None
    ray.data.from_items(examples).write_parquet(str(folder / "source"))
    context.checkpoint_config = config


def store(ray: Any, folder: Path, call: Any) -> None:
    added = ray.data.read_parquet(str(folder / "source")).map_batches(
        hookline.Activations,
        fn_constructor_args=(make_model, "1"),
        fn_constructor_kwargs={"call": call, "rows": hookline.rows(counted)},
        batch_size=8,
        concurrency=1,
    )
    added.write_parquet(str(folder / "acts"))


def assert_each_is_there_once(ray: Any, folder: Path) -> None:
    found = ray.data.read_parquet(str(folder)).take_all()
    assert sorted(row["name"] for row in found) == sorted(example["name"] for example in EXAMPLES)
    model, rows = make_model(), {row["name"]: torch.tensor(numpy.array(row["1"])) for row in found}
    for example in EXAMPLES:
        wanted = model(torch.tensor([example["ids"]]))[0].detach()
        torch.testing.assert_close(rows[example["name"]], wanted[torch.tensor(example["ids"]) != 0])


EXAMPLES = [{"name": f"e{number}", "ids": [number % 50, 7, 9]} for number in range(40)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_ray_stores_the_rows_of_every_example_once(ray: Any, tmp_path: Path) -> None:
    arrive(ray, tmp_path, EXAMPLES)
    store(ray, tmp_path, ids)

    assert_each_is_there_once(ray, tmp_path / "acts")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_ray_adds_what_its_checkpoint_lacks_after_a_failure(ray: Any, tmp_path: Path) -> None:
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="name", checkpoint_path=str(tmp_path / "done"), delete_checkpoint_on_success=False
    )
    arrive(ray, tmp_path, EXAMPLES[:24])
    store(ray, tmp_path, failing)
    assert [*(tmp_path / "acts").glob("*.parquet")]
    arrive(ray, tmp_path, EXAMPLES[24:])
    with pytest.raises(Exception, match="the machine is gone"):
        store(ray, tmp_path, failing)
    store(ray, tmp_path, ids)
    context.checkpoint_config = None

    assert_each_is_there_once(ray, tmp_path / "acts")
