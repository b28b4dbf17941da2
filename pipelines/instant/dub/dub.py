from __future__ import annotations
import numpy as np
from .filmed_face import FilmedFace
from .lower_face import draw_mouth
from .mouth_motion import mouth_motions
from .mouth_view import MouthView, skin_light


def view_of(face, number, frame, motion):
    return MouthView.of(frame, mouth_motions(face, np.array([number]), motion, np.array([0]), 1.0)[0])


def dub(face, frames, numbers, motion, inside):
    light = None
    for k, (frame, number) in enumerate(zip(frames, numbers)):
        m = mouth_motions(face, np.array([number]), motion, np.array([k]), 1.0)[0]
        now = skin_light(frame, m.points)
        light = now if light is None else light + 0.15 * (now - light)
        colours, changed, box = draw_mouth(frame, m, inside, light)
        out = frame.copy()
        amount = face.amount[number] * changed[..., None]
        here = out[box].astype(np.float32)
        mixed = here + amount * (colours - here)
        out[box] = np.where(amount > 0, np.rint(mixed).clip(0, 255), here).astype(np.uint8)
        yield out, m.opening, inside.split
