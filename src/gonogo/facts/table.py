"""The facts of a host: where each is looked for and who reads it. One line each."""

from __future__ import annotations

from gonogo.facts import parse_accelerators, parse_tools, parse_topology, parse_utilization
from gonogo.facts.fact import Fact
from gonogo.facts.parse_network import parse_tcp
from gonogo.facts.parse_programs import parse_envoy_version, parse_version_line
from gonogo.facts.parse_system import (
    parse_boot_id,
    parse_cgroup_paths,
    parse_cpuinfo,
    parse_limits,
    parse_meminfo,
    parse_mounts,
    parse_os_id,
    parse_os_release,
)

OS = Fact(name="host.os", path="/etc/os-release", parse=parse_os_release)
OS_ID = Fact(name="host.os_id", path="/etc/os-release", parse=parse_os_id)
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
ACCELERATORS = Fact(
    name="host.accelerators",
    command=parse_accelerators.COMMAND,
    parse=parse_accelerators.parse_accelerators,
    timeout_s=15.0,
)
CAPABILITIES = Fact(
    name="host.accelerators.capability",
    command=parse_accelerators.CAPABILITY_COMMAND,
    parse=parse_accelerators.parse_capabilities,
)
UTILIZATION = Fact(
    name="host.accelerators.utilization",
    command=parse_utilization.COMMAND,
    parse=parse_utilization.parse_utilization,
)
TOPOLOGY = Fact(
    name="host.accelerators.links", command=parse_topology.COMMAND, parse=parse_topology.parse_topology, timeout_s=10.0
)
AMD = (
    Fact(name="host.amd", command=("amd-smi", "static", "--asic"), parse=parse_tools.parse_amd, timeout_s=10.0),
    Fact(name="host.amd", command=("rocm-smi", "--showproductname"), parse=parse_tools.parse_amd, timeout_s=10.0),
)
ASCEND = Fact(name="host.ascend", command=("npu-smi", "info"), parse=parse_tools.parse_ascend, timeout_s=10.0)
CONTAINER_ENGINES = tuple(
    Fact(
        name=f"host.{name}",
        command=(name, "version", "--format", "{{json .}}"),
        parse=parse_tools.parse_container_engine,
    )
    for name in ("docker", "podman")
)
CONTAINER_TOOLKIT = Fact(
    name="host.container_toolkit", command=("nvidia-ctk", "--version"), parse=parse_tools.parse_toolkit_version
)
CUDA_TOOLKIT = Fact(name="host.cuda_toolkit", command=("nvcc", "--version"), parse=parse_tools.parse_nvcc_version)
NCCL = Fact(name="host.nccl", command=("ldconfig", "-p"), parse=parse_tools.parse_nccl_library)
ENGINE_VERSION = Fact(
    name="host.engine",
    command=("{python}", "-c", "import xllamacpp; print(xllamacpp.__version__)"),
    parse=parse_version_line,
    timeout_s=20.0,
)
GATEWAY_VERSION = Fact(name="host.gateway", command=("{envoy}", "--version"), parse=parse_envoy_version, timeout_s=20.0)
