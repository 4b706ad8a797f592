"""Each file of tests/cases/facts and what is read from it. `--accept` rewrites the expected; the diff is the review."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Callable, Mapping

import pytest

from gonogo.facts import (
    gateway_hosts,
    parse_accelerators,
    parse_gateway,
    parse_network,
    parse_programs,
    parse_sysfs,
    parse_system,
    parse_tools,
    parse_topology,
    parse_utilization,
    parse_uv,
    request_record,
)

CASES = Path(__file__).parent.parent / "cases" / "facts"


def _line(text: str) -> bytes:
    """A log's line as its reader gives it."""
    return text.encode().removesuffix(b"\n")


PARSERS: dict[str, Callable[[str], Any]] = {
    "accelerators": parse_accelerators.parse_accelerators,
    "amd": parse_tools.parse_amd,
    "ascend": parse_tools.parse_ascend,
    "boot_id": parse_system.parse_boot_id,
    "capabilities": parse_accelerators.parse_capabilities,
    "cgroup_paths": parse_system.parse_cgroup_paths,
    "clusters": gateway_hosts.parse_clusters,
    "container_engine": parse_tools.parse_container_engine,
    "container_toolkit": parse_tools.parse_toolkit_version,
    "cpu_max": parse_system.parse_cpu_max,
    "cpuinfo": parse_system.parse_cpuinfo,
    "envoy_version": parse_programs.parse_envoy_version,
    "gateway_now": parse_gateway.parse_gateway_now,
    "limits": parse_system.parse_limits,
    "lock": parse_programs.parse_lock,
    "meminfo": parse_system.parse_meminfo,
    "mounts": parse_system.parse_mounts,
    "nccl_library": parse_tools.parse_nccl_library,
    "node_memory": parse_sysfs.parse_node_memory,
    "nodes": parse_sysfs.parse_node_list,
    "nvcc": parse_tools.parse_nvcc_version,
    "os_id": parse_system.parse_os_id,
    "os_release": parse_system.parse_os_release,
    "request": lambda text: request_record.parse_request(_line(text)),
    "stream": lambda text: request_record.parse_stream(_line(text)),
    "tcp": parse_network.parse_tcp,
    "topology": parse_topology.parse_topology,
    "utilization": parse_utilization.parse_utilization,
    "uv": parse_uv.parse_uv_failure,
    "version_line": parse_programs.parse_version_line,
}
FILES = sorted(CASES.glob("*/*.txt"))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


@pytest.mark.parametrize("case", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_output_is_read_as_expected(case: Path, pytestconfig: pytest.Config) -> None:
    seen = _plain(PARSERS[case.parent.name](case.read_text()))
    expected = case.with_suffix(".expected.json")
    if pytestconfig.getoption("--accept"):
        expected.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n")
    assert seen == json.loads(expected.read_text())


def test_every_parser_has_cases() -> None:
    assert {path.parent.name for path in FILES} == set(PARSERS)


@pytest.mark.parametrize("name", sorted(PARSERS))
@pytest.mark.parametrize("text", ["", "\0\xff", "a: b\n" * 3, ",,,,", "=", ":" * 50, "9" * 400, "0: :" * 9])
def test_nonsense_is_never_an_exception(name: str, text: str) -> None:
    PARSERS[name](text)


def test_the_longest_mount_point_above_a_path_decides_its_kind() -> None:
    mounts = tuple(
        parse_system.Mount(path=path, kind=kind)
        for path, kind in (("/", "ext4"), ("/data", "xfs"), ("/data/hot", "tmpfs"), ("/data", "nfs4"))
    )
    seen = [parse_system.kind_of(path, mounts) for path in ("/etc", "/data/x", "/data/hot/y", "/database", "/data")]
    assert seen == ["ext4", "nfs4", "tmpfs", "ext4", "nfs4"]


@pytest.mark.parametrize(
    ("allowed", "quotas", "cores"), [(8, (), 8), (8, (2.5,), 2), (8, (0.5,), 1), (1, (4.0,), 1), (8, (6.0, 3.0), 3)]
)
def test_cores_are_those_allowed_within_the_tightest_quota(allowed: int, quotas: tuple[float, ...], cores: int) -> None:
    assert parse_system.cores_usable(allowed, quotas) == cores


def test_memory_is_the_tightest_of_machine_and_control_groups() -> None:
    machine = parse_system.Memory(total_bytes=100, available_bytes=80)
    group = parse_system.Memory(total_bytes=50, available_bytes=None)
    assert parse_system.tightest((machine, group)) == parse_system.Memory(total_bytes=50, available_bytes=80)


def test_old_limits_near_two_to_the_63_mean_no_limit() -> None:
    texts = ("9223372036854771712\n", "max\n", "-1\n", "1073741824\n")
    assert [parse_system.parse_bytes(text) for text in texts] == [None, None, None, 1073741824]


def test_the_last_words_of_a_program_fit_a_report() -> None:
    assert parse_programs.last_words("first\n\nerror: " + "x" * 5000 + "\n") == "x" * parse_programs.LONGEST_ERROR
    assert parse_programs.last_words("\n \n") == "it printed nothing"
