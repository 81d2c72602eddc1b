"""Tests of selections: what each kind of `where` picks, how selections combine, and what an empty one is told."""

import io
import re
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import hookline
from hookline import HooklineError, Selection, SelectionError, select


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.key = nn.Linear(4, 4, bias=False)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU())


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.layer = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(4, 2)


@pytest.fixture
def model() -> Model:
    return Model()


BELOW_LAYER_1 = [
    "layer.1.attention",
    "layer.1.attention.query",
    "layer.1.attention.key",
    "layer.1.mlp",
    "layer.1.mlp.0",
    "layer.1.mlp.1",
]


@pytest.mark.parametrize(
    ("pattern", "picked"),
    [
        ("", [""]),
        ("head", ["head"]),
        ("h*", ["head"]),
        ("*e*", ["query", "layer", "head"]),
        ("layer.*", ["layer.0", "layer.1", "layer.2"]),
        ("layer.?", ["layer.0", "layer.1", "layer.2"]),
        ("layer.[02]", ["layer.0", "layer.2"]),
        ("layer.[1-9]", ["layer.1", "layer.2"]),
        ("layer.1.*", ["layer.1.attention", "layer.1.mlp"]),
        ("layer.*.att*", ["layer.0.attention", "layer.1.attention", "layer.2.attention"]),
        ("layer.1.att*n.quer?", ["layer.1.attention.query"]),
        ("layer.1.**", ["layer.1", *BELOW_LAYER_1]),
        ("layer.1.*.**", BELOW_LAYER_1),
        ("**.query", ["query", "layer.0.attention.query", "layer.1.attention.query", "layer.2.attention.query"]),
        ("layer.**.key", ["layer.0.attention.key", "layer.1.attention.key", "layer.2.attention.key"]),
        ("layer.1.**.attention.**.query", ["layer.1.attention.query"]),
        ("**.**.query", ["query", "layer.0.attention.query", "layer.1.attention.query", "layer.2.attention.query"]),
        ("layer.1.**.**", ["layer.1", *BELOW_LAYER_1]),
        ("*.0", ["layer.0"]),
        ("layer.[!0]", ["layer.1", "layer.2"]),
        ("layer.[!0-1]", ["layer.2"]),
        ("layer.[!1-]", ["layer.0", "layer.2"]),
        ("layer.[02-9]", ["layer.0", "layer.2"]),
        ("layer.1.[!m]*", ["layer.1.attention"]),
    ],
)
def test_a_glob_picks(model: Model, pattern: str, picked: list[str]) -> None:
    assert select(model, pattern).paths == picked


def test_two_stars_alone_pick_every_module_and_the_model_itself(model: Model) -> None:
    assert select(model, "**").paths == [path for path, _ in model.named_modules()]


def test_one_star_alone_picks_every_top_name_and_not_the_model_itself(model: Model) -> None:
    assert select(model, "*").paths == ["query", "layer", "head"]


@pytest.mark.parametrize("pattern", ["*.**", "**.*", "***", "?*", "*?"])
def test_a_glob_with_a_name_in_it_does_not_pick_the_model_itself(model: Model, pattern: str) -> None:
    assert "" not in select(model, pattern).paths


@pytest.mark.parametrize("pattern", ["layer[+-9]0", "layer[!x]0", "layer?0"])
def test_no_character_of_a_glob_stands_for_the_dot_between_names(model: Model, pattern: str) -> None:
    with pytest.raises(SelectionError, match="matches none"):
        select(model, pattern)


def test_a_set_that_is_no_set_is_a_selection_error_that_shows_the_glob(model: Model) -> None:
    with pytest.raises(
        SelectionError, match=r"cannot read the glob 'layer\.\[9-0\]': bad character range 9-0; a set is"
    ):
        select(model, "layer.[9-0]")


def test_regex_characters_are_plain_in_a_set_of_a_glob() -> None:
    model = nn.ModuleDict({name: nn.ReLU() for name in ("^", "0", "!", "[", "\\", "d")})

    assert select(model, "[^]").paths == ["^"]
    assert select(model, "[^0]").paths == ["^", "0"]
    assert select(model, "[!]").paths == ["!"]
    assert select(model, "[!^[]").paths == ["0", "!", "\\", "d"]
    assert select(model, r"[\d]").paths == ["\\", "d"]


