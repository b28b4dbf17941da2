"""The only module that imports ComfyUI: node API, progress and cancelling, devices and memory, model folders.

No other file of the pack imports `comfy*`, `folder_paths` or `server`. Outside ComfyUI the stand-ins of
`standalone/node_api.py` take their place, and the same nodes run from the command line and in tests.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Collection
from contextlib import ExitStack
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch

from ..pipelines.errors import TalkingPortraitError, quoted, reason_of
from ..pipelines.files import scratch
from ..pipelines.files.output_paths import new_file
from ..pipelines.model_files.model_file import OWN_CATEGORY as OWN_CATEGORY
from ..pipelines.types import Audio, Progress
from .standalone import node_api as standalone

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    # The stand-ins have the types of what nodes use of ComfyUI's own.
    from .standalone import node_api as io
    from .standalone.node_api import ComfyExtension

try:
    import folder_paths

    if not TYPE_CHECKING:
        from comfy_api.latest import ComfyExtension, io
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("folder_paths", "comfy_api"):
        raise
    if "folder_paths" in sys.modules:
        raise ImportError("Talking Portrait needs ComfyUI 0.3.64 or newer; update ComfyUI.") from missing
    if not TYPE_CHECKING:
        io, ComfyExtension = standalone, standalone.ComfyExtension
    IN_COMFYUI = False
else:
    IN_COMFYUI = True

_log = logging.getLogger(__name__)
MODEL_ENDINGS = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin", ".onnx", ".task", ".tflite", ".npy", ".pkl")
KEEPS_PICTURES = any(field.name == "has_intermediate_output" for field in dataclasses.fields(io.Schema))
"""Whether this host shows a node's pictures until the node runs again; older ones show them once, if at all."""
PREVIEW_SIDE = 512
PREVIEW_SECONDS = 0.25
"""Shortest time between two previews, so that encoding them never slows a node down."""


# ---- schemas of nodes


def schema(**fields: Any) -> io.Schema:
    """`io.Schema` of the fields that this host's Schema has; newer optional ones are left out on an older host."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


def shown(*pictures: torch.Tensor) -> Any:
    """The `ui` of a NodeOutput whose node shows these pictures (H, W, 3); its schema has `has_intermediate_output`."""
    if not KEEPS_PICTURES:
        return None
    from comfy_api.latest import ui

    try:
        return ui.PreviewImage([picture.detach().to("cpu", torch.float32) for picture in pictures])
    except OSError as error:  # its results do not need the picture
        _log.warning(
            "Talking Portrait: A node's picture can't be shown, as ComfyUI's temporary folder can't be written to "
            "(%s); check the folder and its free space.",
            reason_of(error),
        )
        return None


def advanced(entry: io.Input) -> io.Input:
    """Marks an input as a rare one: the front end may fold it away, and an API client may leave it out.

    Older hosts have no argument for the former.
    """
    entry.optional = True
    entry.extra_dict["advanced"] = True
    return entry


def are_linked(node: Any, outputs: Collection[int]) -> bool | None:
    """Whether any of these outputs of a running node leads somewhere, or None where that is not known.

    `node` is the class of `execute` or `fingerprint_inputs`, whose schema lists `Hidden.prompt` and `Hidden.unique_id`.
    """
    hidden = node.hidden
    prompt, own_id = hidden.prompt or _running_prompt(), hidden.unique_id or _running_node()
    if not prompt or own_id is None:
        return None
    if own_id not in prompt:  # a node that another one put into the graph, whose links are not in the prompt
        return True
    values = (value for entry in prompt.values() for value in entry["inputs"].values())
    return any(isinstance(value, list) and value[:1] == [own_id] and value[1] in outputs for value in values)


def _running_prompt() -> dict[str, Any]:
    """What ComfyUI is running now; it is not among the hidden inputs of `fingerprint_inputs`. Empty where not known."""
    if not IN_COMFYUI:
        return {}
    try:
        from server import PromptServer

        running = list(PromptServer.instance.prompt_queue.currently_running.values())
    except (ImportError, AttributeError):  # a host that runs prompts without a server
        return {}
    return running[0][2] if len(running) == 1 else {}


def _running_node() -> str | None:
    """The id of the node at work; ComfyUI's older versions give `fingerprint_inputs` no hidden inputs at all."""
    if not IN_COMFYUI:
        return None
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return context.node_id if context else None


# ---- progress and cancelling


