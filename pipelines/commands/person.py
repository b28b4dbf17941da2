"""`python -m talking_portrait person`: systems that are trained for one person."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import TalkingPortraitError, check_names
from ..face.native_stderr import redirect_native_stderr
from ..person_systems import PERSON_SYSTEMS, check_is_used
from . import syncanimation
from .shared.progress_bar import ProgressBar
from .shared.renderer_options import add_no_mark_option
from .shared.terminal import note, say
from .shared.weight_options import find_weights

ACCELERATOR_BATCH = 8
"""Frames that are generated at once where that is faster than one by one."""

PUBLIC_RATE = 25
"""Frames per second that the public programs expect of an exported person."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("person", help="prepare a video of one person, and have a trained model speak")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_prepare(actions)
    _add_face_model(actions)
    _add_export(actions)
    _add_drive(actions)


def _add_prepare(actions: argparse._SubParsersAction) -> None:
    text = "make the folder that training for one person starts from, from a video in which the person speaks"
    command = actions.add_parser("prepare", help=text, description=text)
    command.add_argument("video", type=Path, metavar="VIDEO", help="of one person who speaks to the camera")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder, or one to go on with")
    command.add_argument("--size", type=int, default=256, help="side of the crops in pixels (default 256)")
    command.add_argument("--fps", help="frames per second (default: the video's own)")
    command.add_argument("--silent", action="store_true", help="also take a video without speech, for driving alone")
    command.add_argument(
        "--speech-encoder", type=Path, help="wav2vec2, HuBERT or ATnet (default: the mouth network, which is shipped)"
    )
    command.add_argument(
        "--landmarks", type=Path, help="MediaPipe's .task (default: that of the model folder, or the shipped networks)"
    )
    command.add_argument(
        "--face-model",
        type=Path,
        metavar="FILE",
        help="a morphable face model, as person face-model writes it, to fit and to track with (default: none)",
    )
    command.add_argument(
        "--for", dest="systems", choices=PERSON_SYSTEMS, default="audiodvp", help="what will be trained (audiodvp)"
    )
    command.add_argument(
        "--avatar-size",
        type=int,
        help="side of SyncAnimation's pictures: 128, 256 or 512 (default: what fits)",
    )
    command.add_argument(
        "--parser",
        type=Path,
        help="BiSeNet's .pth or MediaPipe's .tflite, for SyncAnimation's masks (default: none)",
    )
    command.add_argument(
        "--regressor",
        type=Path,
        metavar="FILE",
        help="VGGFace2's resnet50_ft_weight.pkl: fit the face model as published, by training it (hours on a CPU)",
    )
    command.set_defaults(run=_prepare)


@redirect_native_stderr()
def _prepare(options: argparse.Namespace) -> None:
    from ..audiodvp.atnet import load_encoder
    from ..audiodvp.morphable.regressor import load_models
    from ..face.landmarks import open_landmarker
    from ..files.output_paths import check_output_folder
    from ..person.prepare import Settings
    from ..person_systems import prepare_person_for
    from ..timing import as_rate

    find_weights(options)
    check_is_used(
        options.systems,
        {"--avatar-size": options.avatar_size, "--parser": options.parser, "--regressor": options.regressor},
    )
    settings = Settings(options.size, as_rate(options.fps) if options.fps else None, options.silent)
    check_output_folder(options.out)
    face_model, regressor = load_models(options.face_model, options.regressor)
    landmarker = open_landmarker(options.landmarks)
    if landmarker.hint:
        note(landmarker.hint)
    person = prepare_person_for(
        options.systems,
        options.video,
        options.out,
        settings=settings,
        avatar_size=options.avatar_size,
        parser=options.parser,
        landmarker=landmarker,
        encoder=load_encoder(options.speech_encoder),
        face_model=face_model,
        regressor=regressor,
        say=say,
        progress=ProgressBar("preparing", "%"),
    )
    say(f"{options.out}: {person.frames} frames at {float(person.fps):g} fps, {person.usable.sum()} of them usable")


def _add_face_model(actions: argparse._SubParsersAction) -> None:
    text = "make one face model of the published files of the Basel Face Model 2009, for person prepare --face-model"
    command = actions.add_parser("face-model", help=text, description=text)
    command.add_argument("files", type=Path, metavar="FOLDER", help="with the published files, or a ready data.mat")
    command.add_argument("--out", type=Path, required=True, help="the face model to write, .safetensors")
    command.set_defaults(run=_face_model)


def _face_model(options: argparse.Namespace) -> None:
    from ..audiodvp.morphable.basel_files import convert_face_model

    model = convert_face_model(options.files, options.out)
    say(f"{options.out}: {model.vertices} vertices, {len(model.triangles)} triangles")


