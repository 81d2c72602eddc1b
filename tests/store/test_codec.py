"""The codec: objects with known members, and values of any nesting, written and read back."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from hookline.errors import StoreError
from hookline.model.tensors import Fields, Opaque
from hookline.store.codec import DEEPEST, Kind, Reader, Schema, Writer, plain
from hookline.store.members import MemberError, listed, number, text


@dataclass(frozen=True)
class Point:
    name: str
    at: tuple[float, ...]
    note: str | None = None


POINT = Schema(Point, {"name": text, "at": listed(number)}, optional={"note": text}, beside=("length",))


def test_object_comes_back() -> None:
    point = Point("a", (1.0, math.inf), "far")
    assert POINT.write(point) == {"name": "a", "at": [1.0, "inf"], "note": "far"}
    assert POINT.read(json.loads(json.dumps(POINT.write(point)))) == point


def test_optional_member_is_left_out_where_it_is_none() -> None:
    assert POINT.write(Point("a", ())) == {"name": "a", "at": []}
    assert POINT.read({"name": "a", "at": []}) == Point("a", ())


def test_member_beside_is_allowed_and_not_read() -> None:
    assert POINT.read({"name": "a", "at": [], "length": 0}) == Point("a", ())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "expected an object"),
        ({"name": "a"}, "at is missing"),
        ({"name": 1, "at": []}, "name: expected text, got 1"),
        ({"name": "a", "at": [0, "b"]}, r"at\[1\]: expected a number"),
        ({"name": "a", "at": [], "age": 1}, "unknown member 'age'"),
    ],
)
def test_wrong_object_names_the_member(data: Any, said: str) -> None:
    with pytest.raises(MemberError) as caught:
        POINT.read(data)
    assert caught.match(said)


def test_plain_is_what_json_holds() -> None:
    assert plain({"a": (1, math.nan), "b": Point("c", ())}) == {
        "a": [1, "nan"],
        "b": {"name": "c", "at": [], "note": None},
    }


def test_values_of_any_nesting_come_back() -> None:
    value = [None, True, 1, 0.5, "a", -math.inf, 1j, (1, [2]), {1: "b"}, Fields("Answer", {"c": Opaque("Cache")})]
    written = json.loads(json.dumps(Writer().value(value, "v"), allow_nan=False))
    assert repr(Reader({}).value(written)) == repr(value)


def test_tensor_that_comes_twice_is_stored_once() -> None:
    tensor, writer = torch.ones(2), Writer()
    written = writer.value((tensor, [tensor]), "v")
    assert [*writer.tensors] == ["v.0"]
    one, (other,) = Reader(writer.tensors).value(written)
    assert one is other


def test_kind_of_a_document_comes_back() -> None:
    kinds = {
        "point": Kind(
            Point, lambda writer, point, name: POINT.write(point), lambda reader, data: Point(data["name"], ())
        )
    }
    written = Writer(kinds).value([Point("a", ())], "v")
    assert written == [{"kind": "point", "name": "a", "at": []}]
    assert Reader({}, kinds).value(written) == [Point("a", ())]
    with pytest.raises(MemberError, match="expected one of"):
        Reader({}).value(written)


def test_value_that_cannot_be_saved_is_named() -> None:
    with pytest.raises(StoreError, match=r"v\.1 holds an object; only tensors, numbers, text"):
        Writer().value([1, object()], "v")


def test_value_that_a_reader_would_refuse_is_not_written() -> None:
    deep: list[Any] = []
    for _ in range(DEEPEST):
        deep = [deep]
    with pytest.raises(StoreError, match="nested more than 99 deep"):
        Writer().value(deep, "v")
    with pytest.raises(MemberError, match="nested more than 100 deep"):
        Reader({}).value(deep)