def test_a_bracket_without_its_other_half_is_plain() -> None:
    model = nn.ModuleDict({"[": nn.ReLU(), "[a": nn.ReLU(), "]": nn.ReLU(), "[]": nn.ReLU()})

    for name in ("[", "[a", "]", "[]"):
        assert select(model, name).paths == [name]


def test_without_where_every_module_is_picked(model: Model) -> None:
    assert select(model).paths == select(model, "**").paths


def test_what_is_special_in_a_regular_expression_is_plain_in_a_glob() -> None:
    model = nn.ModuleDict({"a+": nn.ReLU(), "aa": nn.ReLU(), "(b)": nn.ReLU()})

    assert select(model, "a+").paths == ["a+"]
    assert select(model, "(b)").paths == ["(b)"]


def test_a_regular_expression_must_match_the_whole_path(model: Model) -> None:
    assert select(model, re.compile(r"layer\.\d")).paths == ["layer.0", "layer.1", "layer.2"]


def test_a_class_picks_its_instances(model: Model) -> None:
    assert select(model, Block).paths == ["layer.0", "layer.1", "layer.2"]


def test_a_class_picks_instances_of_its_subclasses() -> None:
    class Special(nn.Linear):
        pass

    assert select(nn.Sequential(Special(2, 2), nn.ReLU()), nn.Linear).paths == ["0"]


def test_a_module_picks_itself(model: Model) -> None:
    assert select(model, model.layer[1]).paths == ["layer.1"]


def test_a_predicate_is_given_path_and_module(model: Model) -> None:
    assert select(
        model, lambda path, module: path.endswith("query") and isinstance(module, nn.Linear) and "1" in path
    ).paths == ["layer.1.attention.query"]


def test_a_list_picks_what_any_of_its_items_picks(model: Model) -> None:
    assert select(model, ["head", (nn.GELU, [model.query])]).paths == [
        "query",
        "layer.0.mlp.1",
        "layer.1.mlp.1",
        "layer.2.mlp.1",
        "head",
    ]


def test_several_wheres_pick_what_any_of_them_picks_in_the_models_order(model: Model) -> None:
    assert select(model, "head", "query").paths == ["query", "head"]


def test_a_selection_picks_what_it_holds(model: Model) -> None:
    assert select(model, select(model, "head"), "query").paths == ["query", "head"]


def shared_model() -> nn.Sequential:
    shared = nn.ReLU()
    return nn.Sequential(shared, nn.Linear(2, 2), shared)


def test_a_shared_module_is_selected_once_under_its_first_path() -> None:
    assert select(shared_model()).paths == ["", "0", "1"]


def test_a_shared_module_is_found_by_any_of_its_paths() -> None:
    assert select(shared_model(), "2").paths == ["0"]


def test_a_predicate_sees_every_path_of_a_shared_module() -> None:
    assert select(shared_model(), lambda path, module: path == "2").paths == ["0"]


def test_and_keeps_what_both_hold(model: Model) -> None:
    assert (select(model, "layer.1.**") & select(model, nn.Linear)).paths == [
        "layer.1.attention.query",
        "layer.1.attention.key",
        "layer.1.mlp.0",
    ]


def test_or_adds_in_the_models_order(model: Model) -> None:
    assert (select(model, "head") | select(model, "query")).paths == ["query", "head"]


def test_minus_takes_away(model: Model) -> None:
    assert (select(model, nn.Linear) - select(model, "layer.**")).paths == ["query", "head"]


def test_an_operator_takes_whatever_select_takes(model: Model) -> None:
    linear = select(model, nn.Linear)

    assert (linear & "*e*").paths == ["query", "head"]
    assert (linear | nn.GELU).counts == {"Linear": 11, "GELU": 3}
    assert (linear - re.compile("layer.*")).paths == ["query", "head"]


def test_an_operator_leaves_its_operands_as_they_were(model: Model) -> None:
    heads, queries = select(model, "head"), select(model, "query")

    _ = heads | queries, heads - queries, heads & queries

    assert (heads.paths, queries.paths) == (["head"], ["query"])


