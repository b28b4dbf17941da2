"""ComfyUI's own nodes for files, as far as workflows of this pack use them, for runs without ComfyUI.

Ids, inputs and outputs are those of ComfyUI, so that the same JSON runs in both; what they do is our own.
Inside ComfyUI they are not registered.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ...pipelines.audio.waveform import check_audio
from ...pipelines.errors import TalkingPortraitError, escaped, quoted, reason_of
from ...pipelines.files.images import to_uint8, write_image
from ...pipelines.files.input_paths import existing_file
from ...pipelines.files.output_paths import MAX_NAME_BYTES, NewFile, folder_for_results, new_file, shortened
from ...pipelines.files.sound import NoSoundError, read_audio, write_wav
from ...pipelines.files.video import VideoWriter, open_video
from ...pipelines.provenance.marking import Marking, new_marking
from ...pipelines.timing import as_rate, frame_end
from ...pipelines.types import Audio
from ...pipelines.workflow.formats import file_reference
from ...pipelines.workflow.name_patterns import filled_by_server
from ...pipelines.workflow.result_names import check_inside
from .. import host
from ..checked_node import checked_node, described
from ..inputs import colours, images_socket
from ..model_paths import chosen_model, files_verdict, verdict
from . import node_api as io
from .picture_file import read_pictures

CATEGORY = "files"
VAE, CLIP_VISION = "sd_vae_ft_mse", "sd_image_variations_encoder"
"""What the table of models calls the usual files of the two loaders."""
MAX_VIDEO_BYTES = 12_000_000_000
"""What the frames of one loaded video may take in memory."""
PREVIEWS = "preview"
"""The folder of previews inside the output folder; in ComfyUI they go to a folder of their own, "temp"."""


def input_file(name: str) -> Path:
    """A file that a loader names: one that the user named for this run, or one inside the input folder.

    As in ComfyUI, "x.png [output]" is looked for among the results and "x.png [temp]" among the previews.
    Raises TalkingPortraitError where there is none, and for folders, pipes, links to nothing and the like.
    """
    session = io.session()
    if name in session.files:
        return session.files[name]
    kind, inside = file_reference(name)
    output = session.output_folder
    folder = {"input": session.input_folder, "output": output, "temp": output / PREVIEWS}[kind]
    path = folder / inside
    if name and os.path.lexists(path):
        return existing_file(path, kind)
    raise TalkingPortraitError(
        f"{quoted(name)} is not in the {kind} folder {folder}; put it there or name another file with --set."
    )


@contextmanager
def output_file(prefix: str, ending: str, width: int = 0, height: int = 0) -> Iterator[NewFile]:
    """A file with the next free number inside the output folder, which is made where it is missing.

    Patterns in the prefix such as %year% and %width% are filled in, as in ComfyUI.
    Leaving the block by an exception takes the file and the folders away again that were made for it.
    """
    root = io.session().output_folder.resolve()
    plain = _plain_name(filled_by_server(prefix, width, height, datetime.now()))
    folder = root / plain.parent
    check_inside(folder, root)
    try:
        with folder_for_results(folder), new_file(folder / f"{plain.name}_00001_{ending}") as file:
            yield file
    except OSError as error:
        raise TalkingPortraitError(
            f"Nothing can be put into the folder {folder} ({reason_of(error)}); check that it is there and has "
            "room, or name another with --out."
        ) from None


def _plain_name(prefix: str) -> PurePosixPath:
    """Folder and start of a file's name inside the output folder. Raises for what leads out of it or is no name."""
    plain = PurePosixPath(prefix.replace("\\", "/"))
    drive = re.match(r"[A-Za-z]:", prefix)
    if plain.is_absolute() or ".." in plain.parts or drive or not plain.name:
        raise TalkingPortraitError(
            f"The name {quoted(prefix)} leads out of the output folder, but a plain name is expected, as in video/talk."
        )
    if not all(map(_can_be_a_name, plain.parts)):
        raise TalkingPortraitError(
            f"The name {quoted(prefix)} is one that no file can have; give a short one, as in video/talk."
        )
    return plain


class Saver(io.ComfyNode):
    """A node that writes files; a name that can't be written to is refused before the work begins."""

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return verdict(_plain_name, filename_prefix)


