"""A calibration in its file: written whole, read only where it holds."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tandem.core.machine import discover
from tandem.estimate.bubbles import Calibration, Response, cached, keeping, load, save

HERE = discover().fingerprint
RESPONSE = Response((0.0, 0.5, 1.0), (1.0, 1.1, 1.75), 0.02, scatter=0.11, waited=0.03)


def calibration(machine: str = HERE, cores: tuple[int, ...] = (0, 1)) -> Calibration:
    return Calibration(machine, cores, {"cache": RESPONSE}, {"net": "no network"}, 1e9, 21.5)


def never(**_: object) -> Calibration:
    pytest.fail("calibrated although a calibration was kept")


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    file = save(calibration(), tmp_path / "new")
    assert load(tmp_path / "new") == calibration()
    assert [file] == list((tmp_path / "new").iterdir())


def test_an_older_file_that_did_not_look_at_who_else_was_there_is_read(tmp_path: Path) -> None:
    file = save(calibration(), tmp_path)
    told = json.loads(file.read_text())
    for one in told["responses"].values():
        del one["scatter"], one["waited"]
    file.write_text(json.dumps(told))
    assert load(tmp_path).responses == {"cache": Response((0.0, 0.5, 1.0), (1.0, 1.1, 1.75), 0.02)}
    assert load(tmp_path).warning == ""


def test_made_anew_it_replaces_whatever_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keeping.kept(tmp_path) is None
    file = save(calibration(cores=(0, 1, 2)), tmp_path)
    monkeypatch.setattr(keeping, "calibrate", lambda **_: calibration())
    for text in (file.read_text(), file.read_text().replace('"format": 1', '"format": 99'), "torn"):
        file.write_text(text)
        assert keeping.anew(tmp_path, cores=(0, 1)) == keeping.kept(tmp_path) == calibration()
    (tmp_path / "file").touch()
    with pytest.raises(keeping.CalibrationError, match=r"cannot be kept in .*TANDEM_HOME"):
        keeping.anew(tmp_path / "file", cores=(0, 1))


def test_a_kept_one_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(calibration(), tmp_path)
    monkeypatch.setattr(keeping, "calibrate", never)
    assert cached(tmp_path, cores=(0, 1)) == calibration()


def test_another_machines_is_refused(tmp_path: Path) -> None:
    save(calibration("another-machine"), tmp_path).rename(keeping.file_of(tmp_path, HERE))
    for read in (load, lambda folder: cached(folder, cores=(0, 1))):
        with pytest.raises(keeping.CalibrationError, match="made on another-machine") as caught:
            read(tmp_path)
        assert not isinstance(caught.value, keeping.DamagedCalibrationError)


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = save(calibration(), tmp_path)
    newer = json.dumps({**json.loads(file.read_text()), "format": 99})
    file.write_text(newer)
    with pytest.raises(keeping.CalibrationError, match="in format 99"):
        cached(tmp_path, cores=(0, 1))
    assert file.read_text() == newer


def test_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(keeping.DamagedCalibrationError, match="does not exist"):
        load(tmp_path)


@pytest.mark.parametrize("part", [0, 1, 40, -1])
def test_a_torn_file_is_made_anew(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(calibration(), tmp_path)
    file.write_text(file.read_text()[:part])
    with pytest.raises(keeping.DamagedCalibrationError):
        load(tmp_path)
    monkeypatch.setattr(keeping, "calibrate", lambda **_: calibration())
    assert cached(tmp_path, cores=(0, 1)) == load(tmp_path) == calibration()


@pytest.mark.parametrize(
    "change",
    [
        {"responses": 3},
        {"responses": {"cache": {}}},
        {"cores": None},
        {"cores": [float("inf")]},
        {"cores": []},
        {"cores": [-5, 99999]},
        {"cores": [0, 0]},
        {"lacking": []},
        {"made": "yesterday"},
        {"made": 10**400},
        {"made": float("nan")},
        {"cost_s": -1.0},
        {"responses": {}},
        {"responses": {"foo": asdict(RESPONSE)}},
        {"responses": {"cache": asdict(RESPONSE) | {"slowdowns": [1.0, 1.1, float("inf")]}}},
        {"responses": {"cache": asdict(RESPONSE) | {"slowdowns": [1.0, 1.1]}}},
        {"responses": {"cache": asdict(RESPONSE) | {"noise": float("nan")}}},
        {"responses": {"cache": asdict(RESPONSE) | {"scatter": float("nan")}}},
        {"responses": {"cache": asdict(RESPONSE) | {"waited": -0.5}}},
    ],
)
def test_what_is_no_calibration_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    file = save(calibration(), tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(keeping.DamagedCalibrationError):
        load(tmp_path)


def test_other_cores_need_another_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(calibration(cores=(0, 1, 2, 3)), tmp_path)
    monkeypatch.setattr(keeping, "calibrate", lambda **_: calibration())
    assert cached(tmp_path, cores=(0, 1)).cores == (0, 1)
