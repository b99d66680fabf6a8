"""Verbs put into the loops that call them, each typed once.

Numba's own `@overload(inline="always")` compiles the function that a verb stands for down to machine code, types it again at
every call, and only then puts its statements where the call was. Verbs call verbs, so that the work doubles at every level:
the training loop took 6 s, of which less than one was LLVM's. Here a function is typed once for the types of its arguments.
The statements that come out, and so the machine code of the loop, are the same.
"""

from __future__ import annotations

from copy import copy, deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from numba import types
from numba.core import compiler
from numba.core.inline_closurecall import InlineWorker
from numba.core.ir import Block
from numba.core.ir_utils import build_definitions
from numba.core.registry import cpu_target
from numba.core.typed_passes import PreLowerStripPhis, type_inference_stage
from numba.core.typing.templates import Signature, _inline_info, infer, infer_global, make_overload_template

if TYPE_CHECKING:
    from collections.abc import Callable


def inlined(verb: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Register how calls of `verb` are typed; the decorated function maps types to Python code, all arguments by position."""
    return partial(_register, verb, {}, "always", {"generic": _generic})


def compiled_once(verb: Callable[..., Any], options: dict[str, Any]) -> Callable[[Callable[..., Any]], Any]:
    """Register a verb that is compiled apart, all of its options given: Numba would do so anew for every kind of caller."""
    return partial(_register, verb, options, "never", {"_get_impl": _get_impl})


def _register(
    verb: Callable[..., Any], options: dict[str, Any], inline: str, own: dict[str, Any], choose: Callable[..., Any]
) -> Callable[..., Any]:
    made = make_overload_template(verb, choose, options, strict=True, inline=inline)
    template = type(made.__name__, (made,), own)
    infer(template)
    infer_global(verb, types.Function(template))
    return choose


def _get_impl(template: Any, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
    """Return the dispatcher for these types, whatever the options of who calls."""
    known = template._impl_cache  # noqa: SLF001
    if args not in known:
        template._build_impl(args, args, kws)  # noqa: SLF001
    return known[args]


class _Block(Block):
    """Statements that are copied without every variable of their function, which would be a twelfth of all compiling."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Block:
        scope = copy(self.scope)
        scope.localvars = copy(scope.localvars)
        scope.localvars._con = dict(scope.localvars._con)  # noqa: SLF001
        scope.redefined = copy(scope.redefined)
        scope.var_redefinitions = deepcopy(scope.var_redefinitions)
        memo[id(self.scope)] = scope
        made = _Copied(scope, self.loc)
        made.body = deepcopy(self.body, memo)
        return made


class _Copied(Block):
    """A copy. Numba's `inline_ir` copies it at once a second time, to return what nobody asks for: that one is not made."""

    copied = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Block:
        if not self.copied:
            self.copied = True
            return self
        made = Block(deepcopy(self.scope, memo), self.loc)
        made.body = deepcopy(self.body, memo)
        return made


def _cheap_to_copy(block: Block) -> Block:
    made = _Block(block.scope, block.loc)
    made.body = block.body
    return made


def _generic(template: Any, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
    """Return the signature of a call, and keep the statements for Numba's pass that puts them in its place."""
    known = template._inline_overloads  # noqa: SLF001
    if kws:
        raise TypeError(f"{template.key.__name__}: verbs take arguments by position")
    if args in known:
        return known[args]["iinfo"].signature
    function = template._overload_func(*args)  # noqa: SLF001
    if function is None:
        return None
    template._validate_sigs(template._overload_func, function)  # noqa: SLF001
    flags = compiler.Flags()
    typing, target = template.context, cpu_target.target_context
    pipeline = compiler.Compiler(typing, target, None, None, None, flags, {})
    ir = InlineWorker(typing, target, {}, pipeline, flags, None).run_untyped_passes(function, enable_ssa=True)
    typemap, return_type, calltypes, _errors = type_inference_stage(typing, target, ir, args, None)
    ir = PreLowerStripPhis()._strip_phi_nodes(ir)  # noqa: SLF001
    ir.blocks = {label: _cheap_to_copy(block) for label, block in ir.blocks.items()}
    ir._definitions = build_definitions(ir.blocks)  # noqa: SLF001
    signature = Signature(return_type, args, None)
    known[args] = {"folded_args": args, "iinfo": _inline_info(ir, typemap, calltypes, signature)}
    template._compiled_overloads[args] = None  # noqa: SLF001
    return signature