def _can_be_a_name(part: str) -> bool:
    if escaped(part) != part or "\n" in part or (os.name == "nt" and re.search(r'[<>:"|?*]', part)):
        return False
    try:
        return len(os.fsencode(part)) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def _shown(kind: str, paths: list[Path]) -> dict[str, Any]:
    """Written files as ComfyUI's history lists them."""
    root = io.session().output_folder.resolve()
    return {
        kind: [
            {"filename": path.name, "subfolder": path.parent.relative_to(root).as_posix(), "type": "output"}
            for path in paths
        ]
    }


@dataclass(frozen=True)
class VideoPayload:
    """VIDEO outside ComfyUI: frames (F, H, W, 3) in 0..1 with their rate and sound, or a file that holds them."""

    images: torch.Tensor | None = None
    audio: Audio | None = None
    fps: Fraction = Fraction(25)
    path: Path | None = None
    encoded: bool = False
    """Whether the file is one of this pack's own encoder, an MP4 as Save Video writes it."""

    def components(self) -> tuple[torch.Tensor, Audio | None, Fraction]:
        """Frames, sound and rate in memory."""
        if self.path is None:
            assert self.images is not None
            return self.images, self.audio, self.fps
        video = open_video(self.path)
        height, width = video.size
        frames: list[Any] = []
        for frame in video.frames():
            frames.append(frame)  # as bytes, a quarter of what they become below
            if len(frames) * height * width * 12 > MAX_VIDEO_BYTES:
                raise TalkingPortraitError(
                    f"The frames of {self.path.name} need more than {MAX_VIDEO_BYTES // 10**9} GB of memory; "
                    "give a shorter or smaller video."
                )
        images = torch.empty(len(frames), height, width, 3)
        for index, frame in enumerate(frames):
            images[index] = torch.tensor(frame).float().div_(255)
        try:
            audio = read_audio(self.path)
        except NoSoundError:
            audio = None
        return images, audio, video.fps

    def get_stream_source(self) -> str | None:
        """The file's path, as ComfyUI's VIDEO has it; None for frames in memory."""
        return None if self.path is None else str(self.path)

    def save_to(self, path: str | Path) -> None:
        """Encodes it as an MP4 file."""
        self.encode(path, *self.components())

    def encode(
        self,
        path: str | Path,
        images: torch.Tensor,
        audio: Audio | None,
        fps: Fraction,
        marking: Marking | None = None,
    ) -> None:
        """`save_to` of its `components`, with the marking of a video that AI made."""
        if audio is not None and self.path is None:  # ComfyUI ends sound with the last frame, but keeps a file's own
            audio = Audio(audio.waveform[:, : frame_end(len(images), audio.sample_rate, fps)], audio.sample_rate)
        progress = io.session().progress
        with VideoWriter(path, (images.shape[1], images.shape[2]), fps, audio, marking=marking) as writer:
            for index, frame in enumerate(images):
                writer.write(to_uint8(colours(frame)))
                progress(index + 1, len(images))


def video_socket(video: Any) -> VideoPayload:
    """VIDEO. Raises TalkingPortraitError for another object."""
    if not isinstance(video, VideoPayload):
        raise TalkingPortraitError(
            f'The input "video" is {described(video)}, but a video is expected; connect Load Video or Create Video.'
        )
    return video


class LoadImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "LoadImage",
            "Load Image",
            CATEGORY,
            inputs=[io.Combo.Input("image", options=[], upload=io.UploadType.image, tooltip="A picture file.")],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def validate_inputs(cls, image: str | None = None) -> bool | str:
        return verdict(input_file, image)

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        return io.NodeOutput(*read_pictures(input_file(image)))


class LoadAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "LoadAudio",
            "Load Audio",
            CATEGORY,
            inputs=[io.Combo.Input("audio", options=[], upload=io.UploadType.audio, tooltip="A sound or video file.")],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def validate_inputs(cls, audio: str | None = None) -> bool | str:
        return verdict(input_file, audio)

    @classmethod
    def execute(cls, audio: str) -> io.NodeOutput:
        sound = read_audio(input_file(audio))
        return io.NodeOutput({"waveform": sound.waveform[None], "sample_rate": sound.sample_rate})


class LoadVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "LoadVideo",
            "Load Video",
            CATEGORY,
            inputs=[io.Combo.Input("file", options=[], upload=io.UploadType.video, tooltip="A video file.")],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return verdict(input_file, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(VideoPayload(path=input_file(file)))


class GetVideoComponents(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "GetVideoComponents",
            "Get Video Components",
            CATEGORY,
            inputs=[io.Video.Input("video", tooltip="The video to take apart.")],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
                io.Int.Output(display_name="bit_depth"),
                io.Combo.Output(display_name="color_space"),
            ],
        )

    @classmethod
    @checked_node
    def execute(cls, video: Any) -> io.NodeOutput:
        images, audio, fps = video_socket(video).components()
        sound = None if audio is None else {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}
        return io.NodeOutput(images, sound, float(fps), 8, "sRGB")  # which every video here has become


class CreateVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "CreateVideo",
            "Create Video",
            CATEGORY,
            inputs=[
                io.Image.Input("images", tooltip="The frames."),
                io.Float.Input("fps", default=30.0, min=1.0, max=120.0, step=1.0, tooltip="Frames a second."),
                io.Audio.Input("audio", optional=True, tooltip="The sound."),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    @checked_node
    def execute(cls, images: Any, fps: float, audio: Any = None) -> io.NodeOutput:
        sound = None if audio is None else check_audio(audio)
        return io.NodeOutput(VideoPayload(images_socket(images), sound, as_rate(fps)))


class SaveVideo(Saver):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "SaveVideo",
            "Save Video",
            CATEGORY,
            inputs=[
                io.Video.Input("video", tooltip="The video to save."),
                io.String.Input("filename_prefix", default="video/ComfyUI", tooltip="Folder and start of the name."),
                io.Combo.Input("format", options=["auto", "mp4"], default="auto", tooltip="The kind of file."),
                # Newer versions of ComfyUI have it within the format, and leave it out of their prompts.
                io.Combo.Input(
                    "codec", options=["auto", "h264"], default="auto", optional=True, tooltip="How it is compressed."
                ),
            ],
            outputs=[io.Video.Output()],
            is_output_node=True,
        )

    @classmethod
    @checked_node
    def execute(cls, video: Any, filename_prefix: str, format: str, codec: str = "auto") -> io.NodeOutput:
        video = video_socket(video)
        if video.path is not None and video.encoded:
            with output_file(filename_prefix, ".mp4") as file:
                _copy(video.path, file.partial)
            return io.NodeOutput(video, ui=_shown("images", [file.path]))
        images, audio, fps = video.components()
        with output_file(filename_prefix, ".mp4", images.shape[2], images.shape[1]) as file:
            # Frames of a graph are marked, a file that was loaded is written again as it is.
            video.encode(file.partial, images, audio, fps, new_marking() if video.path is None else None)
        return io.NodeOutput(video, ui=_shown("images", [file.path]))


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise TalkingPortraitError(
            f"The video {target.name} can't be written ({reason_of(error)}); free some space in "
            f"{shortened(target.parent)} and try again."
        ) from None


class SaveImage(Saver):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "SaveImage",
            "Save Image",
            CATEGORY,
            inputs=[
                io.Image.Input("images", tooltip="The pictures to save."),
                io.String.Input("filename_prefix", default="ComfyUI", tooltip="Folder and start of the name."),
            ],
            outputs=[io.Image.Output()],
            is_output_node=True,
        )

    @classmethod
    @checked_node
    def execute(cls, images: Any, filename_prefix: str) -> io.NodeOutput:
        return io.NodeOutput(images, ui=_shown("images", _save_images(images_socket(images), filename_prefix)))


class PreviewImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "PreviewImage",
            "Preview Image",
            CATEGORY,
            inputs=[io.Image.Input("images", tooltip="The pictures to look at.")],
            outputs=[io.Image.Output()],
            is_output_node=True,
        )

    @classmethod
    @checked_node
    def execute(cls, images: Any) -> io.NodeOutput:
        return io.NodeOutput(images, ui=_shown("images", _save_images(images_socket(images), f"{PREVIEWS}/image")))


def _save_images(images: torch.Tensor, prefix: str) -> list[Path]:
    paths = []
    for image in images:
        with output_file(prefix, ".png", image.shape[1], image.shape[0]) as file:
            write_image(file.partial, colours(image) if image.shape[-1] == 1 else image)
        paths.append(file.path)
    return paths


