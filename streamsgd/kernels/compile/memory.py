"""Raw memory: numbers at an address, a hint to the processor, vectors. With compilation off, the same in Python."""

import ctypes
from functools import reduce

import numpy as np
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

load_int32 = _loader("load_int32", ir.IntType(32), types.int32, ctypes.c_int32)
"""load_int32(address, r): the r-th int32 from an address on."""

load_int64 = _loader("load_int64", ir.IntType(64), types.int64, ctypes.c_int64)
"""load_int64(address, r): the r-th int64 from an address on."""

load_word = _loader("load_uint64", ir.IntType(64), types.uint64, ctypes.c_uint64)
"""load_word(address, r): the r-th uint64 from an address on."""

load_byte = _loader("load_byte", ir.IntType(8), types.uint8, ctypes.c_uint8)
"""load_byte(address, r): the r-th byte from an address on."""


def _toucher():
    if config.DISABLE_JIT:
        return lambda _address: None

    @intrinsic
    def touch(_typing, _address):
        def codegen(context, builder, _signature, args):
            width, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, width, width, width])
            name = "llvm.prefetch.p0i8"
            hint = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            # Read, keep in all levels, data: the arguments of llvm.prefetch.
            builder.call(hint, [builder.inttoptr(args[0], byte), width(0), width(3), width(1)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return touch


touch = _toucher()
"""touch(address): ask for the line of memory at an address, which may be past the end of what there is."""


def _addresser():
    if config.DISABLE_JIT:
        return lambda values: values.ctypes.data

    @intrinsic
    def address_of(_typing, values):
        def codegen(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.ptrtoint(array.data, ir.IntType(64))

        return types.int64(values), codegen

    return address_of


address_of = _addresser()
"""address_of(values): where an array's numbers begin."""


def _item_toucher():
    if config.DISABLE_JIT:
        return lambda _values, _i: None

    @intrinsic
    def touch_item(_typing, values, _i):
        def codegen(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            width, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            index = builder.sext(args[1], ir.IntType(64)) if args[1].type.width < 64 else args[1]
            stride = builder.extract_value(array.strides, 0)
            at = builder.gep(builder.bitcast(array.data, byte), [builder.mul(index, stride)])
            kind = ir.FunctionType(ir.VoidType(), [byte, width, width, width])
            name = "llvm.prefetch.p0i8"
            hint = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(hint, [at, width(0), width(3), width(1)])
            return context.get_dummy_value()

        return types.void(values, _i), codegen

    return touch_item


touch_item = _item_toucher()
"""touch_item(values, i): ask for the line of memory of an array's i-th item."""


def _copier():
    if config.DISABLE_JIT:
        return lambda target, source, n_bytes: ctypes.memmove(int(target), int(source), int(n_bytes))

    @intrinsic
    def copy_bytes(_typing, _target, _source, _n_bytes):
        def codegen(context, builder, _signature, args):
            byte = ir.IntType(8).as_pointer()
            copy = builder.module.declare_intrinsic("llvm.memcpy", [byte, byte, ir.IntType(64)])
            target, source = (builder.inttoptr(address, byte) for address in args[:2])
            builder.call(copy, [target, source, args[2], ir.IntType(1)(0)])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return copy_bytes


copy_bytes = _copier()
"""copy_bytes(target, source, n_bytes): copy memory to where it does not overlap."""

SIDE = 8
"""Rows and columns of a square that is transposed in registers."""


def _ramp(name, llvm_type, ctype):
    """Return the function that writes SIDE numbers from memory, shifted and scaled in `shift`'s type, into an array."""
    if config.DISABLE_JIT:

        def ramp_in_python(address, r, shift, scale, out, at):
            for q in range(SIDE):
                x = ctype.from_address(int(address) + (r + q) * ctypes.sizeof(ctype)).value
                out[at + q] = (type(shift)(x) - shift) * scale

        return ramp_in_python

    @intrinsic
    def ramp(_typing, _address, _r, shift, scale, out, _at):
        def codegen(context, builder, signature, args):
            given, wanted = context.get_value_type(shift), context.get_value_type(out.dtype)
            base = builder.gep(builder.inttoptr(args[0], ir.PointerType(llvm_type)), [args[1]])
            vector = ir.VectorType(llvm_type, SIDE).as_pointer()
            x = builder.load(builder.bitcast(base, vector), align=ctypes.sizeof(ctype))
            x = _as(builder, x, given)
            z = builder.fmul(builder.fsub(x, _all(builder, args[2], given)), _all(builder, args[3], given))
            z = _as(builder, z, wanted)
            array = context.make_array(signature.args[4])(context, builder, args[4])
            place = builder.bitcast(builder.gep(array.data, [args[5]]), z.type.as_pointer())
            builder.store(z, place, align=context.get_abi_sizeof(wanted))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, shift, scale, out, types.int64), codegen

    ramp.__name__ = name
    return ramp


def _as(builder, vector, number):
    """Return a vector's numbers as float or double."""
    if vector.type.element == number:
        return vector
    kind = ir.VectorType(number, SIDE)
    return builder.fpext(vector, kind) if isinstance(number, ir.DoubleType) else builder.fptrunc(vector, kind)


def _all(builder, value, number):
    """Return a vector of one number."""
    kind = ir.VectorType(number, SIDE)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), SIDE), [0] * SIDE))


