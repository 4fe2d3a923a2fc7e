"""Where address and key are found, and where a key is never sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cstar_client import Client, ConfigurationError
from cstar_client.configuration import Access, config_file, resolve

FROM_FILE = {"url": "https://file.example", "api_key": "cst_file"}
FROM_STACK = {"url": "http://127.0.0.1:8000", "api_key": "cst_stack"}


@pytest.fixture
def user_file() -> Path:
    config_file().parent.mkdir(parents=True)
    lines = [f'{name} = "{value}"' for name, value in FROM_FILE.items()]
    config_file().write_text("\n".join(lines))
    return config_file()


@pytest.fixture
def stack_file() -> Path:
    path = Path(".cstar/stack.json")
    path.parent.mkdir()
    path.write_text(json.dumps(FROM_STACK))
    return path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSTAR_URL", "https://environment.example")
    monkeypatch.setenv("CSTAR_API_KEY", "cst_environment")


def test_flags_win(environment: None, user_file: Path, stack_file: Path) -> None:
    found = resolve("https://flag.example", "cst_flag")

    assert (found.url, found.api_key) == ("https://flag.example", "cst_flag")


def test_then_the_environment(environment: None, user_file: Path, stack_file: Path) -> None:
    found = resolve()

    assert (found.url, found.api_key) == ("https://environment.example", "cst_environment")


def test_then_the_users_file(user_file: Path, stack_file: Path) -> None:
    assert resolve() == Access(**FROM_FILE, source=str(user_file))


def test_then_the_stack_in_this_folder(stack_file: Path) -> None:
    assert resolve() == Access(**FROM_STACK, source=str(stack_file))


def test_a_stack_elsewhere_is_found_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stack.json").write_text(json.dumps(FROM_STACK))
    monkeypatch.setenv("CSTAR_DATA_DIR", str(tmp_path / "data"))

    assert resolve().api_key == "cst_stack"


def test_a_key_of_a_file_goes_to_the_address_of_that_file_alone(
    user_file: Path, stack_file: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"no key for https://elsewhere\.example"):
        resolve("https://elsewhere.example")

    assert resolve("http://127.0.0.1:8000/").api_key == "cst_stack"


def test_the_key_may_be_in_the_environment_and_the_address_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text('url = "https://file.example"')
    monkeypatch.setenv("CSTAR_API_KEY", "cst_environment")

    found = resolve()
    assert (found.url, found.api_key) == ("https://file.example", "cst_environment")


def test_without_anything_the_next_step_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"CSTAR_URL.*config\.toml.*cstar up"):
        Client.from_environment()


def test_a_broken_file_is_named(user_file: Path) -> None:
    user_file.write_text("url = ")
    with pytest.raises(ConfigurationError, match=r"config\.toml cannot be read"):
        resolve()


@pytest.mark.parametrize(
    "url", ["https://elsewhere.example", "http://127.0.0.1:8000@elsewhere.example", "http://a\x00"]
)
def test_a_stack_of_another_machine_is_not_believed(
    url: str, stack_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack_file.write_text(json.dumps({"url": url}))
    monkeypatch.setenv("CSTAR_API_KEY", "cst_environment")

    with pytest.raises(ConfigurationError, match=r"stack\.json names"):
        resolve()


def test_a_line_end_of_a_secrets_file_is_no_part_of_the_key(
    environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSTAR_API_KEY", "cst_environment\n")

    assert resolve().api_key == "cst_environment"


def test_an_address_that_is_set_and_empty_is_none(
    stack_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSTAR_URL", "")

    assert resolve().api_key == "cst_stack"


@pytest.mark.parametrize("key", ["cst_secret\nX-Other: 1", "cst_secrét", ""])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Client("https://a.example", key)

    assert "secr" not in str(error.value)


@pytest.mark.parametrize("url", ["a.example", "ftp://a.example", "http://", "http://a:port"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no address"):
        Client(url, "cst_key")


def test_a_key_is_not_printed() -> None:
    assert "cst_secret" not in repr(Access("https://a.example", "cst_secret", "flags"))
