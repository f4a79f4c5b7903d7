"""A stand-in for Slurm: nodes that are network namespaces, and `srun` and `scontrol` over them.

Each node has an address, a host name, a loopback, temporary files and a shared memory of its own. All have the rest of
the file system in common, as on a cluster with a shared home. A job's script is copied to its first node alone.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "slurm" / "raysp.sbatch"
LOCAL = ("/tmp", "/dev/shm")
"""Folders that each node has for itself."""
UNSHARE = ("unshare", "--net", "--mount", "--uts")
NODE = """
set -e
hostname $NAME
mount --bind $HOSTS /etc/hosts
mount -t tmpfs tmpfs $HELD
for kept in $KEPT; do mkdir -p $HELD/$kept; mount --bind $kept $HELD/$kept; done
for folder in $LOCAL; do mount -t tmpfs tmpfs $folder; done
for kept in $KEPT; do mkdir -p $kept; mount --bind $HELD/$kept $kept; done
ip link set lo up
echo ready
exec cat
"""
SRUN = """#!{python}
'''Stand-in for srun: starts a command on nodes of a job, forwards SIGTERM, and ends with the highest exit code.'''
import argparse, json, os, signal, subprocess, sys

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("nodes", "ntasks", "ntasks-per-node", "relative", "kill-on-bad-exit"):
    parser.add_argument("--" + name, type=int, required=True)
parser.add_argument("--cpu-bind", choices=["none"])
parser.add_argument("command", nargs=argparse.REMAINDER)
asked = parser.parse_args()
nodes = json.loads(os.environ["STAND_IN_NODES"])[asked.relative :]
if asked.nodes != asked.ntasks or asked.nodes > len(nodes):
    sys.exit("srun: error: Unable to create step: Requested node configuration is not available")
tasks = []
for number, (name, pid) in enumerate(nodes[: asked.nodes]):
    environment = {{**os.environ, "SLURM_NODEID": str(number), "SLURM_PROCID": str(number), "SLURMD_NODENAME": name}}
    enter = ["nsenter", "--target", str(pid), "--net", "--mount", "--uts", "--wd=" + os.getcwd(), "--"]
    tasks.append(subprocess.Popen([*enter, *asked.command], env=environment, stdin=subprocess.DEVNULL))
signal.signal(signal.SIGTERM, lambda *_: [one.terminate() for one in tasks])
sys.exit(max(abs(one.wait()) for one in tasks))
"""
SCONTROL = """#!{python}
'''Stand-in for scontrol: names of nodes, and requeueing, which is written to a file.'''
import os, re, sys

if sys.argv[1:3] == ["show", "hostnames"]:
    prefix, first, last = re.fullmatch(r"(\\w+)\\[(\\d+)-(\\d+)\\]", sys.argv[3]).groups()
    print(*(prefix + str(number) for number in range(int(first), int(last) + 1)), sep="\\n")
elif sys.argv[1:2] == ["requeue"]:
    with open(os.environ["STAND_IN_REQUEUED"], "a") as file:
        print(sys.argv[2], file=file)
else:
    sys.exit("scontrol: invalid keyword")
"""


def obstacle() -> str:
    """Return why there can be no such nodes on this machine; empty if there can."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if not shutil.which(name)]:
        return f"there is no {missing[0]}"
    tried = subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    return f"namespaces are not permitted: {tried.stderr.strip()}" if tried.returncode else ""


def directives(script: str) -> dict[str, str]:
    """Return the options that a batch script sets by `#SBATCH`: those before its first command."""
    head = re.split(r"^[^#\n]", script, maxsplit=1, flags=re.MULTILINE)[0]
    return {name: value for name, _, value in re.findall(r"^#SBATCH --([\w-]+)(=(\S+))?$", head, re.MULTILINE)}


