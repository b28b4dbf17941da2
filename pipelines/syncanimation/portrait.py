"""The generated face put into the frames of the person's video, with a soft mask around the face."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import torch

from ..face.paste import paste_frame
from ..files.images import from_uint8, to_uint8
from ..image.affine_sampling import sample_picture
from ..person.head_frames import forwards_and_backwards, longest_stretch, open_head_video, read_frames
from ..person.person import Person
from .avatar import face_mask
from .person_model import PersonModel


class Portrait:
    """The video's frames, one after the other: `crops` for the renderer, and `paste` of what it made of each.

    `numbers` (F,) are those of the frames: the longest stretch with a usable face, forwards and backwards as often as
    it takes. Raises TalkingPortraitError for another person's folder, a video of another size or with fewer frames.
    """

    def __init__(self, model: PersonModel, head: Person | str | Path, frames: int) -> None:
        if isinstance(head, Person):
            model.video.check_person(head)
        video = open_head_video(head.source if isinstance(head, Person) else head, model.video.size, model.video.fps)
        if not isinstance(head, Person):
            model.video.check_file(video.path)
        start, stop = longest_stretch(model.video.usable, model.video.shots, model.video.fps)
        self.numbers = start + forwards_and_backwards(stop - start, frames)
        self._frames = read_frames(video, self.numbers)
        self._map = model.video.box.map(model.size)
        self._size, self._oval = model.size, model.labels.oval
        self._waiting: deque[tuple[int, torch.Tensor]] = deque()
        """Numbers and pictures (H, W, 3) of frames whose face is being made."""

    def crops(self) -> Iterator[torch.Tensor]:
        """The part (S, S, 3) of each frame that is generated, in 0..1."""
        for number, pixels in zip(self.numbers, self._frames, strict=True):
            frame = from_uint8(pixels)
            self._waiting.append((int(number), frame))
            yield sample_picture(frame, self._map, (self._size, self._size)).clamp(0, 1)

    def paste(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The next frame (H, W, 3) uint8 with the face of an image (S, S, 3), and where it was put (H, W) in 0..1.

        Where that is 0 every byte is that of the video.
        """
        number, frame = self._waiting.popleft()
        mask = torch.from_numpy(face_mask(self._oval[number].numpy(), self._size))
        pasted, _ = paste_frame(image, frame, self._map, feather=0.0, mask=mask)
        weight, _ = paste_frame(torch.ones_like(image), torch.zeros_like(frame), self._map, feather=0.0, mask=mask)
        return torch.from_numpy(to_uint8(pasted)), weight[..., 0]
