"""Entry points of installed packages: read without importing anything, whatever state others' metadata is in."""

import sys

import pytest
from installed import NET, install, models

from visreg import MODELS
from visreg.entry_points import entry_points, owner_of
from visreg.registry import KINDS


def of(owner):
    return [found[:3] for found in entry_points() if found[3] == owner]


def test_every_entry_point_of_ours_is_found_and_none_imported(site):
    text = models(OneNet="one_package.net:OneNet", Nested="one_package:A.B", Whole="one_package") + (
        "[visreg.hooks]\nOneHook = one_package.hook:OneHook\n[console_scripts]\none = one_package:main\n"
    )
    install(site, "One_Package", "2.1", text)
    assert sorted(of("one-package 2.1")) == [
        ("visreg.hooks", "OneHook", "one_package.hook:OneHook"),
        ("visreg.models", "Nested", "one_package:A.B"),
        ("visreg.models", "OneNet", "one_package.net:OneNet"),
        ("visreg.models", "Whole", "one_package:"),
    ]
    assert "one_package" not in sys.modules


def test_a_malformed_file_changes_nothing_for_the_others(site):
    install(site, "whole", "1.0", models(WholeNet="whole:Net"))
    before = of("whole 1.0")
    install(site, "torn", "1.0", b"[console_scripts]\n\xff\xfe = a:b\n")
    with pytest.warns(UserWarning, match="malformed"):
        assert of("whole 1.0") == before == [("visreg.models", "WholeNet", "whole:Net")]


@pytest.mark.parametrize(
    ("name", "version", "owner"),
    [("My_Pack.age", "1.0", "my-pack-age 1.0"), ("plain", None, "plain"), ("a--b", "", "a-b")],
)
def test_owners_are_spelt_as_package_indexes_do(name, version, owner):
    assert owner_of(name, version) == owner


MALFORMED = {
    "no section": "console = a:b\n",
    "no value": "[console_scripts]\nhello\n",
    "option twice": "[console_scripts]\na = b:c\na = b:d\n",
    "not text": b"[console_scripts]\n\xff\xfe = a:b\n",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_file_of_another_package_takes_nobody_along(site, text):
    file = install(site, "ill-formed", "1.0", text)
    install(
        site, "well-formed", "1.0", models(WellNet="well_formed:WellNet"), {"well_formed": NET.format(name="WellNet")}
    )
    with pytest.warns(UserWarning, match="malformed") as warned:
        assert MODELS.get("WellNet").__name__ == "WellNet"
    assert any(str(file.parent) in str(warning.message) for warning in warned)
    assert MODELS.find("WellNet").owner == "well-formed 1.0"
    del sys.modules["well_formed"]


@pytest.mark.parametrize("target", ["not a module!", "100%s:Net"])
def test_malformed_entry_point_is_left_out_with_a_warning(site, target):
    text = models(BadNet=target, GoodNet="good_formed:GoodNet")
    install(site, "good-formed", "1.0", text, {"good_formed": NET.format(name="GoodNet")})
    with pytest.warns(UserWarning, match="good-formed 1.0: entry point 'BadNet' of visreg.models: malformed"):
        assert MODELS.get("GoodNet")
    assert "BadNet" not in MODELS
    del sys.modules["good_formed"]


def test_malformed_entry_point_of_no_concern_is_not_mentioned(site):
    install(site, "stranger", "1.0", "[console_scripts]\nx = not a module!\n")
    assert list(MODELS)


def test_a_kind_of_its_own_is_nobodys(site):
    install(site, "stranger", "1.0", "[visreg.nonsense]\nx = a:b\n[visregular]\ny = a:b\n")
    assert not any("x" in registry or "y" in registry for registry in KINDS.values())
