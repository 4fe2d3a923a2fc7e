"""What a command keeps so that it can go on after it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cstar_core.evaluate.kept import FILE, Kept, OtherSettings

SETTINGS = {"epsilon": 0.1, "seed": 3}


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path / "new", SETTINGS, restart=False)
    kept.case("a", None)["after"] = {"pgd": {"0": {"correct": [True], "flags": []}}}
    assert kept.folder_of("a", "net") == "net"
    kept.save()
    again = Kept.open(tmp_path / "new", SETTINGS, restart=False)
    assert again.case("a", None) == kept.case("a", None)
    assert again.folder_of("a", "another name") == "net"


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    Kept.open(tmp_path, SETTINGS, restart=False).save()
    with pytest.raises(OtherSettings, match=r"seed 3, now 4.*--restart") as refused:
        Kept.open(tmp_path, SETTINGS | {"seed": 4}, restart=False)
    assert "epsilon" not in str(refused.value)


def test_a_restart_forgets(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, SETTINGS, restart=False)
    kept.case("a", None)["after"] = {"x": 1}
    kept.save()
    assert Kept.open(tmp_path, SETTINGS | {"seed": 4}, restart=True).case("a", None) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "something else", "version": 1}'])
def test_a_foreign_file_is_not_taken_for_a_state(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(OtherSettings, match="no state of this command"):
        Kept.open(tmp_path, SETTINGS, restart=False)


def test_networks_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, SETTINGS, restart=False)
    assert [kept.folder_of(case, "model") for case in ("a", "b", "a", "c")] == [
        "model",
        "model-2",
        "model",
        "model-3",
    ]


def test_a_baseline_is_measured_once_for_all_networks(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, SETTINGS, restart=False)
    kept.case("a", "base")["before"]["pgd"] = {"0": 1}
    kept.save()
    again = Kept.open(tmp_path, SETTINGS, restart=False)
    assert again.case("b", "base")["before"] == {"pgd": {"0": 1}}
    assert again.case("b", "another")["before"] == {}


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    kept = Kept.open(None, SETTINGS, restart=False)
    kept.case("a", None)["after"] = {}
    kept.save()
    assert list(tmp_path.iterdir()) == []
