"""AudioDVP from end to end: the person of a head video speaks other words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...models.audiodvp.neural_renderer import NeuralRenderer
from ..audio.waveform import check_audio
from ..errors import TalkingPortraitError
from ..files.images import to_uint8
from ..memory import HalvingBatches, Managed, Resident, loaded
from ..person.head_frames import forwards_and_backwards, longest_stretch, open_head_video, read_frames
from ..person.person import Person, open_person
from ..person.speech import MFCC, Encoder, speech_features
from ..types import Audio, Progress, no_progress
from .expression import network_features, predict_expression
from .paste import blend_weights, paste_lower_face
from .person_model import PersonModel, open_model
from .renders import HALF_WINDOW, RenderWindows, cut, draw_lower_faces
from .silence import closed_in_silence

__all__ = ["animate", "frames_of", "open_model", "open_person"]

BYTES_PER_FRAME = 256 * 256 * 4 * 700
"""Of the neural renderer's work on one frame of 256 x 256 pixels at the published size, about."""
PREVIEW_SIDE = 512
_SHORTEST = 0.1
"""Seconds of sound that speech features need; shorter sound is followed by silence."""


def animate(
    model: PersonModel,
    audio: Audio,
    head: Person | str | Path,
    *,
    renderer: Managed | None = None,
    encoder: Encoder | None = None,
    offset: int = 0,
    batch: int = 1,
    progress: Progress = no_progress,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Whole frames (1, H, W, 3) uint8 and masks (1, H, W) in 0..1, at the head video's rate, as long as the speech.

    The head is that of the video's longest stretch with a usable face, forwards and backwards as often as the speech
    lasts; where the mask is 0 every byte is that of the video. Nothing is held but the frames at hand.

    Args:
        head: the prepared person, or the video file that it was prepared from.
        renderer: the model's neural renderer where a host decides its place in memory; by default on the CPU.
        encoder: the speech encoder that the person was prepared with, where it was one.
        offset: the frame of the stretch to begin with.
        batch: frames that are generated at once; halved when memory runs out.
        progress: called after each frame.

    Raises TalkingPortraitError for audio that is none, features of another kind than the model was trained on, another
    person, and a head video that is not the file which the person was prepared from.
    """
    audio = check_audio(audio)
    if offset < 0:
        raise TalkingPortraitError(f"The first frame is {offset}, but 0 or more is expected.")
    if isinstance(head, Person):
        model.video.check_person(head)
    expression = _expression(model, audio, encoder)
    video = open_head_video(head.source if isinstance(head, Person) else head, model.video.size, model.video.fps)
    if not isinstance(head, Person):
        model.video.check_file(video.path)
    start, stop = longest_stretch(model.video.usable, model.video.shots, model.video.fps)
    numbers = start + forwards_and_backwards(stop - start, len(expression), offset)
    faces = _generated(model, numbers, expression, renderer or Resident(model.renderer), batch)
    thinned = max(1, max(video.size) // PREVIEW_SIDE)
    total = len(numbers)
    for done, (frame, (face, mask, old_chin)) in enumerate(zip(read_frames(video, numbers), faces, strict=True), 1):
        weights = blend_weights(mask, model.video.box, video.size, old_chin)
        pasted, whole = paste_lower_face(frame, face, weights, model.video.box)
        shown = torch.from_numpy(pasted)
        yield shown[None], torch.from_numpy(whole)[None]
        progress(done, total, shown[::thinned, ::thinned] / 255)


def frames_of(model: PersonModel, audio: Audio, head: Person | str | Path, **options: object) -> Iterator[torch.Tensor]:
    """The same frames (1, H, W, 3) as bytes, without their masks, for a video file."""
    for frames, _ in animate(model, audio, head, **options):  # type: ignore[arg-type]
        yield frames


def _expression(model: PersonModel, audio: Audio, encoder: Encoder | None) -> torch.Tensor:
    """(F, K) of the speech, a row for each frame."""
    fps = model.video.fps
    own = model.mouth_encoder or (MFCC if model.speech == MFCC else None)
    if encoder is None and own is None:
        raise TalkingPortraitError(
            f"The model was trained on speech features of {model.speech}, which needs that speech encoder; load it too."
        )
    frames = model.frames_for(audio)
    silence = max(0, round(_SHORTEST * audio.sample_rate) - audio.samples)
    padded = Audio(torch.nn.functional.pad(audio.waveform, (0, silence)), audio.sample_rate)
    features = speech_features(padded, fps, frames, encoder or own)
    rows = network_features(features)
    if features.model != model.speech or rows.shape[1] != model.speech_to_expression.features:
        raise TalkingPortraitError(
            f"The speech features are {rows.shape[1]} channels of {features.model}, but the model was trained on "
            f"{model.speech_to_expression.features} of {model.speech}; load the speech encoder that the person was "
            "prepared with, or none where it was none."
        )
    return closed_in_silence(predict_expression(model.speech_to_expression, rows), audio, model.face, fps)


@torch.no_grad()
def _generated(
    model: PersonModel, numbers: np.ndarray, expression: torch.Tensor, renderer: Managed, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each frame the generated face (S, S, 3) uint8 and masks (S, S) uint8 of the lower face and the old chin."""
    total, face = len(numbers), model.face
    memory = batch * BYTES_PER_FRAME * face.crop_size**2 // 256**2

    def draw(places: Sequence[int]) -> np.ndarray:
        return draw_lower_faces(face, numbers[list(places)].tolist(), model.part, expression[list(places)])

    windows = RenderWindows(draw, held=batch + 2 * HALF_WINDOW)

    def generate(start: int, end: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        nonlocal face
        network, device = loaded(renderer, NeuralRenderer, memory)
        if face.expression.device != device:
            face = face.to(device)
        places = list(range(start, end))
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            images = network(windows.windows(places, 0, total).to(device))
        faces = np.zeros((end - start, face.crop_size, face.crop_size, 3), np.uint8)
        masks = np.zeros(faces.shape[:3], np.uint8)
        cut(faces, model.part)[...] = to_uint8(images.float().movedim(1, -1) / 2 + 0.5)
        cut(masks, model.part)[...] = cut(face.masks(numbers[start:end].tolist()), model.part)
        chins = face.old_chins(numbers[start:end].tolist(), expression[start:end])
        return list(zip(faces, masks, chins, strict=True))

    for generated in HalvingBatches(batch, "frame").each(total, generate):
        yield from generated
