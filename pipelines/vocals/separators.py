"""Models that part voices from music, opened by audio-separator from a path alone, without a network.

audio-separator itself takes a model's parameters from lists that it downloads. Here they come from local files:
a JSON or YAML beside the model, figures known by name, or such lists if they lie in the model's folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import torch

from ...models.checkpoints import check_file, refuse_code
from ...models.json_file import read_json
from ..errors import TalkingPortraitError, quoted
from ..packages import PACK, first_line, pip_install

SAMPLE_RATE = 44100
HOP = 1024

KNOWN: dict[str, dict[str, Any]] = {
    "kim_vocal_2": {"compensate": 1.009, "mdx_n_fft_scale_set": 7680, "primary_stem": "Vocals"},
    "uvr-mdx-net-voc_ft": {"compensate": 1.021, "mdx_n_fft_scale_set": 7680, "primary_stem": "Vocals"},
}
"""Parameters by file name, which the ONNX file does not hold. Source: the model lists of Ultimate Vocal Remover."""
DATA_LISTS = ("mdx_model_data.json", "model_data_new.json")
"""Ultimate Vocal Remover's lists, as audio-separator saves them beside its models."""
HASHED_BYTES = 10_000 * 1024
LARGEST_FFT = 2**16
LARGEST_YAML = 2**20
"""Bytes; the published ones have a few thousand."""

_log = logging.getLogger(__name__)


def open_separator(path: Path, device: torch.device) -> tuple[Any, types.ModuleType]:
    """audio-separator's object for an MDX network (.onnx) or an MDX23C or Roformer (.ckpt with its .yaml).

    Returns the object and the module of its class, which holds the loop over chunks.

    Raises TalkingPortraitError, one sentence, for a file that is missing, damaged, of another kind, or whose parameters
    are unknown, and when audio-separator is not installed.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        module, name, data = _architecture("mdx_separator"), "MDXSeparator", _mdx_data(path)
        options = {"segment_size": 2 ** data["mdx_dim_t_set"], "hop_length": HOP, "overlap": 0.25, "batch_size": 1}
        options["enable_denoise"] = False
    elif suffix == ".ckpt":
        refuse_code(path)
        module, name, data = _architecture("mdxc_separator"), "MDXCSeparator", _mdxc_data(path)
        options = {"segment_size": 256, "batch_size": None, "overlap": None, "pitch_shift": 0}
    else:
        raise TalkingPortraitError(
            f"{path.name} is no voice separator by its ending; an MDX network (.onnx, such as Kim_Vocal_2.onnx) or "
            "an MDX23C or Roformer (.ckpt with its .yaml) is expected."
        )
    cuda = device.type == "cuda"
    common = {
        "logger": _log,
        "log_level": logging.WARNING,
        "torch_device": device,
        "torch_device_cpu": torch.device("cpu"),
        "torch_device_mps": device if device.type == "mps" else None,
        "onnx_execution_provider": _providers(cuda),
        "model_name": path.stem,
        "model_path": str(path),
        "model_data": data,
        "output_format": "WAV",
        "normalization_threshold": math.inf,  # no level is changed on the way in or out
        "amplification_threshold": 0.0,
        "invert_using_spec": False,
        "sample_rate": SAMPLE_RATE,
        "use_soundfile": True,
    }
    try:
        return getattr(module, name)(common_config=common, arch_config=options), module
    except (Exception, SystemExit) as error:  # the library exits on some damaged files
        reason = (str(error).splitlines() or [""])[0][:150]
        raise TalkingPortraitError(
            f"{path.name} could not be opened as a voice separator ({type(error).__name__}: {reason}); "
            "download it and its parameters again."
        ) from None


def _providers(cuda: bool) -> list[str]:
    import onnxruntime

    wanted = ["CUDAExecutionProvider"] if cuda else []
    return [p for p in wanted if p in onnxruntime.get_available_providers()] or ["CPUExecutionProvider"]


def _architecture(name: str) -> types.ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ffmpeg, which is not needed, and about old torch names
        try:
            with _without_onnx2torch():
                return import_module(f"audio_separator.separator.architectures.{name}")
        except ImportError as error:
            raise TalkingPortraitError(
                f"Separating vocals needs the package audio-separator and what it imports ({first_line(error)}); run: "
                + pip_install(f'-r "{PACK / "requirements-vocals.txt"}"')
                + " && "
                + pip_install('--no-deps "audio-separator>=0.30"')
            ) from None


@contextmanager
def _without_onnx2torch() -> Iterator[None]:
    """Lets the import pass where onnx2torch, or the torchvision that it needs, is missing or does not fit torch.

    audio-separator needs it for segments of another length than the model's own, which are never used here.
    """
    try:
        import_module("onnx2torch")
    except Exception:  # torchvision fails with a RuntimeError beside a torch of another build
        for name in [n for n in sys.modules if n.split(".")[0] == "onnx2torch"]:
            del sys.modules[name]
        sys.modules["onnx2torch"] = types.ModuleType("onnx2torch")
        try:
            yield
        finally:
            del sys.modules["onnx2torch"]
    else:
        yield


def _mdx_data(path: Path) -> dict[str, Any]:
    """Parameters of an MDX network: sizes from the ONNX file, the others from beside it, from names or from lists."""
    channels, bins, frames = _onnx_sizes(path)
    beside = path.with_suffix(".json")
    data = read_json(beside) if beside.is_file() else KNOWN.get(path.stem.lower()) or _listed(path)
    if not data or "mdx_n_fft_scale_set" not in data:
        raise TalkingPortraitError(
            f"The parameters of {path.name} are not known; put a {beside.name} beside it with mdx_n_fft_scale_set "
            "(its FFT length), primary_stem and compensate, or take Kim_Vocal_2.onnx."
        )
    data = {"compensate": 1.0, "primary_stem": "Vocals", **data}
    length, gain = data["mdx_n_fft_scale_set"], data["compensate"]
    if type(length) is not int or not 2 <= length <= LARGEST_FFT or type(gain) not in (int, float) or not 0 < gain < 10:
        raise TalkingPortraitError(
            f"The parameters of {path.name} are an FFT of {quoted(length)} samples and a gain of {quoted(gain)}, but "
            f"2 to {LARGEST_FFT} and 0 to 10 are expected; correct the {beside.name} beside it."
        )
    if channels != 4 or bins > length // 2 + 1:
        raise TalkingPortraitError(
            f"{path.name} takes {channels} channels of {bins} bins, but 4 of at most {length // 2 + 1} are expected; "
            "it is no MDX network or these are another's."
        )
    return data | {"mdx_dim_f_set": bins, "mdx_dim_t_set": frames.bit_length() - 1}


def _onnx_sizes(path: Path) -> tuple[int, int, int]:
    """(channels, frequency bins, frames) of the spectrogram that the network takes."""
    import onnx

    try:
        inputs = onnx.load(str(path), load_external_data=False).graph.input
        sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
        name = inputs[0].name
    except Exception as error:  # protobuf's own errors differ between its versions
        raise TalkingPortraitError(
            f"{path.name} is damaged or no ONNX file ({type(error).__name__}); download it again."
        ) from None
    if name != "input" or len(sizes) != 4 or sizes[3] < 2 or sizes[3] & (sizes[3] - 1):
        raise TalkingPortraitError(
            f"{path.name} takes {name} of the sizes {sizes}, but a spectrogram of 4 channels, bins and 2^n frames is "
            "expected; it is no MDX network for separating voices."
        )
    return sizes[1], sizes[2], sizes[3]


def _listed(path: Path) -> dict[str, Any] | None:
    """Parameters from lists by checksum: those in the model's folder, and the one inside audio-separator."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - HASHED_BYTES, 0))
        key = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    lists: list[Mapping[str, Any]] = [read_json(p) for name in DATA_LISTS if (p := path.parent / name).is_file()]
    inside = resources.files("audio_separator").joinpath("model-data.json")
    if inside.is_file():
        lists.append(json.loads(inside.read_text(encoding="utf-8")).get("mdx_model_data", {}))
    return next((dict(entries[key]) for entries in lists if key in entries), None)


