"""Lines: the numbers of as many rows as a line of memory holds, which vector instructions take at once.

A line is a value in kernels, of 16 float32 or 8 float64 numbers: `load_line` and `store_line` move it, and `+`, `-` and `*`
are of each number alone. LLVM finds vectors in long loops by itself, but not in sums that are to stay in registers, nor in the
short loops of a sorting network. With compilation off a line is an array of NumPy's.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from streamsgd.kernels.compile.emit import everywhere, place
from streamsgd.kernels.compile.memory import LINE


class _Line(types.Type):
    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Line({dtype})")


@register_model(_Line)
class _LineModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, LINE * 8 // kind.dtype.bitwidth))


def _operate(operation, name):
    """Say what an operator does with two lines."""

    @infer_global(operation)
    class _Operator(AbstractTemplate):
        def generic(self, args, kws):
            lines = not kws and len(args) == 2 and isinstance(args[0], _Line) and args[0] == args[1]
            return signature(args[0], *args) if lines else None

    @lower_builtin(operation, _Line, _Line)
    def _(_context, builder, _signature, args):
        return getattr(builder, name)(*args)


for _operation, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _operate(_operation, _name)


def _place(context, builder, array_type, args):
    """Return the address of the line that begins at a number of a flat array."""
    array = context.make_array(array_type)(context, builder, args[0])
    return place(builder, array.data, args[1], context.get_value_type(_Line(array_type.dtype)))


def _loader():
    if config.DISABLE_JIT:
        return lambda values, at: values[at : at + LINE // values.itemsize].copy()

    @intrinsic
    def load_line(_typing, values, _at):
        def codegen(context, builder, signature, args):
            place = _place(context, builder, signature.args[0], args)
            return builder.load(place, align=values.dtype.bitwidth // 8)

        return _Line(values.dtype)(values, types.int64), codegen

    return load_line


load_line = _loader()
"""load_line(values, at): the line that begins at a number of a flat array."""


def _storer():
    if config.DISABLE_JIT:

        def store_in_python(values, at, line):
            values[at : at + len(line)] = line

        return store_in_python

    @intrinsic
    def store_line(_typing, values, _at, line):
        def codegen(context, builder, signature, args):
            builder.store(args[2], _place(context, builder, signature.args[0], args), align=values.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(values, types.int64, line), codegen

    return store_line


store_line = _storer()
"""store_line(values, at, line): write a line into a flat array."""


def _repeater():
    if config.DISABLE_JIT:
        return lambda values, at: np.full(LINE // values.itemsize, values[at])

    @intrinsic
    def repeat(_typing, values, _at):
        def codegen(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            number = builder.load(builder.gep(array.data, [args[1]]))
            return everywhere(builder, number, context.get_value_type(_Line(values.dtype)))

        return _Line(values.dtype)(values, types.int64), codegen

    return repeat


repeat = _repeater()
"""repeat(values, at): a line of one number of a flat array."""


def _counter():
    if config.DISABLE_JIT:
        return lambda values: LINE // values.itemsize

    @intrinsic
    def length(_typing, values):
        def codegen(_context, _builder, _signature, _args):
            return ir.IntType(64)(LINE * 8 // values.dtype.bitwidth)

        return types.int64(values), codegen

    return length


length = _counter()
"""length(values): how many numbers of an array a line holds, which the compiler knows."""


def _chooser(name, in_python, function):
    if config.DISABLE_JIT:
        return in_python

    @intrinsic
    def choose(_typing, a, _b):
        def codegen(context, builder, _signature, args):
            kind = context.get_value_type(a)
            name = f"{function}.v{kind.count}f{a.dtype.bitwidth}"
            call = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind, kind]), name)
            # A comparison and a choice would be made a masked store, for which the next load waits: 0.5 us a row for the draws
            # of 64. That there is no NaN saves looking for it; where there is one, either number may come out.
            return builder.call(call, args, fastmath=("nnan", "nsz"))

        return a(a, a), codegen

    choose.__name__ = name
    return choose


lowest = _chooser("lowest", np.minimum, "llvm.minnum")
"""lowest(a, b): the smaller numbers of two lines, place by place."""

highest = _chooser("highest", np.maximum, "llvm.maxnum")
"""highest(a, b): the larger ones."""