def progress() -> Progress:
    """A callback that shows progress and pictures on the running node and raises when the user has cancelled."""
    return _ComfyProgress() if IN_COMFYUI else standalone.session().progress


def check_interrupted() -> None:
    """Raises the host's exception when the user has cancelled; without ComfyUI that is Python's own interruption."""
    if IN_COMFYUI:
        from comfy.model_management import throw_exception_if_processing_interrupted

        throw_exception_if_processing_interrupted()


class _ComfyProgress:
    """The bar and the picture on the node. No text (`send_progress_text`): the front end saves it among the node's
    widget values, where a widget that a later version appends would take it for its own."""

    def __init__(self) -> None:
        from comfy.utils import ProgressBar

        self.bar = ProgressBar(1)
        self.next_preview = 0.0

    def __call__(self, done: int, total: int, preview: torch.Tensor | None = None) -> None:
        check_interrupted()
        if not total:  # not known, of which the bar would make 0 of 0
            done, total = 0, 1
        now = time.monotonic()
        shown = None
        if preview is not None and now >= self.next_preview and _fits_preview(preview):
            self.next_preview = now + PREVIEW_SECONDS
            shown = ("JPEG", _picture(preview), PREVIEW_SIDE)
        self.bar.update_absolute(done, total, shown)


def _fits_preview(image: torch.Tensor) -> bool:
    """Whether something is left of both sides of (H, W, 3) at the preview's size; ComfyUI ends where nothing is."""
    return max(image.shape[:2]) <= PREVIEW_SIDE * min(image.shape[:2])


