"""Looking for container engines and toolkits with real programs on the search path, and at the system's own files."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from gonogo.runtimes import look_system, look_tools
from gonogo.runtimes.look import look_at_host, look_at_tools
from tests.shell.test_look_accelerators import CASES, program


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(look_tools, "CUDA_FOLDER", str(tmp_path / "none/nvcc"))
    monkeypatch.setattr(look_tools, "LDCONFIG_FOLDERS", str(folder))
    return folder


def test_what_is_not_installed_is_none(bin_folder: Path) -> None:
    tools = look_at_tools()
    assert (tools.container_engine, tools.container_toolkit, tools.cuda_toolkit) == (None, None, None)


def test_an_engine_that_runs_is_taken_before_one_that_does_not(bin_folder: Path) -> None:
    program(bin_folder, "docker", f"/bin/cat {CASES}/container_engine/docker-without-daemon.txt; exit 1")
    seen = look_at_tools().container_engine
    assert seen is not None and (seen.name, seen.running) == ("docker", False)
    assert "Cannot connect to the Docker daemon" in str(seen.words)
    program(bin_folder, "podman", f"/bin/cat {CASES}/container_engine/podman-5.txt")
    seen = look_at_tools().container_engine
    assert seen is not None and (seen.name, seen.server_version, seen.running) == ("podman", "5.2.0", True)


def test_an_engine_that_gives_no_version_is_there_with_its_words(bin_folder: Path) -> None:
    program(bin_folder, "docker", "echo 'docker: broken installation' >&2; exit 127")
    seen = look_at_tools().container_engine
    assert seen is not None and (seen.running, seen.words) == (None, "docker: broken installation")


def test_toolkits_and_nccl_give_their_versions(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "nvidia-ctk", f"/bin/cat {CASES}/container_toolkit/1.17.4.txt")
    program(bin_folder, "nvcc", f"/bin/cat {CASES}/nvcc/12.2.txt")
    library = tmp_path / "libnccl.so.2"
    (tmp_path / "libnccl.so.2.18.3").write_bytes(b"")
    library.symlink_to(tmp_path / "libnccl.so.2.18.3")
    program(bin_folder, "ldconfig", f"echo '\tlibnccl.so.2 (libc6,x86-64) => {library}'")
    tools = look_at_tools()
    found = [tools.container_toolkit, tools.cuda_toolkit, tools.nccl]
    assert [one.version for one in found if one is not None] == ["1.17.4", "12.2.140", "2.18.3"]


def test_a_toolkit_that_fails_is_there_and_says_why(bin_folder: Path) -> None:
    program(bin_folder, "nvcc", "echo 'cannot execute binary file' >&2; exit 126")
    seen = look_at_tools().cuda_toolkit
    assert seen is not None and (seen.version, seen.error) == (None, "cannot execute binary file")


def test_the_system_tells_its_limits_nodes_disks_and_shared_memory() -> None:
    host = look_at_host((), (), 0)
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert soft in (host.locked_memory_limit_bytes, resource.RLIM_INFINITY)
    assert host.shared_memory is not None and host.shared_memory.total_bytes >= host.shared_memory.free_bytes > 0
    assert host.glibc is None or host.glibc.startswith("2.")
    assert host.numa_nodes is None or host.numa_nodes[0].index == 0
    assert host.block_devices is None or all(disk.size_bytes > 0 for disk in host.block_devices)
    assert host.clock_kept in (True, False, None)


def test_disks_are_told_apart_by_what_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size, rotational in (("nvme0n1", 15002931888, "0"), ("sda", 976773168, "1"), ("vda", 100, "1")):
        folder = tmp_path / name
        (folder / "queue").mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
        (folder / "queue/rotational").write_text(f"{rotational}\n")
    (tmp_path / "loop0").mkdir()
    monkeypatch.setattr(look_system, "BLOCK", str(tmp_path))
    found = {disk.name: (disk.kind, disk.size_bytes) for disk in look_system.block_devices() or ()}
    assert found == {"nvme0n1": ("nvme", 7681501126656), "sda": ("hdd", 500107862016), "vda": (None, 51200)}
