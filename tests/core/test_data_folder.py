"""Folders of a user, also of one whom the system does not know."""

import os
import pwd
from pathlib import Path

import pytest

from tandem.core.data_folder import NoHomeError, cache_folder, data_folder

NOBODY = 2**31 - 77
"""No user has this id."""


def test_a_user_without_a_home_is_told_so_unless_a_folder_is_named() -> None:
    for environ in ({}, {"HOME": ""}):
        with pytest.raises(NoHomeError, match=rf"no user of id {NOBODY}.*TANDEM_HOME="):
            data_folder(environ, NOBODY)
    assert data_folder({"TANDEM_HOME": "/here"}, NOBODY) == Path("/here")
    assert data_folder({"XDG_DATA_HOME": "/data"}, NOBODY) == Path("/data/tandem")


def test_a_user_without_a_home_has_a_cache_that_nobody_can_make() -> None:
    folder = cache_folder({}, NOBODY)
    assert "no-home-folder" in str(folder)
    with pytest.raises(NotADirectoryError):
        folder.mkdir(parents=True)
    assert cache_folder({"XDG_CACHE_HOME": "/cache"}, NOBODY) == Path("/cache/tandem")


def test_without_home_in_the_environment_the_systems_word_is_taken() -> None:
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    assert cache_folder({}, os.geteuid()) == home / ".cache/tandem"
