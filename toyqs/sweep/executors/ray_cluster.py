"""The Ray cluster of a command: one that it joins, or one that it starts on this machine and ends again."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from toyqs.config.errors import Refusal
from toyqs.sweep.executors.settings import RaySettings
from toyqs.sweep.executors.stack_task import checkout

CLIENT = "ray://"  # begins the address of a cluster that this machine is no part of
CONNECT_SECONDS = 10.0
SETTINGS = b"\x04"  # the type of a frame in HTTP/2: three bytes of its length, this, five more
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
TOKEN = "give RAY_AUTH_TOKEN=TOKEN in the environment, that of ~/.ray/auth_token where it was started"
_OWN_TOKEN = secrets.token_hex(32)  # one in a process: Ray reads it once
STORE_BYTES = 80 * 2**20  # of shared memory, about the least that Ray takes: results are a few words

# What Ray reads when it is imported. Its lines on a death say less than ours, and break the live one.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "(?s).",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # of which it warns otherwise
}


class RayCluster:
    """A connection to a Ray cluster; `close` ends it, and with it all that runs there for this command.

    Args:
        settings: of the launcher.

    Raises:
        Refusal: there is no cluster at the address, or none can be started.
    """

    def __init__(self, settings: RaySettings) -> None:
        given = settings.address or os.environ.get("RAY_ADDRESS")
        self.address = None if given == "local" else given  # Ray's word for a new one
        os.environ.update(QUIET)
        _show_token(joins=self.address is not None)
        import ray

        self.ray = ray
        self._folder: str | None = None  # of Ray's own files, where it is started here
        self._joined = ray.is_initialized()  # by who has called us from Python, and goes on with it
        if self._joined:
            self.address = ray.get_runtime_context().gcs_address
        else:
            self._connect(settings)

    def _connect(self, settings: RaySettings) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self.address is None:
            self._folder = tempfile.mkdtemp(prefix="toyqs-ray-")
            options |= {
                "address": "local",
                "num_cpus": max(len(os.sched_getaffinity(0)), settings.cpus),
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                "_temp_dir": self._folder,
            }
        else:
            _require_answer(self.address)
            options |= {"address": self.address, "runtime_env": _environment()}
        with tempfile.TemporaryFile("w+") as printed:
            try:
                with _signals_kept(), _stderr_to(printed.fileno()):
                    self.ray.init(**options)
            except BaseException as error:  # Ray raises errors of many kinds, most of Python's own
                self.close()
                if not isinstance(error, Exception):
                    raise
                printed.seek(0)
                raise _refusal(self.address, " ".join(f"{error} {printed.read()[-200:]}".split())) from error

    def describe(self) -> str:
        """Say in a line what the cluster has."""
        found = self.ray.cluster_resources()
        where = "started on this machine" if self.address is None else f"at {self.address}"
        gpus = f" and {found['GPU']:g} GPUs" if found.get("GPU") else ""
        return f"Ray {where} has {found.get('CPU', 0):g} CPUs{gpus}"

    def has_room(self, needed: Mapping[str, float]) -> bool:
        """Tell whether a machine of the cluster has, while idle, so much of each resource."""
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return any(all(has.get(name, 0) >= least for name, least in needed.items()) for has in machines)

    def close(self) -> None:
        """Leave the cluster, which ends what it runs for this command; end one that was started here."""
        if not self._joined:
            with suppress(Exception):  # what was not reached cannot be left
                self.ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _show_token(*, joins: bool) -> None:
    """Let Ray ask for a token, or show one, where the environment does not say whether it should.

    A Ray that is started here has one of its own: without, it would write one into the home folder, and every
    later `ray start` there would ask for that. A cluster that asks for none does not mind.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    given = bool({"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys())
    if not joins and not given:
        os.environ["RAY_AUTH_TOKEN"] = _OWN_TOKEN
    if not joins or given or Path("~/.ray/auth_token").expanduser().is_file():
        os.environ["RAY_AUTH_MODE"] = "token"


def _environment() -> dict[str, Any]:
    """Return what Ray gives to processes on other machines: our variables, and where a checkout's code is.

    Ray has a shell start them by the path of Python, in which a blank would end the word, and tasks would
    wait for ever. So such a path is given in quotes; any other is left to each machine.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith("TOYQS_")}
    variables |= {} if (source := checkout()) is None else {"PYTHONPATH": source}
    quoted = shlex.quote(sys.executable)
    return {"env_vars": variables} | ({} if quoted == sys.executable else {"py_executable": quoted})


def _require_answer(address: str) -> None:
    """Refuse an address at which nothing answers, or something else than Ray: Ray would wait minutes for it.

    All of Ray speaks HTTP/2: who says hello in it is answered by a frame of settings.
    """
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS) as peer:
            if os.environ.get("RAY_USE_TLS", "0") == "1":  # then it is no plain HTTP/2
                return
            peer.sendall(HELLO)
            answer = bytearray(9)
            peer.recv_into(answer)
    except (OSError, OverflowError) as error:
        raise _refusal(address, str(error)) from error
    if answer[3:4] != SETTINGS:
        raise _refusal(address, "what answers there is no Ray")


def _refusal(address: str | None, why: str) -> Refusal:
    if address is None:
        return Refusal(f"hydra/launcher=ray: Ray cannot be started on this machine: {why}", 1)
    if "InvalidAuthToken" in why:
        return Refusal(f"hydra.launcher.address={address}: asks for a token; {TOKEN}")
    if "Method not found" in why:
        why = "another of Ray's ports answers there than the one that ray start --head says"
    remedy = "give auto, HOST:PORT or ray://HOST:PORT of a cluster that runs, or leave it out to start one"
    return Refusal(f"hydra.launcher.address={address}: cannot be joined: {why}; {remedy}")


@contextmanager
def _stderr_to(file: int) -> Iterator[None]:
    """Send to a file what is printed to standard error below Python."""
    kept = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the answers to signals that Ray replaces by its own."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        with suppress(ValueError):  # not in the main thread, where Ray has replaced none
            for number, handler in kept.items():
                signal.signal(number, handler)