def _picture(image: torch.Tensor) -> Picture:
    """(H, W, 3) in 0..1 in about the preview's size; the host scales it to that."""
    from PIL import Image

    thinned = max(1, max(image.shape[:2]) // PREVIEW_SIDE)
    image = image[::thinned, ::thinned]
    return Image.fromarray((image.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy())


# ---- devices and memory


def torch_device() -> torch.device:
    """Where networks and pictures are to be computed."""
    if IN_COMFYUI:
        from comfy.model_management import get_torch_device

        return get_torch_device()
    return standalone.torch_device()


def fast_dtype() -> torch.dtype:
    """bfloat16 where the device computes in it, else float32."""
    device = torch_device()
    if IN_COMFYUI:
        from comfy.model_management import should_use_bf16

        return torch.bfloat16 if should_use_bf16(device) else torch.float32
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def handles_out_of_memory(error: BaseException) -> bool:
    """Whether this error has to reach the host unchanged, to unload its networks and to advise the user itself."""
    if not IN_COMFYUI:
        return False
    from comfy import model_management

    is_oom = getattr(model_management, "is_oom", None)  # newer than the oldest version that the pack runs in
    return bool(is_oom(error)) if is_oom else isinstance(error, torch.OutOfMemoryError)


def unload_networks() -> None:
    """Makes room on the device for work that the host does not manage, such as training."""
    if IN_COMFYUI:
        from comfy.model_management import soft_empty_cache, unload_all_models

        unload_all_models()
        soft_empty_cache()


def free_memory() -> int | None:
    """Bytes that an IMAGE may still take where nodes keep pictures, or None where that is not known."""
    if IN_COMFYUI:
        from comfy import model_management

        return int(model_management.get_free_memory(model_management.intermediate_device()))
    return standalone.free_memory()


def to_socket(tensor: torch.Tensor) -> torch.Tensor:
    """An IMAGE or MASK on the device and in the precision in which nodes hand pictures to each other."""
    if not IN_COMFYUI:
        return tensor.to("cpu", torch.float32)
    from comfy import model_management

    dtype = getattr(model_management, "intermediate_dtype", lambda: torch.float32)()
    return tensor.to(model_management.intermediate_device(), dtype)


class ManagedModule:
    """A network whose place in memory the host decides: it is loaded for each use and may be moved out between."""

    def __init__(self, module: torch.nn.Module | Callable[[], torch.nn.Module], patcher: Any = None) -> None:
        """`module` may be what reads the network, which is then called when it is first needed.

        `patcher` is the host's own, for a network that the host has loaded.
        """
        self._module, self._hosts_patcher = module, patcher

    @cached_property
    def module(self) -> torch.nn.Module:
        return self._module if isinstance(self._module, torch.nn.Module) else self._module()

    @cached_property
    def _patcher(self) -> Any:
        if not IN_COMFYUI or self._hosts_patcher is not None:
            return self._hosts_patcher
        from comfy import model_management
        from comfy.model_patcher import ModelPatcher

        # The patcher writes attributes such as `device`, which transformers' models have as read-only properties.
        return ModelPatcher(
            torch.nn.ModuleList([self.module]),
            load_device=model_management.get_torch_device(),
            offload_device=model_management.text_encoder_offload_device(),
        )

    def load(self, memory: int = 0) -> torch.device:
        """Brings the network, and room for `memory` bytes of work, to the device it is to run on; returns that."""
        device = torch_device()
        if self._patcher is not None:
            from comfy.model_management import load_models_gpu

            load_models_gpu([self._patcher], memory_required=memory)
        # Layers of transformers and diffusers don't cast themselves on the fly, so none may stay behind.
        self.module.to(device)
        return device


# ---- files


def register_model_folders() -> None:
    """Makes ComfyUI list our own model folder, and `detection` where this version does not have it. Creates nothing.

    An extra_model_paths.yaml that names such a category adds folders to that of ComfyUI, where `models get` puts files,
    as it does for ComfyUI's own categories.
    """
    if not IN_COMFYUI:
        return
    known = folder_paths.folder_names_and_paths
    for category in (OWN_CATEGORY, "detection"):
        # Not by add_model_folder_path: it lists every file, and in the hiddenswitch distribution adds a folder more.
        usual = str(Path(folder_paths.models_dir, category))
        if category not in known:
            known[category] = ([usual], set(MODEL_ENDINGS))
        paths, endings = known[category]
        more = MODEL_ENDINGS if category == OWN_CATEGORY else ()
        if not isinstance(endings, set):  # that distribution hands out views, which an assignment empties
            endings.update(more)
        elif more or usual not in paths:  # others may use the set too
            known[category] = (paths if usual in paths else [usual, *paths], {*endings, *more})


def warn_of_another_copy(node_id: str) -> None:
    """Logs a sentence where another folder of this pack has already given ComfyUI the node `node_id`."""
    loaded = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {}).get(node_id) if IN_COMFYUI else None
    file = getattr(sys.modules.get(getattr(loaded, "__module__", "")), "__file__", None)
    own = Path(__file__).parents[1]
    if file is not None and own not in Path(file).parents:
        _log.warning(
            "Talking Portrait is installed twice: the nodes of %s are taken, and those of %s are not; remove one of "
            "these folders.",
            own,
            Path(file).parents[2],
        )


def model_folders(*categories: str) -> list[Path]:
    """The folders, most important first, in which model files of these categories may lie."""
    if IN_COMFYUI:
        known = folder_paths.folder_names_and_paths
        return [Path(folder) for category in categories if category in known for folder in known[category][0]]
    from ..pipelines.model_files.store import default_folders

    return [folder for category in categories for folder in default_folders(category)]


def temporary_folder() -> Path | None:
    """Where files may lie for as long as a node runs, or None for the system's own place for such files."""
    if not IN_COMFYUI:
        return None
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def output_folder() -> Path:
    """Where results go."""
    return Path(folder_paths.get_output_directory()) if IN_COMFYUI else standalone.session().output_folder


FILE_READERS = (
    *("get_components", "get_dimensions", "get_duration", "get_frame_count", "get_frame_rate", "get_container_format"),
    *("get_bit_depth", "get_color_space", "save_to"),
)
"""What a VideoFromFile, of newer hosts in part, opens its file for without `get_stream_source`."""


def _after_stream_source(method: Callable[..., Any]) -> Callable[..., Any]:
    def checked(video: Any, *args: Any, **options: Any) -> Any:
        video.get_stream_source()
        return method(video, *args, **options)

    return checked


def encoded_video(write: Callable[[Path], object]) -> Any:
    """VIDEO in a temporary file, which `write` makes at the path it is given; saving it copies what is encoded."""
    if IN_COMFYUI:
        from comfy_api.latest import InputImpl

        folder = temporary_folder()
        assert folder is not None
        with new_file(folder / "talking_portrait_00001_.mp4") as file:  # ComfyUI clears the folder when it starts
            write(file.partial)

        class EncodedVideo(InputImpl.VideoFromFile):
            """Its file lies in a folder that people empty while ComfyUI still keeps this result."""

            def get_stream_source(self) -> Any:
                if not file.path.is_file():
                    raise TalkingPortraitError(
                        f"The temporary video {file.path.name} has been deleted; empty ComfyUI's node cache, or change "
                        "an input of the node that made it, and run again."
                    )
                return super().get_stream_source()

        for name in FILE_READERS:
            if inherited := getattr(InputImpl.VideoFromFile, name, None):
                setattr(EncodedVideo, name, _after_stream_source(inherited))
        return EncodedVideo(str(file.path))
    from .standalone.core_nodes import VideoPayload

    stack = ExitStack()
    own = stack.enter_context(scratch.temporary_folder("talking_portrait"))
    video = VideoPayload(path=own / "video.mp4", encoded=True)
    weakref.finalize(video, stack.close)
    try:
        write(own / "video.mp4")
    except BaseException:
        stack.close()
        raise
    return video


def frames_of(video: Any) -> tuple[Any, Any, Any] | None:
    """Frames, sound and rate of a VIDEO that another node made of frames in memory, as Create Video does, or None."""
    if IN_COMFYUI:
        from comfy_api.latest import InputImpl

        if not isinstance(video, InputImpl.VideoFromComponents):
            return None
        parts = video.get_components()
        return parts.images, parts.audio, parts.frame_rate
    from .standalone.core_nodes import VideoPayload

    return video.components() if isinstance(video, VideoPayload) and video.path is None else None


def video_of_frames(images: torch.Tensor, fps: Fraction, audio: Audio | None, encode: Callable[[], Any]) -> Any:
    """VIDEO of frames (F, H, W, 3) in memory; `encode` makes that of a file from them, once one is needed."""
    if not IN_COMFYUI:
        from .standalone.core_nodes import VideoPayload

        return VideoPayload(images, audio, fps)
    from comfy_api.latest import Input, Types

    sound = None if audio is None else {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}
    components = Types.VideoComponents(images=images, audio=sound, frame_rate=fps)

    class VideoOfFrames(Input.Video):
        """Encoded by this pack, as its other videos are; ComfyUI's own encoder refuses odd sides."""

        file: Any = None

        def encoded(self) -> Any:
            try:
                self.file.get_stream_source()
            except (AttributeError, TalkingPortraitError):  # there is none yet, or none any more
                self.file = encode()
            return self.file

        def get_components(self) -> Any:
            return components

        def get_color_space(self) -> str:
            return "sRGB"

        def get_stream_source(self) -> Any:
            return self.encoded().get_stream_source()

        def save_to(self, *args: Any, **options: Any) -> Any:
            return self.encoded().save_to(*args, **options)

        def as_trimmed(self, *args: Any, **options: Any) -> Any:
            return self.encoded().as_trimmed(*args, **options)

    return VideoOfFrames()


def models_command(arguments: str) -> str:
    """The command line that fetches or checks model files where this host looks for them.

    In ComfyUI the pack is a folder that no `python -m` finds, and a user may have several Pythons, so all is named.
    """
    from ..pipelines.model_files import store as model_files
    from ..pipelines.packages import PACK

    if not IN_COMFYUI:
        return model_files.models_command(arguments)
    return f'"{sys.executable}" "{PACK}" models {arguments} --models "{folder_paths.models_dir}"'


def model_names(
    category: str, endings: tuple[str, ...] = MODEL_ENDINGS, *, folder_files: tuple[str, ...] = ()
) -> list[str]:
    """Names for a file list: the files of a category; one that is named in `folder_files` stands for its folder.

    Never raises, as schemas are built from it for every node that ComfyUI lists.
    """
    try:
        if IN_COMFYUI:
            names = folder_paths.get_filename_list(category)
        else:
            roots = model_folders(category)
            names = [str(path.relative_to(root)) for root in roots for path in root.rglob("*") if path.is_file()]
    except (KeyError, OSError, TalkingPortraitError):  # the last: without ComfyUI, where there is no home folder
        return []
    # With slashes on Windows too, as workflows name them, which come from anywhere.
    files = [
        file for file in (PurePosixPath(name.replace("\\", "/")) for name in names) if file.suffix.lower() in endings
    ]
    return sorted({str(file.parent if file.parent.parts and file.name in folder_files else file) for file in files})


def model_path(categories: tuple[str, ...], name: str) -> Path | None:
    """The file or folder of that name in one of these categories, or None. Raises for a name that leads elsewhere."""
    parts = Path(name.replace("\\", "/") if isinstance(name, str) else "")
    if not parts.name or parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise TalkingPortraitError(
            f"The model name {quoted(name)} leads out of the model folders, but a plain name is expected; pick one "
            "from the list."
        )
    for folder in model_folders(*categories):
        if os.path.exists(folder / parts):  # False, and not an error, for what no file can be called
            return folder / parts
    return None
