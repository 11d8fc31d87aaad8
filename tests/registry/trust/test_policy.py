"""The policy's file: read strictly, since what is misread permits too much; and which rules speak of a reference."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slm_registry import UsageError
from slm_registry.trust.policy import MAX_ITEMS, MAX_POLICY, default_policy, demanding, parse_policy, read_policy

from tests.registry.helpers import REPOSITORY
from tests.registry.trusting import Pair, make_pair, write_policy


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    folder = tmp_path_factory.mktemp("keys")
    return [make_pair(folder, "ci"), make_pair(folder, "release")]


def test_the_example_in_its_docstring(tmp_path: Path, pairs: list[Pair]) -> None:
    from slm_registry.trust import policy

    text = str(policy.__doc__).split(":\n\n")[1].split("\n\nEvery")[0]
    for pair in pairs:
        text = text.replace(f"slm-ed25519 <base64> {pair.shown.name}", pair.shown.line)
    (tmp_path / "policy.toml").write_text("\n".join(line[4:] for line in text.splitlines()))
    found = read_policy(tmp_path / "policy.toml")
    first, second = found.rules
    assert ([key.public.name for key in first.keys], first.signatures, first.aliases) == (["ci", "release"], 1, None)
    assert second.keys[0].expires == datetime.date(2030, 1, 31)
    assert (second.oldest, second.aliases, second.signatures) == ("1.2.0", ("production",), 1)


def test_the_example_in_the_documentation(tmp_path: Path, pairs: list[Pair]) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (REPOSITORY / "docs" / "registry.md").read_text(), re.DOTALL)
    for pair in pairs:
        text = text.replace(f"slm-ed25519 <base64> {pair.shown.name}", pair.shown.line)
    (tmp_path / "policy.toml").write_text(text)
    assert len(read_policy(tmp_path / "policy.toml").rules_for("support-intents", "production")) == 2


def test_every_rule_that_matches(tmp_path: Path, pairs: list[Pair]) -> None:
    policy = read_policy(
        write_policy(
            tmp_path / "policy.toml",
            pairs,
            'models = ["support-*", "m"]\nkeys = ["ci"]',
            'models = ["*"]\naliases = ["prod*", "stable"]\nkeys = ["release"]',
            'models = ["exp-?"]\nsignatures = 0',
        )
    )

    def rules(model: str, alias: str | None) -> list[int]:
        return [policy.rules.index(rule) for rule in policy.rules_for(model, alias)]

    assert rules("support-intents", None) == [0]
    assert rules("support-intents", "production") == [0, 1]
    assert rules("other", "stable") == [1]
    assert rules("other", "staging") == []
    assert rules("xsupport-a", None) == []
    assert (rules("exp-1", None), rules("exp-10", None)) == ([2], [])


def test_json_is_read_too(tmp_path: Path, pairs: list[Pair]) -> None:
    value = {
        "format": 1,
        "keys": {"ci": {"public": pairs[0].shown.line, "expires": "2030-01-31"}},
        "rules": [{"models": ["*"], "keys": ["ci"]}],
    }
    (tmp_path / "policy.json").write_text(json.dumps(value))
    (rule,) = read_policy(tmp_path / "policy.json").rules
    assert rule.keys[0].expires == datetime.date(2030, 1, 31)


def test_from_the_environment(tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLM_REGISTRY_POLICY", raising=False)
    assert default_policy() is None
    monkeypatch.setenv("SLM_REGISTRY_POLICY", str(write_policy(tmp_path / "p.toml", pairs)))
    assert default_policy() == read_policy(tmp_path / "p.toml")
    monkeypatch.setenv("SLM_REGISTRY_POLICY", str(tmp_path / "gone.toml"))
    with pytest.raises(UsageError, match=r"gone\.toml"):
        default_policy()


RULE = {"models": ["*"], "keys": ["ci"]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": 2}, "format '2'"),
        ({"format": True}, "format"),
        ({"format": None}, "format"),
        ({"rule": [RULE]}, "'rule' is unknown.*'rules'"),
        ({"keys": []}, "a table"),
        ({"rules": {}}, "a table"),
        ({"rules": [RULE] * (MAX_ITEMS + 1)}, "at most"),
        ({"rules": [5]}, "a table"),
        ({"rules": [{**RULE, "signature": 2}]}, "rule 1: field 'signature' is unknown.*'signatures'"),
        ({"rules": [RULE, {**RULE, "keys": ["cl"]}]}, "rule 2: key 'cl' is not in"),
        ({"rules": [{**RULE, "keys": "ci"}]}, "a list"),
        ({"rules": [{**RULE, "signatures": 2}]}, "give 0 to 1"),
        ({"rules": [{**RULE, "keys": ["ci", "ci"], "signatures": 2}]}, "give 0 to 1"),
        ({"rules": [{**RULE, "signatures": -1}]}, "give 0 to"),
        ({"rules": [{**RULE, "signatures": True}]}, "give 0 to"),
        ({"rules": [{"models": ["*"]}]}, "give 0 to 0"),
        ({"rules": [{"keys": ["ci"]}]}, "models"),
        ({"rules": [{**RULE, "models": []}]}, "at least one"),
        ({"rules": [{**RULE, "models": ["[a-z]"]}]}, "pattern"),
        ({"rules": [{**RULE, "aliases": []}]}, "at least one"),
        ({"rules": [{**RULE, "oldest": "1.0"}]}, "version"),
        ({"rules": [{**RULE, "oldest": 1}]}, "version"),
        ({"keys": {"ci": "rubbish"}}, "not a public key"),
        ({"keys": {"ci": {}}}, "write it as"),
        ({"keys": {"Ci": "x"}}, "not a name"),
    ],
)
def test_what_is_no_policy(pairs: list[Pair], changes: dict[str, Any], complaint: str) -> None:
    good: dict[str, Any] = {"format": 1, "keys": {"ci": pairs[0].shown.line}, "rules": [RULE]}
    parse_policy(good, "policy p")
    with pytest.raises(UsageError, match=complaint):
        parse_policy({**good, **changes}, "policy p")


@pytest.mark.parametrize("expires", ["soon", 5, datetime.datetime(2030, 1, 1), True])
def test_a_key_that_expires_on_no_day(pairs: list[Pair], expires: Any) -> None:
    with pytest.raises(UsageError, match="day"):
        parse_policy({"format": 1, "keys": {"ci": {"public": pairs[0].shown.line, "expires": expires}}}, "p")


def test_one_key_under_two_names_is_not_two_signers(pairs: list[Pair]) -> None:
    with pytest.raises(UsageError, match="two names"):
        parse_policy({"format": 1, "keys": {"a": pairs[0].shown.line, "b": pairs[0].shown.line}}, "p")
    assert demanding((pairs[0].shown, pairs[0].shown)).rules[0].signatures == 1


@pytest.mark.parametrize("data", [b"\xff", b"format = ", b"a = " + b"[" * 5000, b"#" * (MAX_POLICY + 1)])
def test_files_that_are_no_toml(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "policy.toml").write_bytes(data)
    (tmp_path / "policy.json").write_bytes(data)
    for name in ("policy.toml", "policy.json"):
        with pytest.raises(UsageError, match="policy"):
            read_policy(tmp_path / name)


WORDS = st.sampled_from(["format", "keys", "rules", "models", "signatures", "ci", "*", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4), VALUES, VALUES)
def test_any_value_is_a_policy_or_an_error_of_the_caller(value: dict[str, Any], keys: Any, rules: Any) -> None:
    for candidate in (value, {"format": 1, "keys": keys, "rules": [rules]}):
        try:
            policy = parse_policy(candidate, "p")
        except UsageError:
            continue
        assert all(0 <= rule.signatures <= len(rule.keys) and rule.models for rule in policy.rules)
