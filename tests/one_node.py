"""A real Slurm on one node: munged, slurmctld and slurmd in a folder of their own, on free ports.

Its jobs wait for 10 seconds, not two minutes, after they were queued again (cred_expire), and those of the
partition kargo-lab give way to those of the partition urgent.

`python tests/one_node.py FOLDER` starts one and prints how to use it; it ends with Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
PACKAGES = "slurmctld slurmd slurm-client munge"
WAIT_SECONDS = 30.0
CONF = """
ClusterName=toyqs
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=2
MinJobAge=600
JobRequeue=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=kargo-lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 MaxTime=INFINITE State=UP
"""


class NoSlurm(RuntimeError):
    """Slurm cannot be had here; the message says why."""


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def install() -> None:
    """Install Debian's packages where they are missing.

    Raises:
        NoSlurm: this is no Debian, or not its root, or the packages cannot be had.
    """
    if os.getuid() or not Path("/etc/debian_version").exists():
        raise NoSlurm("Slurm is installed and started by the root of a Debian alone")
    if all(shutil.which(program, path=_path()) for program in PROGRAMS):
        return
    words = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {PACKAGES}"
    done = subprocess.run(
        words,
        shell=True,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise NoSlurm(f"Debian's packages {PACKAGES} cannot be installed")


class Node:
    """A running Slurm; `environment` is what its commands need."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        install()
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # munged trusts no folder that others may write to
        for name in ("state", "spool"):
            (folder / name).mkdir(exist_ok=True)
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(host=self.host, folder=folder, ports=_free_ports(2), cpus=cpus))
        self.environment = {"SLURM_CONF": str(conf), "PATH": _path()}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        key, socket_ = self.folder / "munge.key", self.folder / "munge.socket"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        own = {"key-file": key, "socket": socket_}
        own |= {f"{name}-file": self.folder / f"munge.{name}" for name in ("log", "pid", "seed")}
        words = [f"--{name}={path}" for name, path in own.items()]
        self._daemon("munged", "--foreground", "--force", "--num-threads=2", *words)
        self._until(socket_.exists)
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-N", self.host)
        self._until(lambda: self.ask("sinfo", "-h", "-o", "%T") == "idle")

    def _daemon(self, *words: str) -> None:
        with (self.folder / "daemons.out").open("ab") as out:
            self.daemons[words[0]] = subprocess.Popen(
                words, env=os.environ | self.environment, stdout=out, stderr=out, start_new_session=True
            )

    def _until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not true():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self.daemons.values()):
                raise NoSlurm(f"Slurm does not start: {(self.folder / 'daemons.out').read_text()[-2000:]}")
            time.sleep(0.05)

    def ask(self, *words: str) -> str:
        """Run one of Slurm's commands; return what it prints, or that it fails."""
        done = subprocess.run(
            words, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if not done.returncode else f"failed: {done.stderr.strip()}"

    def close(self) -> None:
        """Cancel all jobs and end the daemons."""
        if len(self.daemons) == 3:
            self.ask("scancel", "-u", "root")
            end = time.monotonic() + 10.0
            while self.ask("squeue", "-h") and time.monotonic() < end:
                time.sleep(0.2)
        daemons = list(reversed(self.daemons.values()))
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    node = Node(Path(sys.argv[1]).resolve())
    print(*(f"export {name}='{value}'" for name, value in node.environment.items()), sep="\n", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        node.close()
