"""Tracing, scripting and exporting a watched model: what comes out is what comes out without a watch."""

import io
import re
import warnings
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import hookline

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
GRADS = [False, True, "input"]
each_grads = pytest.mark.parametrize("grads", GRADS)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act = nn.Linear(4, 8), nn.GELU()

    def forward(self, x, scale=2.0):
        return self.act(self.up(x)) * scale


def network():
    torch.manual_seed(0)
    return nn.Sequential(Block(), nn.Linear(8, 4)).eval()


@pytest.fixture
def model():
    return network()


def scopes(graph):
    """The graph without the files and lines that nodes come from."""
    return re.sub(r" # .*|___torch_mangle_\d+\.", "", str(graph))


@each_grads
def test_torch_jit_trace_gives_the_same_code_scopes_and_results(model, grads):
    plain = torch.jit.trace(model, X)
    with hookline.watch(model, grads=grads):
        watched = torch.jit.trace(model, X)
    assert watched.code == plain.code
    assert scopes(watched.inlined_graph) == scopes(plain.inlined_graph)
    assert torch.equal(watched(X), plain(X))


def test_a_traced_call_is_recorded_with_the_numbers_of_its_shape(model):
    with hookline.watch(model) as run:
        torch.jit.trace(model, X, check_trace=False)
    assert [(call.path, call.output.shape, call.output.stats) for call in run][:2] == [
        ("", (3, 4), None),
        ("0", (3, 8), None),
    ]
    assert {type(size) for call in run for info in (*call.inputs, *call.outputs) for size in info.shape} == {int}


@each_grads
def test_torch_jit_script_of_a_watched_model_gives_the_same_code(grads):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    plain = torch.jit.script(model)
    with hookline.watch(model, grads=grads):
        watched = torch.jit.script(model)
    assert watched.code == plain.code
    assert torch.equal(watched(X), plain(X))


@each_grads
def test_a_scripted_module_inside_of_a_watched_model_is_recorded(model, grads):
    model[0].act = torch.jit.script(nn.ReLU())
    plain = model(X)
    with hookline.watch(model, grads=grads) as run:
        assert torch.equal(model(X), plain)
    assert [call.path for call in run] == ["", "0", "0.up", "0.act", "1"]


def stacks(exported):
    """Each node with the modules that it is in."""
    return [
        (node.op, str(node.target), {key: path for key, (path, _) in node.meta.get("nn_module_stack", {}).items()})
        for node in exported.graph.nodes
    ]


def exported(model, strict):
    """The exported model; a strict export says that it leaves our hooks out."""
    told = pytest.warns(UserWarning, match="the plain model is exported") if strict else nullcontext()
    with told:
        return torch.export.export(model, (X,), strict=strict)


@pytest.mark.graph
@each_grads
@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
def test_torch_export_gives_the_same_program(model, grads, strict):
    plain = torch.export.export(model, (X,), strict=strict)
    with hookline.watch(model, grads=grads):
        watched = exported(model, strict)
    assert watched.graph_module.code == plain.graph_module.code
    assert stacks(watched) == stacks(plain)
    assert watched.graph_signature == plain.graph_signature
    assert torch.equal(watched.module()(X), plain.module()(X))


@pytest.mark.graph
@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
def test_an_exported_program_is_saved_and_loaded_as_one_of_the_bare_model(model, strict, tmp_path):
    with hookline.watch(model, grads=True):
        torch.export.save(exported(model, strict), tmp_path / "model.pt2")
    assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(X), model(X))


def test_export_with_sizes_left_open_gives_the_same_program(model):
    shapes = ({0: torch.export.Dim("batch")},)
    plain = torch.export.export(model, (X,), dynamic_shapes=shapes, strict=False)
    with hookline.watch(model):
        watched = torch.export.export(model, (X,), dynamic_shapes=shapes, strict=False)
    assert watched.graph_module.code == plain.graph_module.code
    assert str(watched.range_constraints) == str(plain.range_constraints)


def test_export_that_is_not_strict_is_recorded_by_shape(model):
    with hookline.watch(model) as run:
        torch.export.export(model, (X,), strict=False)
    assert [(call.path, call.output.shape, call.output.stats) for call in run][:2] == [
        ("", (3, 4), None),
        ("0", (3, 8), None),
    ]


