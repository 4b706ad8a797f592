"""What describes an environment is read as it is meant, and a line that cannot be read is named."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.environment import Environment
from gonogo.facts.parse_environment import (
    EnvironmentUnreadable,
    parse_conda_file,
    parse_conda_meta,
    parse_metadata,
    parse_record,
    parse_requirements,
)


def shown(environment: Environment) -> dict[str, str]:
    return {one.name: one.versions for one in environment.packages}


def test_a_requirements_file_with_everything_that_pip_allows() -> None:
    text = (
        "--index-url https://index.example/simple\n-r other.txt\n# a comment\n\n"
        "Torch==2.0.1  # inline\nnvidia_nccl.cu12==2.18.3-1\n"
        "vllm[audio]>=0.12,<0.20 ; python_version >= '3.10'\n"
        "numpy==1.26.4 \\\n    --hash=sha256:" + "a" * 64 + " \\\n    --hash=sha256:" + "b" * 64 + "\nrequests\n"
    )
    read = parse_requirements(text, "r.txt")
    assert shown(read) == {
        "torch": "==2.0.1",
        "nvidia-nccl-cu12": "==2.18.3-1",
        "vllm": "<0.20,>=0.12",
        "numpy": "==1.26.4",
        "requests": "",
    }
    assert [one.version for one in read.packages] == ["2.0.1", "2.18.3-1", None, "1.26.4", None]


def test_a_line_that_is_no_requirement_is_named() -> None:
    with pytest.raises(EnvironmentUnreadable) as caught:
        parse_requirements("torch==2.0.1\n\ntorch = 2.0.1\n", "r.txt")
    assert (caught.value.line, caught.value.words) == (3, "torch = 2.0.1")


def test_a_conda_file_with_pips_part() -> None:
    text = (
        "name: auto_glm\nchannels: [conda-forge]\ndependencies:\n"
        "  - python=3.10\n  - pytorch::pytorch=2.0.1=py3.10_cuda11.7\n  - numpy>=1.26\n  - cudatoolkit=11.7\n"
        "  - pip:\n    - transformers==4.30.2\n    - -r more.txt\n"
    )
    read = parse_conda_file(text, "environment.yml")
    assert read.python == "3.10" and read.conda
    assert shown(read) == {
        "torch": "==2.0.1.*",
        "numpy": ">=1.26",
        "cudatoolkit": "==11.7.*",
        "transformers": "==4.30.2",
    }


@pytest.mark.parametrize(("text", "line"), [("a: [\n", 2), ("- a\n- b\n", None), ("dependencies: none\n", None)])
def test_what_is_no_conda_file_says_so(text: str, line: int | None) -> None:
    with pytest.raises(EnvironmentUnreadable) as caught:
        parse_conda_file(text, "environment.yml")
    assert caught.value.line == line


def test_condas_records_are_read_and_others_left_out() -> None:
    record = {"name": "pytorch", "version": "2.0.1", "build": "py3.10_cuda11.7"}
    read = parse_conda_meta([json.dumps(record), "{", "[]", '{"name": "x"}'])
    assert [(one.name, one.version, one.origin) for one in read] == [("torch", "2.0.1", "conda")]


def test_metadata_is_read_from_its_head_only() -> None:
    read = parse_metadata("Metadata-Version: 2.1\nName: My_Package\nVersion: 1.0\n\nName: other\nVersion: 2\n")
    assert read is not None and (read.name, read.version) == ("my-package", "1.0")
    assert parse_metadata("Version: 1.0\n") is None


def test_a_record_with_commas_in_names() -> None:
    read = parse_record('a.py,sha256=x,1\n"odd,name.py",sha256=y,2\nRECORD,,\n')
    assert read == (("a.py", "sha256=x"), ("odd,name.py", "sha256=y"), ("RECORD", None))


@given(st.text(max_size=200))
def test_nonsense_is_refused_by_its_own_error_and_no_other(text: str) -> None:
    for parse in (parse_requirements, parse_conda_file):
        with contextlib.suppress(EnvironmentUnreadable):
            parse(text, "x")
    parse_metadata(text)
    parse_record(text)
    parse_conda_meta([text])
