"""What Numba is asked again and again while a kernel compiles is answered once, and as Numba itself answers it."""

import operator
from typing import Any

import pytest
from numba import float32, float64, int64, types
from numba.core import event
from numba.core.caching import NullCache
from numba.core.compiler import Flags, run_frontend
from numba.core.errors import TypingError
from numba.core.registry import cpu_target

from streamsgd.kernels.compile import frontend
from streamsgd.kernels.compile.frontend import SWAPS, forget, remember
from streamsgd.kernels.compile.jit import kernel


def state() -> tuple[Any, ...]:
    return tuple(getattr(owner, name) for owner, name, *_ in SWAPS)


@pytest.fixture
def fast() -> Any:
    remember()
    yield
    forget()


def some(x: Any, y: Any) -> Any:
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * y[i] if x[i] > total else -max(y[i], 1.0)
        y[i] = total
    return {"a": [total, (x, y)]}


def test_numba_is_as_it_was_once_a_kernel_is_compiled() -> None:
    before, seen = state(), []

    class Look(event.Listener):
        def on_start(self, event: Any) -> None:
            seen.append(state())

        def on_end(self, event: Any) -> None:
            seen.append(state())

    fresh = kernel(lambda x: x * 3.0 + 1.0)
    fresh._cache = NullCache()
    with event.install_listener("numba:run_pass", Look()):
        fresh(1.0)
    assert seen
    assert all(now != then for found in seen for now, then in zip(found, before, strict=True))
    assert state() == before
    with pytest.raises(TypingError):
        kernel(lambda x: x + "")(1.0)
    assert state() == before


@pytest.mark.parametrize("name", ["add", "getitem", "lt", "truediv"])
def test_a_signature_is_the_one_that_numba_finds_and_is_found_once(
    fast: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    context = cpu_target.typing_context
    function = context.resolve_value_type(getattr(operator, name))
    kinds = (types.Array(float32, 1, "C"), int64) if name == "getitem" else (float32, float64)
    expected = frontend._ask(function, context, kinds, {})
    asked = []
    monkeypatch.setattr(frontend, "_known", {})
    plain = frontend._ask
    monkeypatch.setattr(frontend, "_ask", lambda *args: asked.append(args) or plain(*args))
    assert [function.get_call_type(context, kinds, {}) for _ in range(3)] == [expected] * 3
    assert len(asked) == 1
    other = (float32, float32) if name != "getitem" else (types.Array(float64, 1, "C"), int64)
    assert function.get_call_type(context, other, {}) != expected


def test_what_an_overload_answers_is_asked_each_time(fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compiled by the options of its caller, which is more than the types say."""
    context, asked = cpu_target.typing_context, []
    function = context.resolve_value_type(max)
    plain = frontend._ask
    monkeypatch.setattr(frontend, "_ask", lambda *args: asked.append(args) or plain(*args))
    for _ in range(2):
        function.get_call_type(context, (float64, float64), {})
    assert len(asked) >= 2


def test_options_are_those_that_numba_reads() -> None:
    flags = Flags()
    flags.nrt, flags.error_model = True, "numpy"
    assert list(frontend._values(flags).items()) == list(flags.values().items())
    assert list(frontend._values(Flags()).items()) == list(Flags().values().items())


def test_statements_name_the_variables_that_numba_finds_in_their_order() -> None:
    statements = [one for block in run_frontend(some).blocks.values() for one in block.body]
    assert len(statements) > 20
    expected = [[var.name for var in one.list_vars()] for one in statements]
    remember()
    try:
        assert [[var.name for var in one.list_vars()] for one in statements] == expected
    finally:
        forget()