def test_a_selection_may_be_narrowed_to_nothing(model: Model) -> None:
    nothing = select(model, "head") - "head"

    assert len(nothing) == 0
    assert repr(nothing) == "<Selection of 0 modules in Model: none>"


def test_counts_are_by_class_the_most_frequent_first(model: Model) -> None:
    assert list(select(model, "layer.**").counts.items()) == [
        ("Linear", 9),
        ("Block", 3),
        ("Attention", 3),
        ("Sequential", 3),
        ("GELU", 3),
        ("ModuleList", 1),
    ]


def test_iterating_gives_paths_with_their_modules(model: Model) -> None:
    assert list(select(model, "head", "query")) == [("query", model.query), ("head", model.head)]


def test_length_is_the_number_of_modules(model: Model) -> None:
    assert len(select(model, "layer.*")) == 3


def test_a_selection_contains_its_paths_and_its_modules(model: Model) -> None:
    heads = select(model, "head")

    assert "head" in heads
    assert model.head in heads
    assert "query" not in heads
    assert model.query not in heads


def test_a_selection_contains_a_shared_module_by_any_of_its_paths() -> None:
    assert "2" in select(shared_model(), "0")


def test_repr_counts_the_modules(model: Model) -> None:
    assert repr(select(model, "layer.0.mlp.*")) == "<Selection of 2 modules in Model: 1 Linear, 1 GELU>"


def shown(selection: Selection) -> str:
    console = Console(file=io.StringIO(), width=100)
    assert selection.show(console=console) is selection
    return console.file.getvalue()


def test_show_prints_path_class_and_parameters(model: Model) -> None:
    rows = [line.replace("│", " ").split() for line in shown(select(model, "head", "layer.0.mlp.1")).splitlines()]

    assert ["head", "Linear", "10"] in rows
    assert ["layer.0.mlp.1", "GELU", "0"] in rows


def test_show_says_how_many_and_calls_the_model_itself_the_model(model: Model) -> None:
    text = shown(select(model, ""))

    assert "Selection of 1 modules in Model: 1 Model" in " ".join(text.split())
    assert "(the model)" in text


def test_show_prints_names_that_look_like_markup_as_they_are() -> None:
    kind = type("[red]:smile:", (nn.Module,), {})
    text = shown(select(nn.ModuleDict({"[bold]": nn.ReLU(), ":bug:": kind()}), "?bold?", ":*"))

    assert all(name in text for name in ("[bold]", ":bug:", "[red]:smile:"))
    assert "1 ReLU, 1 [red]:smile:" in " ".join(text.split())


def test_show_counts_a_shared_parameter_once() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
    model[1].weight = model[0].weight

    assert ["(the", "model)", "Sequential", "12"] in [
        line.replace("│", " ").split() for line in shown(select(model, "")).splitlines()
    ]


def test_a_glob_that_picks_nothing_names_the_nearest_paths(model: Model) -> None:
    with pytest.raises(
        SelectionError, match=r"'layer.1.attn' matches none of the 25 modules of Model; nearest: .*layer\.1\.attention"
    ):
        select(model, "layer.1.attn")


def test_a_glob_that_picks_nothing_names_paths_that_hold_its_last_name(model: Model) -> None:
    with pytest.raises(SelectionError, match=r"nearest: layer\.0\.attention\.key"):
        select(model, "encoder.blocks.*.self.key")


def test_a_glob_like_nothing_in_the_model_names_its_first_paths(model: Model) -> None:
    with pytest.raises(SelectionError, match=r"its paths begin query, layer, layer\.0"):
        select(model, "zzzzzz")


def test_a_glob_that_picks_nothing_in_a_model_without_children_says_so() -> None:
    with pytest.raises(SelectionError, match="it has no children; its own path is ''"):
        select(nn.ReLU(), "head")


def test_a_regular_expression_that_picks_nothing_names_the_nearest_paths(model: Model) -> None:
    with pytest.raises(SelectionError, match="'heads' matches none .*nearest: head"):
        select(model, re.compile("heads"))


def test_a_class_that_picks_nothing_names_the_classes_that_are_there(model: Model) -> None:
    with pytest.raises(
        SelectionError, match="Model has no module of class Conv2d; it has Attention, Block, GELU, Linear"
    ):
        select(model, nn.Conv2d)


