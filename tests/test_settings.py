from __future__ import annotations

import pytest

from fastvideo_core.discovery.environment import VARIABLES, read_settings
from fastvideo_core.errors import InputError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("SAGE_ATTN", "SAGE_ATTN"),
        (" sage_attn ", "SAGE_ATTN"),
        ("Sage-Attn", "SAGE_ATTN"),
        ("", None),
        ("  ", None),
    ],
)
def test_the_backend_is_read_as_people_write_it(value: str, expected: str | None) -> None:
    assert read_settings({"FASTVIDEO_ATTENTION_BACKEND": value}).attention_backend == expected


def test_unset_means_nothing_asked_for() -> None:
    settings = read_settings({})
    assert settings.attention_backend is None
    assert settings.disabled_plugins == frozenset()


def test_disabled_plugins_are_separated_by_commas_in_any_spelling() -> None:
    settings = read_settings({"FASTVIDEO_DISABLE_PLUGINS": "fv_Sage, ,fv-sta,"})
    assert settings.disabled_plugins == {"fv-sage", "fv-sta"}


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_ATTENTION_BACKEND", "torch_sdpa")
    assert read_settings().attention_backend == "TORCH_SDPA"
    assert set(VARIABLES) == {
        "FASTVIDEO_API_KEY",
        "FASTVIDEO_ATTENTION_BACKEND",
        "FASTVIDEO_ATTENTION_CONFIG",
        "FASTVIDEO_ATTENTION_FALLBACK",
        "FASTVIDEO_CACHE_POLICY",
        "FASTVIDEO_DISABLE_PLUGINS",
        "FASTVIDEO_HUB_KERNELS",
        "FASTVIDEO_PARALLEL_TIMEOUT",
        "FASTVIDEO_PLUGIN_TIMEOUT",
    }


@pytest.mark.parametrize("value", ["soon", "0", "-3", "nan", "inf"])
def test_a_time_limit_that_means_nothing(value: str) -> None:
    with pytest.raises(
        InputError, match=f"FASTVIDEO_PLUGIN_TIMEOUT is '{value}', it must be a number of seconds above"
    ):
        read_settings({"FASTVIDEO_PLUGIN_TIMEOUT": value})