def _mdxc_data(path: Path) -> dict[str, Any]:
    """The configuration of an MDX23C or Roformer from the YAML beside it."""
    import yaml

    names = [f"{path.stem}.yaml", f"{path.stem}_config.yaml", f"config_{path.stem}.yaml", *_config_names(path.name)]
    file = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    if file is None:
        raise TalkingPortraitError(
            f"The configuration of {path.name} is missing; put its YAML beside it as {names[0]}."
        )

    class Loader(yaml.SafeLoader):
        """Plain data and tuples, which these files use; no other tag, and nothing that is repeated by its name.

        A few lines of names in names can stand for billions of values.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias")
            return super().compose_node(parent, index)

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda self, node: tuple(self.construct_sequence(node)))
    try:
        large = file.stat().st_size > LARGEST_YAML
        data = None if large else yaml.load(file.read_text(encoding="utf-8"), Loader=Loader)
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError):
        data = None
    if not isinstance(data, dict) or not {"audio", "model", "training", "inference"} <= data.keys():
        raise TalkingPortraitError(
            f"{file.name} is no configuration of a voice separator, which has the parts audio, model, training and "
            "inference; download it again."
        )
    if "roformer" in file.name.lower():
        data["is_roformer"] = True
    return data


def _config_names(model: str) -> list[str]:
    """Names of a model's configuration in audio-separator's own list."""
    inside = resources.files("audio_separator").joinpath("models.json")
    if not inside.is_file():
        return []
    groups = json.loads(inside.read_text(encoding="utf-8")).values()
    entries = [entry for group in groups for entry in group.values() if isinstance(entry, dict)]
    return [entry[model] for entry in entries if model in entry]