def test_a_module_of_another_model_is_refused(model: Model) -> None:
    with pytest.raises(SelectionError, match="this Linear is not a module of Model"):
        select(model, nn.Linear(2, 2))


def test_a_predicate_that_holds_for_nothing_is_named(model: Model) -> None:
    def is_frozen(path: str, module: nn.Module) -> bool:
        return False

    with pytest.raises(SelectionError, match="is_frozen is true for none of the 25 modules of Model"):
        select(model, is_frozen)


def test_one_item_of_a_list_that_picks_nothing_is_an_error(model: Model) -> None:
    with pytest.raises(SelectionError, match="'tail' matches none"):
        select(model, ["head", "tail"])


@pytest.mark.parametrize("where", [[], (), ["head", []]])
def test_an_empty_list_is_an_error(model: Model, where: list[object]) -> None:
    with pytest.raises(SelectionError, match="an empty (list|tuple) picks nothing"):
        select(model, where)


@pytest.mark.parametrize("where", [3, None, 1.5, {"head"}])
def test_where_of_a_wrong_type_raises_with_the_right_types(model: Model, where: object) -> None:
    with pytest.raises(hookline.ArgumentError, match=f"where must be a glob such as .*, not {re.escape(repr(where))}"):
        select(model, where)


def test_a_selection_of_another_model_is_refused(model: Model) -> None:
    with pytest.raises(SelectionError, match="this Selection is of another model"):
        select(model, select(Model(), "head"))


@pytest.mark.parametrize("operator", ["__and__", "__or__", "__sub__"])
def test_selections_of_two_models_do_not_combine(model: Model, operator: str) -> None:
    with pytest.raises(SelectionError, match="of two models"):
        getattr(select(model, "head"), operator)(select(Model(), "head"))


def test_a_selection_error_is_a_lookup_error_and_a_hookline_error(model: Model) -> None:
    with pytest.raises(LookupError) as caught:
        select(model, "zzzzzz")

    assert isinstance(caught.value, HooklineError)


# Modules that cannot be told apart by what they say of themselves


class Scale(nn.Module):
    """Equal to any module of its class that scales by as much; without a hash, as `__eq__` alone makes it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def __eq__(self, other: object) -> bool:
        return bool(self.factor == other.factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class HashedScale(Scale):
    def __hash__(self) -> int:
        return 1


@pytest.fixture(params=[Scale, HashedScale])
def scales(request: pytest.FixtureRequest) -> nn.Sequential:
    return nn.Sequential(request.param(2.0), nn.Identity(), request.param(2.0))


def test_equal_modules_are_selected_each_by_itself(scales: nn.Sequential) -> None:
    assert select(scales, Scale).paths == ["0", "2"]
    assert select(scales, scales[2]).paths == ["2"]
    assert (select(scales) - "0").paths == ["", "1", "2"]
    assert scales[2] not in select(scales, "0")


def test_equal_modules_are_shown_with_their_parameters(scales: nn.Sequential) -> None:
    rows = [line.replace("│", " ").split() for line in shown(select(scales)).splitlines()]

    assert ["(the", "model)", "Sequential", "2"] in rows
    assert ["2", type(scales[2]).__name__, "1"] in rows


def test_equal_modules_are_watched_each_by_itself(scales: nn.Sequential) -> None:
    with hookline.watch(scales, keep="tensor", grads=True) as run:
        scales(torch.ones(1)).sum().backward()

    assert [call.path for call in run] == ["", "0", "1", "2"]
    assert [run[path].output.value.item() for path in ("0", "2")] == [2.0, 4.0]
    assert type(scales[0]) in (Scale, HashedScale)


def test_steps_run_on_the_one_of_equal_modules_that_they_were_put_on(scales: nn.Sequential) -> None:
    seen = []
    with hookline.on(scales, "2", after=lambda call: seen.append((call.path, call.index))):
        scales(torch.ones(1))
        scales(torch.ones(1))

    assert seen == [("2", 0), ("2", 1)]


@pytest.mark.parametrize("use", [hookline.select, hookline.watch, hookline.hooks])
def test_what_is_no_module_is_an_error_that_says_so(use: Any) -> None:
    with pytest.raises(hookline.ArgumentError, match=r"expected a torch\.nn\.Module, not str"):
        use("encoder")
