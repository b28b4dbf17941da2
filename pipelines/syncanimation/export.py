"""A prepared person as a folder of the layout that the public programs of this kind of avatar train on.

ori_imgs/0.jpg, 0.lms    the frames, and their 68 landmarks as text
gt_imgs/0.jpg            the frames before the clean background, bc.jpg
torso_imgs/0.png         neck and torso, RGBA
parsing/0.png            head blue, neck green, torso red, white elsewhere (the published colours, which are BGR)
parsing/0_face.png       the face blue, soft, before white
aud.wav, bs.npy          speech at 16 kHz, blendshapes (N, 52)
transforms_train.json    camera and poses of the first ten of eleven parts of the frames
transforms_val.json      those of the rest

Frames are numbered from 0 as in the prepared person, and those that are not to be trained on are missing. Speech
features are not among it: each program has its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TalkingPortraitError, reason_of
from ..files.images import write_frame
from ..files.output_paths import folder_for_results
from ..files.scratch import clear_abandoned, interruptions_held, scratch_folder
from ..files.sound import write_wav
from ..person.person import Person
from ..types import Progress, no_progress
from .avatar import BACKGROUND_PART, HEAD_PART, NECK_PART, TORSO_PART, Avatar, open_avatar

TRAINED, PARTS = 10, 11
"""Of so many parts of the frames so many, the first ones, are for training."""
COLOURS = {BACKGROUND_PART: (255, 255, 255), HEAD_PART: (0, 0, 255), NECK_PART: (0, 255, 0), TORSO_PART: (255, 0, 0)}


def export_person(person: Person, folder: str | Path, *, progress: Progress = no_progress) -> int:
    """Writes a person who is prepared for SyncAnimation into a new or empty folder; returns how many frames.

    Nothing is left in it when `progress`, called after each frame, raises to stop. Raises TalkingPortraitError where
    the person is not prepared for SyncAnimation, or the folder holds something or can't be written.
    """
    avatar, folder = open_avatar(person), Path(folder)
    try:
        with folder_for_results(folder):
            clear_abandoned(folder)
            if others := sorted(entry.name for entry in folder.iterdir()):
                raise TalkingPortraitError(
                    f"The folder {folder} holds other files ({others[0]}), so nothing was written to it; give a new or "
                    "an empty folder."
                )
            with scratch_folder(folder, "export") as scratch:
                made = scratch / "export"
                made.mkdir()
                frames = _write(person, avatar, made, progress)
                with interruptions_held():
                    for entry in sorted(made.iterdir()):
                        entry.replace(folder / entry.name)
    except OSError as error:
        raise TalkingPortraitError(
            f"The person can't be exported to {folder} ({reason_of(error)}); give a folder that can be written and has "
            "room."
        ) from None
    return frames


def transforms(avatar: Avatar, frames: np.ndarray) -> dict[str, Any]:
    """Camera and poses of these frames, as `transforms_train.json` holds them.

    The matrices are camera-to-world: a point (X, Y, Z) of the world, which is the head's frame in metres, seen from
    them lies at `focal_len` * (-X', Y') / Z' + (`cx`, `cy`) in pixels.
    """
    return {
        "focal_len": avatar.focal,
        "cx": avatar.cx,
        "cy": avatar.cy,
        "frames": [
            {"img_id": frame, "aud_id": frame, "transform_matrix": avatar.c2w[frame].tolist()}
            for frame in frames.tolist()
        ],
    }


def _write(person: Person, avatar: Avatar, made: Path, progress: Progress) -> int:
    frames = np.flatnonzero(avatar.usable)
    split = len(frames) * TRAINED // PARTS
    for name, chosen in (("train", frames[:split]), ("val", frames[split:])):
        (made / f"transforms_{name}.json").write_text(json.dumps(transforms(avatar, chosen)), encoding="utf-8")
    np.save(made / "bs.npy", avatar.blendshapes.numpy())
    if (speech := person.audio()) is not None:
        write_wav(made / "aud.wav", speech)
    background = avatar.background()
    write_frame(made / "bc.jpg", background)
    for name in ("ori_imgs", "gt_imgs", "torso_imgs", "parsing"):
        (made / name).mkdir()
    colours = np.array([COLOURS[part] for part in sorted(COLOURS)], np.uint8)
    for done, frame in enumerate(frames.tolist(), 1):
        picture, parts = avatar.frames([frame])[0], avatar.parts([frame])[0]
        write_frame(made / "ori_imgs" / f"{frame}.jpg", picture)
        np.savetxt(made / "ori_imgs" / f"{frame}.lms", avatar.landmarks[frame].numpy(), "%f")
        before = np.where((parts == BACKGROUND_PART)[..., None], background, picture)
        write_frame(made / "gt_imgs" / f"{frame}.jpg", before)
        write_frame(made / "torso_imgs" / f"{frame}.png", avatar.torso([frame])[0])
        write_frame(made / "parsing" / f"{frame}.png", colours[parts])
        outside = np.rint(255 * (1 - avatar.face_masks([frame])[0])).astype(np.uint8)
        face = np.stack([outside, outside, np.full_like(outside, 255)], axis=-1)
        write_frame(made / "parsing" / f"{frame}_face.png", face)
        progress(done, len(frames))
    return len(frames)