ramp32 = _ramp("ramp_float32", ir.FloatType(), ctypes.c_float)
"""ramp32(address, r, shift, scale, out, at): for q < SIDE, out[at + q] = (x - shift) * scale, with x the (r + q)-th float32
from an address on; reckoned in the type of shift and scale."""

ramp64 = _ramp("ramp_float64", ir.DoubleType(), ctypes.c_double)
"""ramp64(address, r, shift, scale, out, at): the same of float64 numbers."""


def _transposer():
    if config.DISABLE_JIT:

        def transpose_in_python(source, at, pitch, values, dest, r, j):
            square = np.stack([source[at + k * pitch : at + k * pitch + SIDE] for k in range(SIDE)])
            values[dest[r : r + SIDE], j : j + SIDE] = square.T
            return values.dtype.type(square.sum())

        return transpose_in_python

    @intrinsic
    def transpose(_typing, source, _at, _pitch, values, dest, _r, _j):
        def codegen(context, builder, signature, args):
            _, at, pitch, _, _, r, j = args
            source_array, values_array, dest_array = (
                context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 3, 4)
            )
            index, number = ir.IntType(64), context.get_value_type(values.dtype)
            whole = isinstance(values.dtype, types.Integer)
            vector = ir.VectorType(number, SIDE).as_pointer()
            size = context.get_abi_sizeof(number)
            lanes = []
            for k in range(SIDE):
                first = builder.gep(source_array.data, [builder.add(at, builder.mul(pitch, index(k)))])
                lanes.append(builder.load(builder.bitcast(first, vector), align=size))
            check = number(0) if whole else _sum(builder, lanes)
            for q, lane in enumerate(_transposed(builder, lanes)):
                place = builder.load(builder.gep(dest_array.data, [builder.add(r, index(q))]))
                stride = builder.extract_value(values_array.strides, 0)
                row = builder.bitcast(values_array.data, ir.IntType(8).as_pointer())
                row = builder.gep(row, [builder.mul(builder.sext(place, index), stride)])
                first = builder.gep(builder.bitcast(row, number.as_pointer()), [j])
                builder.store(lane, builder.bitcast(first, vector), align=size)
            return check

        int64 = types.int64
        return values.dtype(source, int64, int64, values, dest, int64, int64), codegen

    return transpose


def _transposed(builder, lanes):
    """Return the columns of a square whose rows are these vectors: swap blocks of 1, of 2, of 4."""
    lanes, masks = list(lanes), ir.VectorType(ir.IntType(32), SIDE)
    for step in (1, 2, 4):
        low = ir.Constant(masks, [q if not q & step else SIDE + q - step for q in range(SIDE)])
        high = ir.Constant(masks, [q + step if not q & step else SIDE + q for q in range(SIDE)])
        for k in (k for k in range(SIDE) if not k & step):
            a, b = lanes[k], lanes[k + step]
            lanes[k], lanes[k + step] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
    return lanes


def _sum(builder, lanes):
    """Return the sum of all numbers of some vectors."""
    total = reduce(builder.fadd, lanes)
    return reduce(builder.fadd, [builder.extract_element(total, ir.IntType(32)(q)) for q in range(SIDE)])


transpose = _transposer()
"""transpose(source, at, pitch, values, dest, r, j): for k, q < SIDE, values[dest[r + q], j + k] = source[at + k * pitch + q].

`source` is flat and of the type of `values`, `dest` int32; all are C-contiguous. Returns the sum of floats.
"""
