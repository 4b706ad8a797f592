"""The facts of a host: where each is looked for and who reads it. One line each."""

from __future__ import annotations

from gonogo.facts.fact import Fact
from gonogo.facts.parse_accelerators import COMMAND, parse_accelerators
from gonogo.facts.parse_network import parse_tcp
from gonogo.facts.parse_programs import parse_envoy_version, parse_version_line
from gonogo.facts.parse_system import (
    parse_boot_id,
    parse_cgroup_paths,
    parse_cpuinfo,
    parse_limits,
    parse_meminfo,
    parse_mounts,
    parse_os_release,
)

OS = Fact(name="host.os", path="/etc/os-release", parse=parse_os_release)
BOOT = Fact(name="host.boot", path="/proc/sys/kernel/random/boot_id", parse=parse_boot_id)
CPU = Fact(name="host.cpu", path="/proc/cpuinfo", parse=parse_cpuinfo)
MEMORY = Fact(name="host.memory", path="/proc/meminfo", parse=parse_meminfo)
CGROUP = Fact(name="host.cgroup", path="/proc/self/cgroup", parse=parse_cgroup_paths)
MOUNTS = Fact(name="host.mounts", path="/proc/self/mountinfo", parse=parse_mounts)
OPEN_FILES = Fact(name="host.open_files", path="/proc/self/limits", parse=parse_limits)
TCP = (
    Fact(name="host.tcp", path="/proc/net/tcp", parse=parse_tcp),
    Fact(name="host.tcp6", path="/proc/net/tcp6", parse=parse_tcp),
)
ACCELERATORS = Fact(name="host.accelerators", command=COMMAND, parse=parse_accelerators)
ENGINE_VERSION = Fact(
    name="host.engine",
    command=("{python}", "-c", "import xllamacpp; print(xllamacpp.__version__)"),
    parse=parse_version_line,
    timeout_s=20.0,
)
GATEWAY_VERSION = Fact(name="host.gateway", command=("{envoy}", "--version"), parse=parse_envoy_version, timeout_s=20.0)
