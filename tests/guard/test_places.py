# SPDX-License-Identifier: Apache-2.0
"""A folder and files that nobody else on the machine can plant, read or redirect."""

from __future__ import annotations

import os
import stat

import pytest

from pytest_compilepool import places
from pytest_compilepool.places import PlaceError

OTHER = 65534  # nobody's uid, everywhere


def mode(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_usual_folder_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = places.own_folder({})
    assert folder == tmp_path / ".local/state/compilepool"
    assert mode(folder) == 0o700


@pytest.mark.parametrize(
    ("bits", "used"),
    [(0o700, True), (0o755, False), (0o777, False), (0o770, False)],
)
def test_a_runtime_folder_is_used_where_it_is_private(tmp_path, monkeypatch, bits, used):
    runtime = tmp_path / "run"
    runtime.mkdir()
    runtime.chmod(bits)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = places.own_folder({"XDG_RUNTIME_DIR": str(runtime)})
    assert (folder == runtime / "compilepool") is used


def test_a_state_folder(tmp_path):
    folder = places.own_folder({"XDG_STATE_HOME": str(tmp_path / "a" / "b")})
    assert folder == tmp_path / "a" / "b" / "compilepool"


def test_a_named_folder_comes_first(tmp_path):
    folder = places.own_folder({places.VARIABLE: str(tmp_path / "x"), "XDG_STATE_HOME": str(tmp_path)})
    assert folder == tmp_path / "x"
    assert mode(folder) == 0o700


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (
            lambda path: path.mkdir(mode=0o755),
            "others may enter it, for its mode is 0755 and not 0700; set COMPILEPOOL_STATE",
        ),
        (lambda path: path.write_text(""), "it is not a folder"),
        (lambda path: path.symlink_to("/tmp"), "it is a symbolic link"),
    ],
    ids=["open to all", "a file", "a link"],
)
def test_what_is_not_ones_own_is_refused(tmp_path, plant, why):
    plant(tmp_path / "x")
    with pytest.raises(PlaceError, match=why) as raised:
        places.own_folder({places.VARIABLE: str(tmp_path / "x")})
    assert str(tmp_path / "x") in str(raised.value)
    assert places.VARIABLE in str(raised.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("here", "'here' is not allowed; allowed: an absolute path"),
        ("/proc/nothing/x", "cannot be made"),
        ("/dev/null/x", "/dev/null/x .* cannot be made: "),
    ],
)
def test_a_folder_that_cannot_be(value, says):
    with pytest.raises(PlaceError, match=says):
        places.own_folder({places.VARIABLE: value})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_another_users_folder_is_refused(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir(mode=0o700)
    os.chown(folder, OTHER, OTHER)
    with pytest.raises(PlaceError, match="it belongs to uid"):
        places.own_folder({places.VARIABLE: str(folder)})


def test_a_new_file(tmp_path):
    handle = places.create(tmp_path / "sub" / "x")
    os.write(handle, b"line\n")
    assert not os.get_inheritable(handle)
    os.close(handle)
    assert mode(tmp_path / "sub" / "x") == 0o600
    assert mode(tmp_path / "sub") == 0o700
    assert places.read(tmp_path / "sub" / "x") == b"line\n"
    with pytest.raises(PlaceError, match="cannot be made: File exists"):
        places.create(tmp_path / "sub" / "x")


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    for use in (places.create, places.append_to, places.read):
        with pytest.raises(PlaceError):
            use(tmp_path / "x")
    with pytest.raises(PlaceError, match="it is a symbolic link"):
        places.read(tmp_path / "x")
    assert (tmp_path / "target").read_text() == "mine"


def test_what_others_may_write_is_not_read(tmp_path):
    (tmp_path / "x").write_text("theirs")
    (tmp_path / "x").chmod(0o666)
    with pytest.raises(PlaceError, match="not a file that only this user may write"):
        places.read(tmp_path / "x")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x", 0o600)
    with pytest.raises(PlaceError, match="not a file that only this user may write"):
        places.read(tmp_path / "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_another_users_file_is_not_read(tmp_path):
    (tmp_path / "x").write_text("theirs")
    (tmp_path / "x").chmod(0o600)
    os.chown(tmp_path / "x", OTHER, OTHER)
    for use in (places.append_to, places.read):
        with pytest.raises(PlaceError, match="not a file that only this user may write"):
            use(tmp_path / "x")


def test_what_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.truncate((64 << 20) + 1)
    (tmp_path / "x").chmod(0o600)
    with pytest.raises(PlaceError, match="larger than 64 MiB"):
        places.read(tmp_path / "x")


@pytest.mark.parametrize(
    ("named", "stays"),
    [("state", True), ("state/", True), ("./state", True), ("another", False), ("", False)],
)
def test_a_folder_that_somebody_has_named_stays(tmp_path, monkeypatch, named, stays):
    folder = tmp_path / "state"
    monkeypatch.setenv(places.VARIABLE, named and f"{tmp_path}/{named}")
    for environ in (None, dict(os.environ)):
        folder.mkdir(mode=0o700, exist_ok=True)
        places.remove_if_empty(folder, environ)
        assert folder.exists() is stays