def test_the_model_is_watched_still_after_an_export(model):
    with hookline.watch(model) as run:
        torch.export.export(model, (X,), strict=False)
        before = len(run)
        model(X)
    assert [call.path for call in run.calls[before:]] == ["", "0", "0.up", "0.act", "1"]


@each_grads
def test_symbolic_trace_gives_the_same_graph(model, grads):
    plain = torch.fx.symbolic_trace(model)
    with hookline.watch(model, grads=grads):
        watched = torch.fx.symbolic_trace(model)
    assert watched.code == plain.code
    assert str(watched.graph) == str(plain.graph)
    assert torch.equal(watched(X), plain(X))


@each_grads
def test_a_graph_module_is_watched_by_the_modules_that_it_calls(model, grads):
    graph = torch.fx.symbolic_trace(model)
    plain = graph(X)
    with hookline.watch(graph, grads=grads) as run:
        assert torch.equal(graph(X), plain)
    assert [call.path for call in run] == ["", "0.up", "0.act", "1"]


@pytest.mark.parametrize("grads", [False, True])
def test_make_fx_gives_the_same_graph(model, grads):
    plain = make_fx(model)(X)
    with hookline.watch(model, grads=grads):
        watched = make_fx(model)(X)
    assert watched.code == plain.code


def test_make_fx_records_the_aliases_of_input_gradients(model):
    plain = make_fx(model)(X)
    with hookline.watch(model, grads="input"):
        watched = make_fx(model)(X)
    assert watched.code.count("alias") > plain.code.count("alias")
    assert torch.equal(watched(X), plain(X))


def test_methods_that_are_watched_leave_an_export_as_it_is(model):
    plain = torch.export.export(model, (X,), strict=False)
    with hookline.watch(model, methods=["forward"]):
        watched = torch.export.export(model, (X,), strict=False)
    assert watched.graph_module.code == plain.graph_module.code


# ONNX. Compared is the whole model proto byte for byte: nodes, names, weights, and the metadata, which tells of each
# node the modules around it and the lines of code it comes from. Two exports of a bare model are the same bytes.


def onnx_of(model):
    """What the exporter makes that starts from torch.export."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec", FutureWarning)  # as it copies the program
        made = torch.onnx.export(model, (X,), dynamo=True, verbose=False)
    return made.model_proto.SerializeToString(deterministic=True)


def older_onnx_of(model):
    """What the older exporter makes, that starts from torch.jit.trace; it says that it is to go."""
    file = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="legacy TorchScript-based|feature will be removed"):
        torch.onnx.export(model, (X,), file, dynamo=False)
    return file.getvalue()


@cache
def bare_onnx(exported):
    return exported(network())


exporters = pytest.mark.parametrize("exported", [onnx_of, older_onnx_of], ids=["from export", "from trace"])


@pytest.mark.slow
@exporters
def test_two_onnx_exports_of_a_bare_model_are_the_same_bytes(model, exported):
    assert exported(model) == bare_onnx(exported)


@exporters
@each_grads
def test_the_onnx_of_a_watched_model_is_that_of_the_bare_one_byte_for_byte(model, grads, exported):
    with hookline.watch(model, grads=grads):
        assert exported(model) == bare_onnx(exported)


@exporters
def test_steps_that_only_look_leave_the_onnx_as_it_is(model, exported):
    seen = []

    def look(call):
        seen.append(call.path)

    with hookline.on(model, "**", before=look, after=look, backward=look):
        assert exported(model) == bare_onnx(exported)
    assert {"", "0", "0.up", "0.act", "1"} <= {*seen}


@exporters
def test_what_a_step_changes_is_in_the_onnx(model, exported):
    def replace(call):
        call.output = call.output.tanh()

    with hookline.on(model, "0", after=replace):
        assert exported(model).count(b"Tanh") > bare_onnx(exported).count(b"Tanh")


@pytest.mark.slow
def test_an_onnx_export_is_recorded_by_shape(model):
    with hookline.watch(model) as run:
        onnx_of(model)
    assert [(call.path, call.output.shape, call.output.stats) for call in run][:2] == [
        ("", (3, 4), None),
        ("0", (3, 8), None),
    ]
