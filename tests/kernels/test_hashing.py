"""Hashes: those of scikit-learn's MurmurHash3, over Arrow's strings however they lie in memory, and over words of texts."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wide import hash32, slot

from streamsgd.features.arrow import as_bytes
from streamsgd.features.categories import CategoryColumn, CategoryEncoder
from streamsgd.features.hashing import NULL, Hashed, hash_values, name_seed
from streamsgd.features.ragged import RaggedColumn, RaggedEncoder

WHOLE = Hashed(0, 30)
"""Only 30 bits are compared: coordinates are int32."""

RNG = np.random.default_rng(3)
EVERY_LENGTH = [RNG.bytes(length) for length in range(71)]
UNICODE = ["", "a", "ä", "日本語", "🙂🙃", "a\0b", "Ωmega", "e\u0301", "\U0010ffff"]


# --- law: the hash is MurmurHash3 x86 32 bit


@pytest.mark.parametrize("seed", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_every_length_and_seed_is_that_of_sklearn(seed: int) -> None:
    got = hash_values(pa.array(EVERY_LENGTH, pa.binary()), seed, WHOLE)
    assert got.dtype == np.int32
    assert got.tolist() == [hash32(value, seed) & WHOLE.mask for value in EVERY_LENGTH]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 2**32 - 1))
def test_any_bytes_are(values: list[bytes], seed: int) -> None:
    got = hash_values(pa.array(values, pa.binary()), seed, WHOLE)
    assert got.tolist() == [hash32(value, seed) & WHOLE.mask for value in values]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_strings_are_their_utf8(kind: Any) -> None:
    values = [*UNICODE, "x" * 100_000, "é" * 50_001]
    got = hash_values(as_bytes(pa.array(values, kind)), 7, WHOLE)
    assert got.tolist() == [hash32(value.encode(), 7) & WHOLE.mask for value in values]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_a_slice_begins_where_it_begins(kind: Any) -> None:
    whole = hash_values(pa.array(EVERY_LENGTH, kind), 5, WHOLE)
    for first, last in ((0, 0), (1, 70), (13, 14), (70, 71), (71, 71)):
        part = pa.array(EVERY_LENGTH, kind)[first:last]
        assert np.array_equal(hash_values(part, 5, WHOLE), whole[first:last])
        assert np.array_equal(hash_values(part[1:], 5, WHOLE), whole[first + 1 : last])


def test_an_array_without_rows_or_without_bytes() -> None:
    assert hash_values(pa.array([], pa.binary()), 0, WHOLE).tolist() == []
    empty = hash_values(pa.array([b"", b""], pa.binary()), 9, WHOLE)
    assert empty.tolist() == [hash32(b"", 9) & WHOLE.mask] * 2


@pytest.mark.parametrize("bits", [8, 18, 30])
@pytest.mark.parametrize("first", [0, 1000])
def test_a_space_takes_the_low_bits_from_its_first_coordinate_on(bits: int, first: int) -> None:
    got = hash_values(pa.array(EVERY_LENGTH, pa.binary()), 3, Hashed(first, bits))
    assert got.tolist() == [first + hash32(value, 3) % 2**bits for value in EVERY_LENGTH]


# --- law: a value is hashed with the hash of its column's name as seed


@pytest.mark.parametrize("name", ["x", "", "Größe", "a.b*c=d", "n" * 1000])
def test_the_seed_of_a_column_is_the_hash_of_its_name(name: str) -> None:
    assert name_seed(name) == hash32(name.encode(), 0)
    coder = CategoryEncoder(CategoryColumn(name, name, "string"), WHOLE)
    assert coder.places(UNICODE).tolist() == [slot(value.encode(), name, WHOLE) for value in UNICODE]
    assert coder.null == slot(NULL, name, WHOLE)


def test_equal_values_of_two_columns_are_apart() -> None:
    values = [str(k) for k in range(1000)]
    a, b = (CategoryEncoder(CategoryColumn(name, name, "string"), WHOLE).places(values) for name in ("a", "b"))
    assert not (a == b).any()
    assert len({*a.tolist(), *b.tolist()}) == 2000


def test_hashes_fill_their_space_evenly() -> None:
    """Of 2^16 values in 2^16 slots 1 - 1/e are taken; chi square of 255 degrees of freedom has a deviation of sqrt(510)."""
    places = hash_values(as_bytes(pa.array([f"value {k}" for k in range(1 << 16)])), name_seed("c"), Hashed(0, 16))
    assert len(np.unique(places)) / 65536 == pytest.approx(1 - np.exp(-1), abs=0.005)
    counts = np.bincount(places >> 8, minlength=256)
    assert abs(float(((counts - 256) ** 2 / 256).sum()) - 255) < 5 * np.sqrt(2 * 255)


# --- law: texts are runs of letters, digits, underscores and bytes beyond ASCII, and sequences of them


def words_of(text: bytes, *, fold: bool = True) -> list[bytes]:
    """Cut as a regular expression does; folded by the simple rule of Unicode where the text is UTF-8, else only in ASCII."""
    if fold:
        try:
            text = "".join(c.lower() if len(c.lower()) == 1 else c for c in text.decode()).encode()
        except UnicodeDecodeError:
            text = text.lower()
    return re.findall(rb"[A-Za-z0-9_\x80-\xff]+", text)


def grams_of(words: list[bytes], longest: int, name: str, space: Hashed) -> list[int]:
    """Coordinates of all sequences: a sequence of several is hashed as the hashes of its words, four bytes each."""
    seed = hash32(name.encode(), 0)
    hashes = [hash32(word, seed) for word in words]
    grams = [*hashes]
    for size in range(2, longest + 1):
        for at in range(len(words) - size + 1):
            joined = b"".join(h.to_bytes(4, "little") for h in hashes[at : at + size])
            grams.append(hash32(joined, seed))
    return sorted(space.first + (gram & space.mask) for gram in grams)


def cut(tailer: RaggedEncoder, column: Any) -> list[list[int]]:
    """Coordinates of each row, sorted; every factor is 1."""
    found = tailer.tails(column)
    assert (found.pool[:, 1].view(np.float32) == 1.0).all()
    pairs = zip(found.starts.tolist(), found.counts.tolist(), strict=True)
    return [sorted(found.pool[start : start + count, 0].tolist()) for start, count in pairs]


TEXTS = [
    "The quick brown fox",
    "",
    "   \t\n .,;!?-—",
    "one",
    "don't stop_believing 42 times; DON'T",
    "ÄPFEL und Öl: Straße, ΔΈΛΤΑ ЖУК ÉCOLE",
    "日本語 テキスト 🙂 emoji",
    "a b a b a b",
    "trailing ",
    " leading",
    "x" * 100_000,
    "word " * 20_000,
    "nul\0nul",
]
SPACE = Hashed(17, 22)


@pytest.mark.parametrize("longest", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()], ids=str)
def test_words_and_their_sequences_are_those_of_the_reference(longest: int, kind: Any) -> None:
    tailer = RaggedEncoder(RaggedColumn("t", "string", "text", longest=longest), SPACE)
    given_texts = [text.encode() for text in TEXTS] if kind == pa.binary() else TEXTS
    got = cut(tailer, pa.array(given_texts, kind))
    assert got == [grams_of(words_of(text.encode()), longest, "t", SPACE) for text in TEXTS]


def test_however_they_lie_in_memory() -> None:
    tailer = RaggedEncoder(RaggedColumn("t", "string", "text", longest=2), SPACE)
    array = pa.array([*TEXTS[:9], None, *TEXTS[:3]])
    expected = [grams_of(words_of((text or "").encode()), 2, "t", SPACE) for text in array.to_pylist()]
    shapes = {
        "plain": array,
        "dictionary": array.dictionary_encode(),
        "chunks": pa.chunked_array([array[:4], array[4:4], array[4:]]),
        "dictionaries": pa.chunked_array([array[:7].dictionary_encode(), array[7:].dictionary_encode()]),
        "null in the dictionary": pa.DictionaryArray.from_arrays(pa.array(range(len(array)), pa.int8()), array),
    }
    for shape, column in shapes.items():
        assert cut(tailer, column) == expected, shape
        assert cut(tailer, column[2:11]) == expected[2:11], shape
        assert cut(tailer, column[:0]) == [], shape


def test_bytes_that_are_no_utf8_are_words_too_folded_in_ascii() -> None:
    texts = [b"Caf\xe9 LATTE", b"\xff\xfe", b"ok OK", b"\xc3(", b"\x80a\x80 B", b"", None]
    tailer = RaggedEncoder(RaggedColumn("t", "binary", "text", longest=2), SPACE)
    expected = [grams_of(words_of(text or b""), 2, "t", SPACE) for text in texts]
    assert cut(tailer, pa.array(texts, pa.binary())) == expected


def test_a_text_is_cut_the_same_whoever_stands_beside_it() -> None:
    """Rows are read in pieces that depend on memory: what stands in the same piece must not matter."""
    tailer = RaggedEncoder(RaggedColumn("t", "binary", "text"), SPACE)
    beside = cut(tailer, pa.array(["ÄPFEL".encode(), b"\xff"], pa.binary()))[0]
    assert cut(tailer, pa.array(["ÄPFEL".encode()], pa.binary()))[0] == beside


def test_capitals_count_if_they_are_to() -> None:
    tailer = RaggedEncoder(RaggedColumn("t", "string", "text", fold=False), SPACE)
    assert cut(tailer, pa.array(TEXTS)) == [grams_of(words_of(text.encode(), fold=False), 1, "t", SPACE) for text in TEXTS]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4), st.integers(1, 4))
def test_any_bytes_are_cut_as_the_reference_says(texts: list[bytes], longest: int) -> None:
    tailer = RaggedEncoder(RaggedColumn("t", "binary", "text", longest=longest, fold=False), SPACE)
    expected = [grams_of(words_of(text, fold=False), longest, "t", SPACE) for text in texts]
    assert cut(tailer, pa.array(texts, pa.binary())) == expected
