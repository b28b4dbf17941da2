"""Who is who: looks of faces, and one person's face through a film."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from talking_portrait.pipelines.face.face import Face
from talking_portrait.pipelines.files.example import example_portrait, example_track
from talking_portrait.pipelines.person.same_person import (
    GAP,
    LOOK_EVERY,
    PersonPicker,
    look_of,
    main_person,
    median_look,
)

SIDE = 256


@cache
def portrait() -> tuple[np.ndarray, np.ndarray]:
    """Bytes (SIDE, SIDE, 3) and landmarks in them."""
    image = (example_portrait()[0][::2, ::2] * 255).byte().numpy()
    return image, example_track().points[0] / [2, 2, 2]


def scene(*people: tuple[str, float, float, float]) -> tuple[np.ndarray, list[Face]]:
    """A frame of people, each a name, a place (x, y) of the portrait's middle, and how many times its size they have.

    Bob is Ann upside down, with the landmarks of an upright, longer face; Cat is Ann with dark glasses.
    """
    frame, faces = np.full((2 * SIDE, 3 * SIDE, 3), 90, np.uint8), []
    for name, x, y, scale in people:
        image, points = portrait()
        if name == "Bob":
            image, points = image[::-1], points * [1, 1.2, 1] - [0, 0.1 * SIDE, 0]
        if name == "Cat":
            image = image.copy()
            top, bottom = points[[223, 230], 1].astype(int)
            image[top:bottom, int(points[127, 0]) : int(points[356, 0])] = 20
        half = round(SIDE * scale / 2)
        steps = (np.arange(2 * half) / scale).astype(int).clip(0, SIDE - 1)
        left, top = round(x) - half, round(y) - half
        frame[top : top + 2 * half, left : left + 2 * half] = image[np.ix_(steps, steps)]
        faces.append(Face(points * scale + [left, top, 0], None, None))
    return frame, faces


def look(name: str, x: float = 384, y: float = 256, scale: float = 1.0, light: np.ndarray | float = 1.0):
    frame, (face,) = scene((name, x, y, scale))
    return look_of(face, (frame * light).astype(np.uint8))


@pytest.mark.parametrize("place", [(384, 256, 1.8), (60, 440, 0.4), (700, 80, 0.5)])
def test_a_face_looks_the_same_in_another_size_place_and_light(place):
    lamp = np.linspace(0.4, 1.0, 3 * SIDE)[:, None] * [1.0, 0.9, 0.7]
    assert look("Ann").difference(look("Ann", *place, light=lamp)) < 0.7
    assert look("Ann").difference(look("Bob", *place, light=lamp)) > 1


def test_faces_of_which_little_is_seen_in_common_are_not_compared():
    frame, (face,) = scene(("Ann", 384, 256, 1.0))
    cut = look_of(Face(face.points - [face.centre[0] + 30, 0, 0], None, None), frame)
    assert look("Ann").difference(cut) is None
    assert not look("Ann").is_like(cut)


def test_the_main_person_is_who_takes_up_most():
    seen = [(look("Bob"), 0.3), (look("Ann"), 0.2), (look("Ann", scale=0.5), 0.2)]
    assert main_person(seen).is_like(look("Ann"))
    assert main_person([]) is None


def followed(frames: list[tuple[np.ndarray, list[Face]]], cuts: tuple[int, ...] = ()) -> list[int | None]:
    """The x of the picked face in each frame, None where it is nobody's or another's."""
    picker = PersonPicker((2 * SIDE, 3 * SIDE))
    places: list[int | None] = []
    for number, (frame, faces) in enumerate(frames):
        picker.show(frame, is_cut=number in cuts)
        face = picker.pick(faces)
        places.append(None if face is None else round(float(face.centre[0]) / 64))
    for start, end in picker.others():
        places[start:end] = [None] * (end - start)
    return places


def test_the_person_is_found_again_after_another_stood_in_front():
    alone, both = scene(("Ann", 384, 256, 1.0)), scene(("Ann", 384, 256, 1.0), ("Bob", 128, 256, 1.0))
    covered = scene(("Bob", 384, 256, 1.0))
    there = followed([alone])[0]
    places = followed([alone] * 10 + [both] * 5 + [covered] * (GAP + 8) + [both] * 10)
    assert places[: 15 - LOOK_EVERY] == [there] * (15 - LOOK_EVERY)
    assert places[15 : 15 + GAP + 8] == [None] * (GAP + 8)
    assert places[-10:] == [there] * 10


def test_after_a_cut_the_same_person_is_found_in_another_place_and_nobody_else():
    first, other, small = scene(("Ann", 384, 256, 1.8)), scene(("Bob", 384, 256, 1.8)), scene(("Ann", 90, 400, 0.5))
    places = followed([first] * 10 + [other] * 10 + [small] * 10, cuts=(10, 20))
    assert places == [followed([first])[0]] * 10 + [None] * 10 + [followed([small])[0]] * 10


def test_who_is_alone_and_puts_on_dark_glasses_is_still_the_same():
    plain, glasses = scene(("Ann", 384, 256, 1.0)), scene(("Cat", 384, 256, 1.0))
    assert not look("Ann").is_like(look("Cat"))
    assert None not in followed([plain] * 10 + [glasses] * 20)
    visitor = scene(("Cat", 384, 256, 1.0), ("Bob", 128, 256, 1.0))
    assert followed([plain] * 10 + [glasses] * 20 + [visitor])[10:] == [None] * 21


def test_a_median_look_leaves_out_what_a_single_frame_shows():
    assert median_look([look("Ann"), look("Bob"), look("Ann", scale=0.8)]).is_like(look("Ann"))
