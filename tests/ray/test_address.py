"""How a Ray is found and joined: addresses without one, tokens; its sweeps are in tests/sweep/test_ray.py."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from toyqs.config.errors import Refusal
from toyqs.sweep.executors import ray_cluster
from toyqs.sweep.executors.settings import RaySettings


@pytest.mark.ray
def test_an_address_without_a_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for name in ray_cluster.QUIET:
        monkeypatch.setenv(name, "")  # restored afterwards
    for address, why in (("127.0.0.1:9", "Connection refused"), ("nonsense", "Invalid address format")):
        with pytest.raises(
            Refusal, match=f"address={address}: cannot be joined: .*{why}.*; give auto, HOST"
        ) as said:
            ray_cluster.RayCluster(RaySettings(address=address))
        assert "\n" not in str(said.value)


def answered(address: str) -> str:
    """Return what is said of an address."""
    with pytest.raises(Refusal) as said:
        ray_cluster._require_answer(address)
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_an_address_at_which_something_else_answers_is_one_line(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with ThreadPoolExecutor(1) as pool:
            refusal = pool.submit(answered, address)
            with server.accept()[0] as peer:
                peer.sendall(says)
                line = refusal.result()
    assert line.startswith(
        f"hydra.launcher.address={address}: cannot be joined: what answers there is no Ray;"
    )


def test_an_address_at_which_nothing_is_said_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = answered(f"127.0.0.1:{server.getsockname()[1]}")
    assert "cannot be joined: timed out; give auto" in line


@pytest.mark.parametrize(
    ("joins", "given", "mode"),
    [(False, {}, "token"), (True, {}, None), (True, {"RAY_AUTH_TOKEN": "a"}, "token")],
)
def test_a_token_is_shown_where_there_is_one(
    joins: bool, given: dict[str, str], mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment: dict[str, str] = {"HOME": str(tmp_path), **given}
    monkeypatch.setattr(os, "environ", environment)
    ray_cluster._show_token(joins=joins)
    assert environment.get("RAY_AUTH_MODE") == mode
    assert ("RAY_AUTH_TOKEN" in environment) == (not joins or bool(given))
    if mode is None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").touch()
        ray_cluster._show_token(joins=joins)
        assert environment["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN" not in environment
    environment["RAY_AUTH_MODE"] = "disabled"
    ray_cluster._show_token(joins=joins)
    assert environment["RAY_AUTH_MODE"] == "disabled"
