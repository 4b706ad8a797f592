"""Asks the real llama.cpp what buffers it would make for models that are only headers, and keeps what it printed.

    python benchmarks/llamacpp_ghosts.py tests/cases/engines/llamacpp/buffers/*.json [--accept]

Each file describes one model (metadata and shapes) and settings. A GGUF file with that header and no weights is written
to a temporary folder, and the library inside the `xllamacpp` wheel loads it in its dry mode (`no_alloc`), each case in
a process of its own. Without `--accept` the printed numbers are compared with those in the file. The C structures below
are those of build 11549; another build is recognized by its default values and refused.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

DEADLINE_S = 60.0
ALIGNMENT = 32
CACHE_KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "IQ4_NL": 20, "BF16": 30}
_CACHE = re.compile(r"size = +([0-9.]+) MiB \( *(\d+) cells, +(\d+) layers[^\n]*, K \(")
_STATES = re.compile(r"size = +([0-9.]+) MiB \( *\d+ cells, +\d+ layers[^\n]*, R \(")
_COMPUTE = re.compile(r"compute buffer size = +([0-9.]+) MiB")
_OUTPUT = re.compile(r"output buffer size = +([0-9.]+) MiB")

_P, _I, _U, _F, _B = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_float, ctypes.c_bool


def _fields(*groups: tuple[str, Any]) -> list[tuple[str, Any]]:
    return [(name, kind) for names, kind in groups for name in names.split()]


class ModelParameters(ctypes.Structure):
    """`llama_model_params`, and room behind it."""

    _fields_ = _fields(
        ("devices tensor_overrides", _P),
        ("gpu_layers split_mode load_mode lazy_mode main_gpu", _I),
        ("tensor_split progress progress_data kv_overrides", _P),
        ("vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp", _B),
        ("room", ctypes.c_char * 64),
    )


class ContextParameters(ctypes.Structure):
    """`llama_context_params`, and room behind it."""

    _fields_ = _fields(
        ("n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq", _U),
        ("n_threads n_threads_batch ctx_type rope_scaling pooling attention flash_attn", _I),
        ("rope_base rope_scale yarn_ext yarn_attn yarn_fast yarn_slow", _F),
        ("yarn_ctx", _U),
        ("defrag", _F),
        ("cb_eval cb_eval_data", _P),
        ("type_k type_v", _I),
        ("abort abort_data unnamed", _P),
        ("embeddings offload_kqv no_perf op_offload swa_full kv_unified", _B),
        ("samplers n_samplers other", _P),
        ("room", ctypes.c_char * 64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What one start printed, in MiB: each cache with its cells and layers, the output and the compute buffer."""

    kv: tuple[tuple[float, int, int], ...]
    states_mib: float | None
    output_mib: float
    compute_mib: float

    def plain(self) -> dict[str, Any]:
        found = {"kv": [list(one) for one in self.kv], "output_mib": self.output_mib, "compute_mib": self.compute_mib}
        return found if self.states_mib is None else {**found, "states_mib": self.states_mib}


