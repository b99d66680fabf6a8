"""Raw memory: numbers at an address, and a hint to the processor. With compilation off, the same in Python."""

import ctypes

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

LINE = 64
"""Bytes of a cache line."""


def _loader(name, llvm_type, numba_type, ctype):
    if config.DISABLE_JIT:
        return lambda address, r: ctype.from_address(int(address) + r * ctypes.sizeof(ctype)).value

    @intrinsic
    def load(_typing, _address, _r):
        def codegen(_context, builder, _signature, args):
            base = builder.inttoptr(args[0], ir.PointerType(llvm_type))
            return builder.load(builder.gep(base, [args[1]]))

        return numba_type(types.int64, types.int64), codegen

    load.__name__ = name
    return load


load32 = _loader("load_float32", ir.FloatType(), types.float32, ctypes.c_float)
"""load32(address, r): the r-th float32 from an address on."""

load64 = _loader("load_float64", ir.DoubleType(), types.float64, ctypes.c_double)
"""load64(address, r): the r-th float64 from an address on."""


def _prefetcher():
    if config.DISABLE_JIT:
        return lambda _values, _i: None

    @intrinsic
    def fetch(_typing, values, _i):
        def codegen(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            width, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            stride = builder.extract_value(array.strides, 0)
            row = builder.gep(builder.bitcast(array.data, byte), [builder.mul(args[1], stride)])
            kind = ir.FunctionType(ir.VoidType(), [byte, width, width, width])
            name = "llvm.prefetch.p0i8"
            hint = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            for offset in (0, LINE):
                line = builder.gep(row, [ir.Constant(ir.IntType(64), offset)])
                # Read, keep in all levels, data: the arguments of llvm.prefetch.
                builder.call(hint, [line, width(0), width(3), width(1)])
            return context.get_dummy_value()

        return types.void(values, types.int64), codegen

    return fetch


prefetch = _prefetcher()
"""prefetch(values, i): ask for the first two lines of row i of a 2-d array; i may be past its end."""