def _add_export(actions: argparse._SubParsersAction) -> None:
    text = "write a person prepared for SyncAnimation as a folder that public programs for such avatars train on"
    command = actions.add_parser("export", help=text, description=text)
    command.add_argument("person", type=Path, metavar="PERSON", help="the prepared person")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new or an empty folder")
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from ..files.output_paths import check_output_folder
    from ..person.person import open_person
    from ..syncanimation.export import export_person

    check_output_folder(options.out)
    person = open_person(options.person)
    frames = export_person(person, options.out, progress=ProgressBar("exporting"))
    say(f"{options.out}: {frames} frames at {float(person.fps):g} fps")
    if person.fps != PUBLIC_RATE:
        note(f"The public programs take {PUBLIC_RATE} frames a second; prepare the person with --fps {PUBLIC_RATE}.")


def _add_drive(actions: argparse._SubParsersAction) -> None:
    text = "make the person of a trained model speak other words"
    command = actions.add_parser("drive", help=text, description=text)
    command.add_argument(
        "model", type=Path, metavar="MODEL", help="person.safetensors of train audiodvp or syncanimation"
    )
    command.add_argument("--audio", type=Path, required=True, help="the speech, any sound or video file")
    head = command.add_mutually_exclusive_group()
    head.add_argument("--person", type=Path, metavar="FOLDER", help="the prepared person that it was trained on")
    head.add_argument("--video", type=Path, help="or the video that the person was prepared from")
    command.add_argument("--out", type=Path, required=True, help="the video to write, .mp4")
    command.add_argument("--speech-encoder", type=Path, help="the one that the person was prepared with, if any")
    command.add_argument("--crf", type=int, default=18, help="H.264 quality, 0 lossless to 51 (default 18)")
    add_no_mark_option(command)
    face = command.add_argument_group("of AudioDVP, which needs --person or --video")
    face.add_argument("--offset", type=int, default=0, metavar="N", help="frame of the video to begin with")
    avatar = command.add_argument_group("of SyncAnimation, which needs neither")
    avatar.add_argument("--portrait", action="store_true", help="only the face, in the frames of --person or --video")
    syncanimation.add_drive_options(avatar)
    command.set_defaults(run=partial(_drive, _defaults(face), _defaults(avatar)))


def _defaults(group: argparse._ArgumentGroup) -> dict[str, Any]:
    """Of a group's options, by name."""
    return {action.dest: action.default for action in group._group_actions}


def _drive(of_face: dict[str, Any], of_avatar: dict[str, Any], options: argparse.Namespace) -> None:
    """`of_face` and `of_avatar` are the defaults of what either system alone takes."""
    from ..files.input_paths import existing_file
    from ..person.model_system import system_of

    find_weights(options)
    is_avatar = system_of(existing_file(options.model, "model")) == "syncanimation"
    own, others = (of_avatar, of_face) if is_avatar else (of_face, of_avatar)
    given = [_flag(name) for name, default in others.items() if getattr(options, name) != default]
    check_names(given, [_flag(name) for name in own], "SyncAnimation" if is_avatar else "AudioDVP")
    if is_avatar:
        syncanimation.drive_person(options)
    else:
        _drive_audiodvp(options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _drive_audiodvp(options: argparse.Namespace) -> None:
    import torch

    from ..audiodvp.animate import frames_of, open_model
    from ..audiodvp.atnet import load_encoder
    from ..files.frame_stream import write_stream
    from ..files.output_paths import file_to_write, keep_inputs
    from ..files.sound import read_speech
    from ..files.video import check_video_name
    from ..memory import Resident
    from ..person.person import open_person

    check_video_name(options.out, options.crf)
    if not options.video and not options.person:
        raise TalkingPortraitError(
            f"{options.model.name} puts a lower face into a video, but none was given; give the prepared person by "
            "--person, or its video by --video."
        )
    head = options.video or open_person(options.person)
    source = options.video or head.source
    keep_inputs(file_to_write(options.out), options.model, options.audio, source)
    model = open_model(options.model)
    speech, sound = read_speech(options.audio, model.video.fps)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    pictures = frames_of(
        model,
        speech,
        head,
        renderer=Resident(model.renderer, device),
        encoder=load_encoder(options.speech_encoder),
        offset=options.offset,
        batch=1 if device.type == "cpu" else ACCELERATOR_BATCH,
        progress=ProgressBar("driving"),
    )
    frames = write_stream(options.out, pictures, model.video.fps, sound, crf=options.crf, mark=options.mark)
    say(f"{options.out}: {frames} frames at {float(model.video.fps):g} fps")