class SaveAudio(Saver):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "SaveAudio",
            "Save Audio (FLAC)",
            CATEGORY,
            inputs=[
                io.Audio.Input("audio", tooltip="The sound to save."),
                io.String.Input("filename_prefix", default="audio/ComfyUI", tooltip="Folder and start of the name."),
            ],
            outputs=[io.Audio.Output()],
            is_output_node=True,
            description="Outside ComfyUI the sound is saved as WAV.",
        )

    @classmethod
    @checked_node
    def execute(cls, audio: Any, filename_prefix: str) -> io.NodeOutput:
        return io.NodeOutput(audio, ui=_shown("audio", [_save_audio(audio, filename_prefix)]))


class PreviewAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "PreviewAudio",
            "Preview Audio",
            CATEGORY,
            inputs=[io.Audio.Input("audio", tooltip="The sound to listen to.")],
            outputs=[io.Audio.Output()],
            is_output_node=True,
        )

    @classmethod
    @checked_node
    def execute(cls, audio: Any) -> io.NodeOutput:
        return io.NodeOutput(audio, ui=_shown("audio", [_save_audio(audio, f"{PREVIEWS}/audio")]))


def _save_audio(audio: Any, prefix: str) -> Path:
    sound = check_audio(audio)
    with output_file(prefix, ".wav") as file:
        write_wav(file.partial, sound)
    return file.path


class VAELoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names("vae")
        return io.Schema(
            "VAELoader",
            "Load VAE",
            "loaders",
            inputs=[io.Combo.Input("vae_name", options=files or ["sd-vae-ft-mse.safetensors"], tooltip="A VAE file.")],
            outputs=[io.Vae.Output()],
            description="Outside ComfyUI only VAEs of Stable Diffusion 1.x are supported.",
        )

    @classmethod
    def validate_inputs(cls, vae_name: str | None = None) -> bool | str:
        return files_verdict("vae", {VAE: vae_name})

    @classmethod
    @checked_node
    def execute(cls, vae_name: str) -> io.NodeOutput:
        from ...models.diffusion.vae import load_vae
        from ...pipelines.diffusion.vae import LoadedVae

        network = load_vae(chosen_model("vae", vae_name, VAE))
        return io.NodeOutput(LoadedVae(host.ManagedModule(network)))


class CLIPVisionLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = host.model_names("clip_vision") or ["sd-image-variations-image-encoder.bin"]
        return io.Schema(
            "CLIPVisionLoader",
            "Load CLIP Vision",
            "loaders",
            inputs=[io.Combo.Input("clip_name", options=files, tooltip="A file of CLIP's image encoder.")],
            outputs=[io.ClipVision.Output()],
        )

    @classmethod
    def validate_inputs(cls, clip_name: str | None = None) -> bool | str:
        return files_verdict("clip_vision", {CLIP_VISION: clip_name})

    @classmethod
    @checked_node
    def execute(cls, clip_name: str) -> io.NodeOutput:
        from ...models.diffusion.clip_vision import load_clip_vision
        from ...pipelines.aniportrait.clip_encoder import LoadedClipVision

        network = load_clip_vision(chosen_model("clip_vision", clip_name, CLIP_VISION))
        return io.NodeOutput(LoadedClipVision(host.ManagedModule(network)))


class ImageBatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            "ImageBatch",
            "Batch Images",
            "image",
            inputs=[
                io.Image.Input("image1", tooltip="The first pictures."),
                io.Image.Input("image2", tooltip="Those that follow, of the same size."),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    @checked_node
    def execute(cls, image1: Any, image2: Any) -> io.NodeOutput:
        first, second = images_socket(image1, "image1"), images_socket(image2, "image2")
        if first.shape[1:] != second.shape[1:]:
            raise TalkingPortraitError(
                f"Pictures of the shape {tuple(second.shape[1:])} are to follow pictures of {tuple(first.shape[1:])}, "
                "but the same height, width and colours are expected."
            )
        return io.NodeOutput(torch.cat([first, second]))


STAND_INS: dict[str, type[io.ComfyNode]] = {
    node.__name__: node
    for node in (
        LoadImage,
        LoadAudio,
        LoadVideo,
        GetVideoComponents,
        CreateVideo,
        SaveVideo,
        SaveImage,
        PreviewImage,
        SaveAudio,
        PreviewAudio,
        VAELoader,
        CLIPVisionLoader,
        ImageBatch,
    )
}
