"""`.env.example` documents every setting, with its default, and nothing that does not exist."""

import re
from pathlib import Path

from shared.settings import Settings

_ROOT = Path(__file__).parents[2]
_PREFIX = "PRINTROOM_"

#: "NAME=value", or "# NAME=value" where the value is the default.
_LINE = re.compile(r"^(# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)

#: Read by Compose itself, so docker-compose.yml does not name them.
_OF_COMPOSE = {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}


def _documented() -> dict[str, tuple[bool, str]]:
    """Return name -> (commented out, value) of every variable in `.env.example`."""
    text = (_ROOT / ".env.example").read_text(encoding="utf-8")
    found = [(name, (bool(comment), value)) for comment, name, value in _LINE.findall(text)]
    assert len(found) == len(dict(found)), "a variable is there twice"
    return dict(found)


def _fields() -> set[str]:
    return {_PREFIX + name.upper() for name in Settings.model_fields}


def test_every_setting_is_documented_and_every_documented_one_exists():
    """The PRINTROOM_ variables of `.env.example` are exactly the fields of Settings."""
    assert {name for name in _documented() if name.startswith(_PREFIX)} == _fields()


def test_the_defaults_shown_are_the_defaults(monkeypatch):
    """Reading the commented lines as they stand gives the settings that an empty environment gives."""
    for name in _fields():
        monkeypatch.delenv(name, raising=False)
    default = Settings()
    for name, (commented, value) in _documented().items():
        if name.startswith(_PREFIX):
            assert commented, f"{name} is set by a mere copy of .env.example"
            if value:
                monkeypatch.setenv(name, value)
    shown = Settings()
    # SeaweedFS wants some region and takes any.
    assert default.model_dump(exclude={"s3_region"}) == shown.model_dump(exclude={"s3_region"})


def test_every_other_variable_is_composes():
    """What is not a setting is read by docker-compose.yml, with the default shown; and the other way round."""
    compose = (_ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    read = dict(re.findall(r"\$\{([A-Z0-9_]+)(?::([?-][^}]*))?\}", compose))
    others = {name: value for name, value in _documented().items() if not name.startswith(_PREFIX)}
    assert set(others) - _OF_COMPOSE == {name for name in read if not name.startswith(_PREFIX)}
    for name, (commented, value) in others.items():
        if commented:
            assert read[name] == f"-{value}"


def test_every_secret_is_asked_for_and_none_is_given():
    """Compose refuses to start without the secrets, and the example holds none to forget to change."""
    compose = (_ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name in ("VALKEY_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        uses = re.findall(r"\$\{" + name + r"[^}]*\}", compose)
        assert uses
        assert set(uses) == {f"${{{name}:?set {name} in .env}}"}
    assert _documented()["VALKEY_PASSWORD"] == (False, "")
    assert _documented()["AWS_SECRET_ACCESS_KEY"] == (False, "")


def test_only_the_bind_address_is_published():
    """Every published port is bound to BIND_ADDRESS, which is the loopback unless somebody says otherwise."""
    compose = (_ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    published = re.findall(r"ports: \[\"([^\"]*)\"\]", compose)
    assert len(published) == compose.count("ports:") == 2
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in published)
