"""Settings: flag over variable over file over default, and every mistake says where it is."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsgd.errors import SettingsError
from streamsgd.settings.describe import Setting, describe
from streamsgd.settings.fields import Settings
from streamsgd.settings.gather import gather, split_list
from streamsgd.settings.make import identity, make_settings
from streamsgd.settings.registry import PARTS, make


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(text)
    return path


def test_flag_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    config = toml(tmp_path, "target = 'file'\nbatch_size = 8\nepochs = 2\nseed = 3\n")
    environ = {"STREAMSGD_BATCH_SIZE": "16", "STREAMSGD_EPOCHS": "4", "HOME": "/"}
    settings = make_settings(*gather({"epochs": "5", "seed": None}, environ=environ, config=config))
    assert (settings.target, settings.batch_size, settings.epochs, settings.seed) == ("file", 16, 5, 3)
    assert settings.precision == Settings(target="y").precision


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    values, _ = gather(environ={"STREAMSGD_CONFIG": str(toml(tmp_path, "target = 'y'"))})
    assert values == {"target": "y"}


def test_lists_come_from_commas_and_toml_arrays(tmp_path: Path) -> None:
    values, _ = gather(environ={"STREAMSGD_EXCLUDE": 'a, "b,c",d'}, config=toml(tmp_path, "target='y'\nid=['k', 'l']"))
    settings = make_settings(values)
    assert settings.exclude == ("a", "b,c", "d")
    assert settings.id == ("k", "l")


def test_split_list_keeps_quoted_commas() -> None:
    assert split_list('x*,"a,b",,z') == ("x*", "a,b", "z")
    assert split_list("") == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": "many"}, "--batch-size: 'many' is not a whole number of at least 1 or auto or full"),
        ({"batch_size": 0}, "--batch-size: 0 is not a whole number"),
        ({"missing": "men"}, "--missing: 'men' is none of mean, .*did you mean 'mean'"),
        ({"validation": 1.0}, "--validation: 1.0 is not a number of at least 0 and below 1"),
        ({"learning_rate": -1}, "--learning-rate: -1 is not a number above 0"),
        ({"epoch": 1}, "unknown setting 'epoch', did you mean 'epochs'"),
        ({"memory": "lots"}, "--memory: 'lots' is not a size"),
        ({"loss": "log"}, "--loss: unknown loss 'log'"),
        ({"optimizer": "adam:beta=1"}, "--optimizer: optimizer 'adam' has no field 'beta'"),
        ({"shuffle": "corgy"}, "did you mean 'corgi'"),
    ],
)
def test_a_wrong_value_names_its_flag_and_what_it_may_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings({"target": "y", **values})


def test_no_target_is_said_so() -> None:
    with pytest.raises(SettingsError, match="--target"):
        make_settings({})


def test_a_wrong_value_names_its_variable_or_file(tmp_path: Path) -> None:
    config = toml(tmp_path, "target = 'y'\nseed = -1")
    with pytest.raises(SettingsError, match=r"train.toml: seed: -1 is not"):
        make_settings(*gather(environ={}, config=config))
    with pytest.raises(SettingsError, match=r"^STREAMSGD_SEED: 'x' is not"):
        make_settings(*gather(environ={"STREAMSGD_SEED": "x"}, config=config))


def test_unknown_keys_and_variables_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"STREAMSGD_BATCHSIZE .*did you mean 'STREAMSGD_BATCH_SIZE'"):
        gather(environ={"STREAMSGD_BATCHSIZE": "1"})
    with pytest.raises(SettingsError, match=r"train.toml: unknown setting 'batchsize', did you mean 'batch_size'"):
        gather(environ={}, config=toml(tmp_path, "batchsize = 1"))


NAMES = [setting.name.upper() for setting in describe()]


@given(st.one_of(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", min_size=1, max_size=12), st.sampled_from(NAMES)), st.data())
def test_a_variable_of_somebody_else_is_a_warning_and_one_nearly_ours_an_error(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word)))
    word = word[:at] + data.draw(st.sampled_from(["", "X", "XY", "XYZ"])) + word[at + data.draw(st.integers(0, 3)) :]
    if word in ("", "CONFIG", *NAMES):
        return
    nearly_ours = any(edits(word, name) <= min(2, len(name) - 1) for name in NAMES)
    with pytest.raises(SettingsError, match="did you mean") if nearly_ours else nullcontext():
        assert gather(environ={f"STREAMSGD_{word}": "x"}) == ({}, {})


def edits(word: str, other: str) -> int:
    """Insertions, deletions and replacements between two words, by the recursion itself."""
    if not word or not other:
        return len(word) + len(other)
    table = {(i, 0): i for i in range(len(word) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(word) + 1):
        for j in range(1, len(other) + 1):
            same = word[i - 1] == other[j - 1]
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (not same))
    return table[len(word), len(other)]


@pytest.mark.parametrize("word", ["PORT", "SERVICE_HOST", "SERVICE_PORT", "PORT_8786_TCP", "PORT_8786_TCP_ADDR", "HOME"])
def test_what_kubernetes_sets_is_passed_over_in_words(word: str, caplog: pytest.LogCaptureFixture) -> None:
    assert gather(environ={f"STREAMSGD_{word}": "tcp://10.0.0.1:1"}) == ({}, {})
    assert [record.getMessage() for record in caplog.records] == [
        f"environment variable STREAMSGD_{word} is not a setting and is not used"
    ]


def test_files_that_cannot_be_read_or_are_not_toml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.toml: cannot be read: No such file"):
        gather(environ={}, config=tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="is not TOML"):
        gather(environ={}, config=toml(tmp_path, "a = = 1"))


def test_every_setting_is_described() -> None:
    assert [setting.name for setting in describe()] == list(Settings.__struct_fields__)
    for setting in describe():
        assert len(setting.description) > 5
        assert setting.description[0].isalnum()
        assert setting.description.endswith(".")
        assert setting.takes


def test_what_may_change_between_runs_is_no_part_of_the_identity() -> None:
    one = make_settings({"target": "y", "memory": "1GB", "threads": 1, "time_limit": 5})
    assert identity(one) == identity(make_settings({"target": "y"}))
    assert identity(one) != identity(make_settings({"target": "y", "seed": 1}))


def test_names_of_before_still_work() -> None:
    assert make("optimizer", "nag:learning_rate=2") == make("optimizer", "normalized:learning_rate=2")
    assert "nag" not in PARTS["optimizer"]


def spellings(value: float) -> list[str]:
    """How people write a number."""
    plain = f"{value:g}"
    return [
        plain,
        f" {plain} ",
        f"+{plain}",
        f"0{plain}",
        plain.removeprefix("0"),
        f"{value:e}",
        f"{plain}." if "." not in plain else f"{plain}0",
    ]


BESIDE = {"min_improvement": {"patience": 2}, **{key: {"method": "sgld-cv"} for key in ("temperature", "chains", "draws")}}
"""What settings are given with."""

WITHIN = {"bits": 9, "io_timeout": 20.5}
"""Values of those that take neither 5 nor 0.5."""


@pytest.mark.parametrize("setting", [setting for setting in describe() if setting.is_number], ids=lambda setting: setting.name)
def test_numbers_are_taken_as_people_write_them(setting: Setting) -> None:
    value: float = WITHIN.get(setting.name, 0.5 if "NUMBER" in setting.metavar else 5)
    others = {"target": "y", **BESIDE.get(setting.name, {})}
    expected = getattr(make_settings({**others, setting.name: value}), setting.name)
    for text in spellings(value):
        found = getattr(make_settings({**others, setting.name: text}), setting.name)
        assert found == expected, text
        assert type(found) is type(expected), text


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "0x10", "1_000", "1,5", "--5", "", ".", "e5", "٣", "9" * 5000])
@pytest.mark.parametrize("name", ["learning_rate", "chunk_rows"])
def test_what_is_no_number_is_refused_by_the_name_of_the_flag(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: .* is not a"):
        make_settings({"target": "y", name: text})


@pytest.mark.parametrize(
    "setting", [setting for setting in describe() if "NUMBER" in setting.metavar], ids=lambda setting: setting.name
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "inf"])
def test_what_is_not_finite_is_no_number(setting: Setting, value: Any) -> None:
    if "TEXT" in setting.metavar:  # where text may be a condition
        value = float(value)
    with pytest.raises(SettingsError, match=setting.flag):
        make_settings({"target": "y", **BESIDE.get(setting.name, {}), setting.name: value})


@pytest.mark.parametrize(
    ("name", "given", "same"),
    [
        ("class_weight", {0: 1, 1: 5.5}, ("0=1", "1=5.5")),
        ("class_weight", {True: 2, np.str_("no"): np.float32(3)}, ("True=2", "no=3.0")),
        ("missing", {"a": "zero", "b*": "median"}, ("a=zero", "b*=median")),
        ("scale", {"a": "none"}, ("a=none",)),
        ("transform", {"a": "log1p"}, ("a=log1p",)),
        ("sentinels", {"a": [-1, 9999], "b": "none"}, ("a=-1", "a=9999", "b=none")),
        ("column_kind", {"a": "tests.own_kinds:Geo"}, ("a=tests.own_kinds:Geo",)),
    ],
)
def test_a_dict_says_what_a_list_of_names_and_values_does(name: str, given: Any, same: tuple[str, ...]) -> None:
    assert getattr(make_settings({"target": "y", name: given}), name) == same


@pytest.mark.parametrize("name", ["features", "exclude", "id", "categorical", "text", "cross", "classes", "phases"])
def test_a_dict_is_refused_where_its_names_alone_would_be_taken(name: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name}: a dict is not a list"):
        make_settings({"target": "y", name: {"a": 1}})
