# SPDX-License-Identifier: Apache-2.0
"""What goes into a fresh interpreter and comes back: which functions, and which values."""

from __future__ import annotations

import enum
import functools
import os
import pickle
import subprocess
import sys

import pytest
import starts

from pytest_compilepool.fresh import callables, values
from pytest_compilepool.fresh.callables import BadInput, check_function, pack, unpack

torch = pytest.importorskip("torch", reason="a fresh interpreter imports torch")


def top_level():
    """At the top level of a test module."""


class Thing:
    def method(self):
        """A method."""


@pytest.mark.parametrize(
    "value", [top_level, Thing, Thing(), torch.sum, len, functools.partial(top_level), torch.nn.ReLU()]
)
def test_these_are_found_by_a_fresh_interpreter(value):
    if not isinstance(value, Thing):
        check_function(value, "here")
    else:
        with pytest.raises(BadInput, match="is not a function"):
            check_function(value, "here")


def test_these_are_not():
    def local():
        """Defined in here."""

    cases = {
        "is a lambda, which a fresh interpreter cannot import": lambda: None,
        "is defined inside test_these_are_not(), which": local,
        "is a method of an object": Thing().method,
        "7 is not a function": 7,
        "(wrapped by a decorator, or by torch.compile?)": starts.original,
        "is a lambda, which": functools.partial(lambda: None),
    }
    for sentence, value in cases.items():
        with pytest.raises(BadInput) as caught:
            check_function(value, "here")
        assert sentence in str(caught.value)
        assert str(caught.value).startswith("here: ")
        assert "\n" not in str(caught.value)


def test_a_function_of_main_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pytest_compilepool.fresh.callables import check_function\n"
        "def f(): pass\n"
        "try: check_function(f, 'here')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == (
        "here: __main__.f is defined in __main__, which a fresh interpreter does not have; "
        "put it into a module that can be imported"
    ), done.stderr


def test_a_module_that_cannot_be_imported_by_its_name_is_loaded_from_its_file(tmp_path, monkeypatch):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "test_there.py").write_text("class Kept:\n    value = 5\n\ndef f():\n    return Kept()\n")
    name = "rootdir.of.some.test_there"
    try:
        module = callables.load_module(name, str(folder / "test_there.py"))
        parcel = pack((module.f, module.Kept()), "here")
        assert (name, str(folder / "test_there.py")) in parcel.modules
    finally:
        for known in [known for known in sys.modules if known.startswith("rootdir")]:
            del sys.modules[known]
    again = pickle.loads(pickle.dumps(parcel))
    try:
        function, kept = unpack(again)
        assert function().value == kept.value == 5
        assert sys.modules[name].__file__ == str(folder / "test_there.py")
    finally:
        for known in [known for known in sys.modules if known.startswith("rootdir")]:
            del sys.modules[known]


def test_every_module_that_a_value_needs_is_sent_along(tmp_path):
    (tmp_path / "outer_there.py").write_text("class Outer:\n    pass\n")
    (tmp_path / "inner_there.py").write_text("class Inner:\n    pass\n\ndef f():\n    pass\n")
    names = "place_a.outer_there", "place_b.inner_there"
    try:
        outer, inner = (
            callables.load_module(name, f"{tmp_path}/{name.partition('.')[2]}.py") for name in names
        )
        value = outer.Outer()
        value.inside = [inner.Inner()]
        assert [name for name, _ in pack(value, "here").modules] == list(names)
        value.inside = {"a": functools.partial(inner.f)}
        assert [name for name, _ in pack(value, "here").modules] == list(names)
    finally:
        for known in [known for known in sys.modules if known.startswith(("place_a", "place_b"))]:
            del sys.modules[known]


def test_tensors_and_plain_values_come_back_as_they_were(tmp_path):
    value = {
        1: torch.arange(6).reshape(2, 3).t(),
        "b": [None, True, 2.5, 1j, b"x", "y"],
        (1, 2): (torch.tensor(float("nan")), ()),
    }
    file = str(tmp_path / "value")
    values.write(values.portable(value), file)
    back = values.read(file)
    assert list(back) == list(value)
    assert back["b"] == value["b"]
    assert back[1].stride() == value[1].stride()
    assert torch.equal(back[1], value[1])
    assert isinstance(back[1, 2], tuple)
    assert back[1, 2][0].isnan()


def test_a_view_does_not_take_its_storage_along(tmp_path):
    file = tmp_path / "value"
    values.write(values.portable(torch.zeros(1_000_000)[:2]), str(file))
    assert file.stat().st_size < 10_000


def test_a_tensor_without_data_comes_back_as_its_shape(tmp_path):
    values.write(values.portable([torch.empty(2, 3, device="meta")]), str(tmp_path / "value"))
    assert values.read(str(tmp_path / "value")) == [values.Shape((2, 3), (3, 1), "torch.float32", "meta")]


def circle():
    value = []
    value.append(value)
    return value


def emptied():
    tensor = torch.ones(4)
    tensor.untyped_storage().resize_(0)
    return tensor


class Sub(torch.Tensor):
    """A subclass of somebody's."""


class Kind(int, enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1, {"a": {1, 2}}], r"output\[1\]\['a'\] is of type builtins.set; allowed are tensors"),
        (
            torch.eye(2).to_sparse(),
            r"output is a tensor that is of layout torch.sparse_coo; allowed: strided",
        ),
    ],
)
def test_other_values_are_refused(value, sentence):
    with pytest.raises(BadInput, match=sentence):
        values.portable(value)


def test_what_of_arguments_can_be_compared():
    weight = torch.ones(2, requires_grad=True)
    weight.sum().backward()
    told = values.comparable(
        {
            "a": [1, "b", circle(), object()],
            "w": weight,
            "m": torch.nn.BatchNorm1d(2),
            "s": torch.eye(2).to_sparse(),
        },
        "it",
    )
    assert sorted(told) == [
        "it['a'][0]",
        "it['a'][1]",
        "it['m'].bias",
        "it['m'].num_batches_tracked",
        "it['m'].running_mean",
        "it['m'].running_var",
        "it['m'].weight",
        "it['w']",
        "it['w'].grad",
        "len(it)",
        "len(it['a'])",
        "len(it['a'][2])",
    ]
    assert torch.equal(told["it['w'].grad"], torch.ones(2))


def test_forms_say_what_is_lost():
    import collections

    pair = collections.namedtuple("pair", "a b")
    value = pair(torch.ones(3, 1).expand(3, 4), {"p": torch.nn.Parameter(torch.ones(1))})
    assert values.forms(value) == {
        "output": "a pair",
        "output[0]": "a Tensor on cpu, strides (1, 0), requires_grad False",
        "output[1]": "a dict",
        "output[1]['p']": "a Parameter on cpu, strides (1,), requires_grad True",
    }


def test_nothing_is_executed_when_a_value_is_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save(("value", Evil()), tmp_path / "value")
    with pytest.raises(pickle.UnpicklingError):
        values.read(str(tmp_path / "value"))
    assert not (tmp_path / "made").exists()