@dataclass(frozen=True)
class Node:
    """A node: its name, working directory, and the process that keeps its namespaces."""

    name: str
    folder: Path
    holder: subprocess.Popen[str]

    def enter(self) -> list[str]:
        """Return the beginning of a command that runs on the node."""
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--uts", f"--wd={self.folder}", "--"]

    def path(self, path: str) -> Path:
        """Return a path of the node as this process reaches it."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def processes(self) -> dict[int, str]:
        """Return the command lines of the processes on the node, without the one that keeps it."""
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "ns/net") == mine and int(process.name) != self.holder.pid:
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        return {number: line for number, line in found.items() if line}


class Job:
    """A job of one or more nodes, whose batch script starts when it is made, and again when it is requeued.

    Args:
        slurm: the cluster.
        number: its id.
        nodes: its nodes.
        words: arguments of the script.
        environment: more environment variables.
    """

    def __init__(
        self, slurm: "Slurm", number: int, nodes: list[Node], words: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        self.number, self.nodes = number, nodes
        self._slurm, self._words, self._environment = slurm, words, environment
        self._log = slurm.folder / f"raysp-{number}.log"
        self._requeued = slurm.folder / f"requeued-{number}"
        self._starts = 0
        self.start()

    def start(self) -> None:
        """Start the batch script on the first node, with what Slurm sets."""
        first, last = self.nodes[0].name, self.nodes[-1].name.removeprefix("node")
        spooled = self.nodes[0].path("/tmp") / f"slurm_script_{self.number}"
        shutil.copy(SCRIPT, spooled)
        environment = {
            **self._slurm.environment,
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NUM_NODES": str(len(self.nodes)),
            "SLURM_JOB_NODELIST": f"node[{first.removeprefix('node')}-{last}]",
            "SLURM_RESTART_COUNT": str(self._starts),
            "SLURM_CPUS_ON_NODE": "2",
            "SLURM_MEM_PER_NODE": "2000",
            "STAND_IN_NODES": json.dumps([(node.name, node.holder.pid) for node in self.nodes]),
            "STAND_IN_REQUEUED": str(self._requeued),
            **self._environment,
        }
        self._starts += 1
        with self._log.open("ab") as log:
            command = [*self.nodes[0].enter(), "bash", f"/tmp/{spooled.name}", *self._words]
            self.process = subprocess.Popen(
                command, env=environment, cwd=self._slurm.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def requeued(self) -> list[str]:
        """Ids that the script requeued."""
        return self._requeued.read_text().split() if self._requeued.exists() else []

    def near_the_limit(self) -> None:
        """Send what the script asks for before the time limit, to its shell alone."""
        receiver, name = re.fullmatch(r"(B):(\w+)@\d+", directives(SCRIPT.read_text())["signal"]).groups()
        assert receiver == "B"
        self.process.send_signal(signal.Signals[f"SIG{name}"])

    def ends(self, seconds: float = 600) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log[-5000:]) from None

    def wait_until(self, happened: Callable[[], object], seconds: float = 600) -> None:
        """Wait until something has happened while the job runs."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.log[-5000:]
            assert time.monotonic() < deadline, self.log[-5000:]
            time.sleep(0.1)


class Slurm:
    """Nodes and jobs.

    Args:
        folder: folder that all nodes see.
        num_nodes: number of nodes.
        stack: ends the nodes.
    """

    def __init__(self, folder: Path, num_nodes: int, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._jobs = 0
        (folder / "bin").mkdir()
        (folder / "home").mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            file = folder / "bin" / name
            file.write_text(text.format(python=sys.executable))
            file.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_", "AWS_"))}
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin"
        self.environment = {**clean, "PATH": path, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        addresses = {f"node{number}": f"10.213.0.{number}" for number in range(1, num_nodes + 1)}
        (folder / "hosts").write_text(
            "".join(f"{one} {name}\n" for name, one in {"localhost": "127.0.0.1", **addresses}.items())
        )
        self._switch = self._hold({"NAME": "switch"}, "ip link add bridge type bridge && ip link set bridge up")
        self.nodes = [self._node(name, address) for name, address in addresses.items()]

    def _hold(self, environment: Mapping[str, str], before: str = "true") -> subprocess.Popen[str]:
        kept = [str(one) for one in (self.folder, ROOT, Path(sys.prefix)) if one.is_relative_to("/tmp")]
        variables = {
            **os.environ,
            "LOCAL": " ".join(LOCAL),
            "KEPT": " ".join(kept),
            "HOSTS": str(self.folder / "hosts"),
            "HELD": "/srv",
            **environment,
        }
        command = [*UNSHARE, "sh", "-c", f"{before}\n{NODE}"]
        holder = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(holder.wait)
        self._stack.callback(holder.kill)
        assert holder.stdout.readline() == "ready\n"
        return holder

    def _node(self, name: str, address: str) -> Node:
        holder = self._hold({"NAME": name})
        node = Node(name, self.folder, holder)
        link = f"to-{name}"
        commands = [
            f"nsenter -t {self._switch.pid} -n ip link add {link} type veth peer name eth0 netns {holder.pid}",
            f"nsenter -t {self._switch.pid} -n ip link set {link} master bridge up",
            f"nsenter -t {holder.pid} -n ip address add {address}/24 dev eth0",
            f"nsenter -t {holder.pid} -n ip link set eth0 up",
        ]
        for command in commands:
            subprocess.run(command.split(), check=True)
        return node

    def sbatch(self, *words: str, nodes: list[Node], **environment: str) -> Job:
        """Start a job. Keywords are more environment variables."""
        self._jobs += 1
        job = Job(self, 100 + self._jobs, nodes, words, environment)
        self._stack.callback(job.process.wait)
        self._stack.callback(lambda: job.process.kill())
        return job

    def end(self) -> None:
        """End what runs on the nodes."""
        for node in self.nodes:
            for number in node.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)


@contextlib.contextmanager
def slurm(folder: Path, num_nodes: int = 2) -> Iterator[Slurm]:
    """Start the nodes of a cluster; all their processes end with the block."""
    with contextlib.ExitStack() as stack:
        found = Slurm(folder, num_nodes, stack)
        stack.callback(found.end)
        yield found