def tensors_of(model: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes (fastest dimension first) of a described model."""
    for name, extents in model["tensors"].items():
        yield name, tuple(extents)
    for group in model["layers"]:
        for layer in range(group["first"], group["first"] + group["count"]):
            for name, extents in group["tensors"].items():
                yield f"blk.{layer}.{name}", tuple(extents)


def write_ghost(model: Mapping[str, Any], path: Path) -> None:
    """A GGUF file of this model without its weights: they are a hole at the end of the file."""
    import gguf

    writer = gguf.GGUFWriter(path, model["architecture"])
    for key, value in model["metadata"].items():
        _add(writer, f"{model['architecture']}.{key}", value)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    hole = 0
    for name, extents in tensors_of(model):
        size, kind = _stored(extents, name)
        writer.tensors[-1][name] = gguf.gguf_writer.TensorInfo(shape=list(reversed(extents)), dtype=kind, nbytes=size)
        hole += -(-size // ALIGNMENT) * ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = -(-path.stat().st_size // ALIGNMENT) * ALIGNMENT
    os.truncate(path, header + hole)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _stored(extents: tuple[int, ...], name: str) -> tuple[int, Any]:
    """Q8_0 where llama.cpp's own quantizer would, F32 for vectors and routers, F16 where a row is no whole block."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    kind = kinds.F32 if len(extents) == 1 or "ffn_gate_inp" in name or name.endswith(".bias") else kinds.Q8_0
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if extents[0] % block:
        kind = kinds.F16
        block, size = gguf.GGML_QUANT_SIZES[kind]
    count = 1
    for extent in extents:
        count *= extent
    return count // block * size, kind


def measure(path: Path, settings: Mapping[str, Any]) -> Printed:
    """What llama.cpp prints for this file and these settings (those of `LlamaSettings`)."""
    command = (sys.executable, __file__, "--one", str(path), json.dumps(settings))
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    compute, output = _COMPUTE.findall(text), _OUTPUT.findall(text)
    if not compute or not output:
        raise RuntimeError(f"{path.name}: no buffers were printed: {text[-600:]}")
    caches = tuple((float(size), int(cells), int(layers)) for size, cells, layers in _CACHE.findall(text))
    states = [float(size) for size in _STATES.findall(text)]
    return Printed(
        kv=caches,
        states_mib=sum(states) if states else None,
        output_mib=float(output[-1]),
        compute_mib=float(compute[-1]),
    )


def _load_one(path: str, settings: Mapping[str, Any]) -> int:
    """In a process of its own: load, make a context, leave without unloading. Its log goes to standard error."""
    found = importlib.util.find_spec("xllamacpp")
    assert found is not None and found.origin is not None
    library = ctypes.CDLL(str(next(Path(found.origin).parent.glob("*.so"))))
    library.llama_model_default_params.restype = ModelParameters
    library.llama_context_default_params.restype = ContextParameters
    model, context = library.llama_model_default_params(), library.llama_context_default_params()
    if (context.n_ctx, context.n_batch, context.type_k, context.offload_kqv, context.embeddings) != (
        *(512, 2048, 1),
        *(True, False),
    ):
        print("the structures of this build are others", file=sys.stderr)
        return 1
    library.llama_model_load_from_file.restype = library.llama_init_from_model.restype = _P
    library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParameters]
    library.llama_init_from_model.argtypes = [_P, ContextParameters]
    library.llama_backend_init()
    model.no_alloc, model.load_mode = True, 0
    context.n_ctx, context.n_batch = settings["context_tokens"], settings.get("batch_tokens", 2048)
    context.n_ubatch = settings.get("step_tokens", 512)
    context.n_seq_max = settings.get("sequences", 1)
    context.n_outputs_max = 0 if settings.get("all_outputs") else context.n_seq_max
    context.kv_unified, context.swa_full = settings.get("unified", False), settings.get("whole_windows", False)
    context.flash_attn = 1 if settings.get("flash_attention", True) else 0
    context.type_k = CACHE_KINDS[settings.get("key_type", "F16")]
    context.type_v = CACHE_KINDS[settings.get("value_type", "F16")]
    loaded = library.llama_model_load_from_file(path.encode(), model)
    made = library.llama_init_from_model(loaded, context) if loaded else None
    sys.stderr.flush()
    os._exit(0 if made else 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every case of the named files. Returns 1 when a printed number is not the one in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, nargs="*")
    parser.add_argument("--accept", action="store_true", help="write what was printed into the files")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "SETTINGS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        return _load_one(options.one[0], json.loads(options.one[1]))
    differences = 0
    for case in options.cases:
        model = json.loads(case.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            ghost = Path(folder) / f"{case.stem}.gguf"
            write_ghost(model, ghost)
            for one in model["cases"]:
                printed = measure(ghost, one["settings"]).plain()
                if one.get("printed") != printed:
                    differences += 1
                    print(f"{case.stem} {one['settings']}: {one.get('printed')} in the file, {printed} printed")
                one["printed"] = printed
        if options.accept:
            case.write_text(_written(model), encoding="utf-8")
    print(f"{len(options.cases)} models, {differences} differences")
    return 0 if options.accept or not differences else 1


def _written(model: Mapping[str, Any]) -> str:
    """One line per tensor, per layer's tensors and per case: a diff that can be read."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    layers = ",\n  ".join(line(group) for group in model["layers"])
    cases = ",\n  ".join(line(one) for one in model["cases"])
    return (
        f'{{\n "architecture": {line(model["architecture"])},\n "metadata": {line(model["metadata"])},\n'
        f' "tensors": {line(model["tensors"])},\n "layers": [\n  {layers}\n ],\n "cases": [\n  {cases}\n ]\n}}\n'
    )


if __name__ == "__main__":
    sys.exit(main())
