import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

import tandem
from tandem.core import plug
from tandem.core.errors import MissingPackageError, UnknownPluginError

DISTRIBUTION = """\
Metadata-Version: 2.1
Name: tandem-plugins-for-the-test
Version: 1
"""
ENTRY_POINTS = """\
[tandem.flavours]
mint = flavours_of_a_friend:mint
vanilla = flavours_of_a_friend:vanilla
"""


@pytest.fixture
def flavours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family `flavours` with files in the package and entry points of another distribution."""
    folder = tmp_path / "tandem" / "flavours"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "vanilla.py").write_text("taste = 'plain'\n")
    (folder / "cherry.py").write_text("import a_package_nobody_has\n")
    (folder / "deep.py").write_text("import sklearn.a_module_nobody_has\n")
    (folder / "broken.py").write_text("raise RuntimeError('imported')\n")
    (folder / "_private.py").touch()
    info = tmp_path / "site" / "tandem_plugins_for_the_test-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(DISTRIBUTION)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "site" / "flavours_of_a_friend.py").write_text("mint = 'cool'\nvanilla = 'theirs'\n_hidden = 1\n")
    monkeypatch.setattr(tandem, "__path__", [*tandem.__path__, str(tmp_path / "tandem")])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield folder
    for name in [key for key in sys.modules if "flavours" in key]:
        del sys.modules[name]


def test_names_come_from_files_and_entry_points_without_importing(flavours: Path) -> None:
    assert plug.names("flavours") == ["broken", "cherry", "deep", "mint", "vanilla"]
    assert not any("flavours" in name for name in sys.modules)


def test_a_family_nobody_has_is_empty() -> None:
    assert plug.names("nothing.here") == []


def test_a_file_comes_before_an_entry_point(flavours: Path) -> None:
    module = plug.load("flavours", "vanilla")
    assert isinstance(module, types.ModuleType)
    assert module.taste == "plain"


def test_an_entry_point_is_loaded(flavours: Path) -> None:
    assert plug.load("flavours", "mint") == "cool"


def test_a_module_and_attribute_are_loaded(flavours: Path) -> None:
    assert plug.load("flavours", "flavours_of_a_friend:mint") == "cool"
    assert plug.load("flavours", "flavours_of_a_friend:mint.upper") == "cool".upper


def test_a_file_written_later_is_found(flavours: Path) -> None:
    plug.names("flavours")
    (flavours / "lemon.py").touch()
    assert "lemon" in plug.names("flavours")


def test_an_unknown_name_says_what_exists_and_what_was_probably_meant(flavours: Path) -> None:
    with pytest.raises(UnknownPluginError) as caught:
        plug.load("flavours", "vanila")
    message = "unknown flavours 'vanila'; allowed: broken, cherry, deep, mint, vanilla, or package.module:attribute"
    assert str(caught.value) == f"{message}; did you mean 'vanilla'?"


@pytest.mark.parametrize("name", ["", ":", "x:", ":x", ".x:y", "_private", "../vanilla", "vanilla.py", "zzz"])
def test_a_name_that_is_none_is_refused(flavours: Path, name: str) -> None:
    with pytest.raises(UnknownPluginError):
        plug.load("flavours", name)


def test_an_attribute_that_is_missing_says_what_the_module_has(flavours: Path) -> None:
    with pytest.raises(UnknownPluginError, match=r"allowed: mint, vanilla; did you mean 'mint'\?"):
        plug.load("flavours", "flavours_of_a_friend:mnt")


class _Flavour(Protocol):
    strength: float

    @staticmethod
    def taste() -> str: ...


def test_what_is_no_plug_in_of_the_family_is_refused_and_never_offered(flavours: Path) -> None:
    (flavours.parents[1] / "site" / "kitchen.py").write_text(
        "import json\nclass Mild:\n    strength = 0.5\n    taste = staticmethod(lambda: 'mild')\n"
        "class Loud:\n    strength, taste = 1.0, 'loud'\ndef dumps(): ...\n"
    )
    assert plug.load("flavours", "kitchen:Mild", _Flavour).taste() == "mild"  # type: ignore[attr-defined]
    with pytest.raises(
        UnknownPluginError, match=r"'json:dumps' has no strength, taste; .* or what has strength, taste"
    ):
        plug.load("flavours", "json:dumps", _Flavour)
    with pytest.raises(UnknownPluginError, match=r"'kitchen:Loud' has no taste;"):
        plug.load("flavours", "kitchen:Loud", _Flavour)
    with pytest.raises(UnknownPluginError, match=r"'vanilla' has no strength, taste;"):
        plug.load("flavours", "vanilla", _Flavour)
    with pytest.raises(UnknownPluginError, match=r"has no 'nope'; allowed: Mild; "):
        plug.load("flavours", "kitchen:nope", _Flavour)
    with pytest.raises(UnknownPluginError, match=r"has no 'nope'; allowed: what has strength, taste; check its name"):
        plug.load("flavours", "json:nope", _Flavour)


ODD = "class Odd(Exception):\n    def __str__(self): return self.nothing\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division"),
        ("def (", "SyntaxError: "),
        ("raise SystemExit('usage')", "SystemExit: usage;"),
        ("raise ValueError", "ValueError;"),
        (f"{ODD}raise Odd", "Odd;"),
    ],
)
def test_a_module_from_elsewhere_that_cannot_be_imported_is_named(flavours: Path, text: str, told: str) -> None:
    (flavours / "sour.py").write_text(text)
    with pytest.raises(UnknownPluginError, match=f"flavours 'sour:mint' cannot be imported: {told}"):
        plug.load("flavours", "sour:mint", beside=flavours)


def test_a_missing_package_without_an_extra_names_the_package(flavours: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"'cherry' needs the package 'a_package_nobody_has'.*pip install"):
        plug.load("flavours", "cherry")


def test_a_module_that_is_not_there_is_no_package_to_install(flavours: Path) -> None:
    site = flavours.parents[1] / "site"
    with pytest.raises(UnknownPluginError, match=r"there is no module 'nope'; allowed: .*, nope\.py in .*site, a mod"):
        plug.load("flavours", "nope:mint", beside=site)
    with pytest.raises(UnknownPluginError, match=r"did you mean 'flavours_of_a_friend'\?"):
        plug.load("flavours", "flavors_of_a_friend:mint", beside=site)


def test_what_a_module_of_the_user_needs_is_named_with_pip_only_where_an_extra_brings_it(flavours: Path) -> None:
    with pytest.raises(MissingPackageError, match="needs the package 'a_package_nobody_has'") as caught:
        plug.load("flavours", "cherry:taste", beside=flavours)
    assert "pip" not in str(caught.value)
    with pytest.raises(MissingPackageError, match=r"pip install 'tandemlab\[learn\]'"):
        plug.load("flavours", "tandem.flavours.deep:taste")
    assert str(flavours) not in sys.path


def test_a_missing_package_of_an_extra_names_the_extra(flavours: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"run: pip install 'tandemlab\[learn\]'"):
        plug.load("flavours", "deep")


def test_an_error_within_a_plug_in_is_not_hidden(flavours: Path) -> None:
    with pytest.raises(RuntimeError, match="imported"):
        plug.load("flavours", "broken")
    (flavours / "buggy.py").write_text("import tandem.a_module_that_was_never_written\n")
    with pytest.raises(ModuleNotFoundError, match="never_written"):
        plug.load("flavours", "buggy")


@pytest.mark.parametrize(
    ("package", "extra"),
    [("torch", "kernels"), ("sklearn", "learn"), ("peft", "chat"), ("pytest", "dev"), ("numpy", None), ("x", None)],
)
def test_extras_are_read_from_the_distribution(package: str, extra: str | None) -> None:
    """Of several extras that bring it, the smallest."""
    assert plug.extra_for(package) == extra


def test_without_the_distribution_there_are_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plug, "_DISTRIBUTION", "a-distribution-nobody-has")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.requires(plug._DISTRIBUTION)
    assert plug.extra_for("torch") is None
