"""SyncAnimation's audio inputs, audio networks, syncers and labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from talking_portrait.models.syncanimation import audio_visual_encoder, labels
from talking_portrait.models.syncanimation.audio_nets import AudioAttention, AudioNet, LinearAudioNet, speech_windows
from talking_portrait.models.syncanimation.loading import (
    build_audio_visual_encoder,
    build_emotion_syncer,
    build_pose_syncer,
)

from .goldens import Golden, runner
from .personal_audiodvp_networks import state_of


def numbered(golden: Golden, name: str) -> Iterator[tuple[str, int]]:
    """Stored tensors that are called `name` and a number."""
    for stored in golden.tensors:
        match = re.fullmatch(rf"{name}(\d+)", stored)
        if match:
            yield stored, int(match[1])


def drawn(golden: Golden, prefix: str, shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Weights for names of these shapes."""
    meta = golden.meta
    return {
        name: torch.from_numpy(golden.weights.tensor(meta["seed"], prefix + name, shape, meta.get("gain", 1.0)))
        for name, shape in shapes.items()
    }


@runner("personal", "st_mel")
def st_mel(golden: Golden) -> None:
    mel = audio_visual_encoder.mel_spectrogram(golden.tensor("wave"))
    windows, starts = audio_visual_encoder.mel_windows(mel), audio_visual_encoder.window_starts(len(mel))
    golden.compare("mel", mel)
    golden.compare("num_frames", torch.tensor([len(windows)]))
    golden.compare("starts", starts)
    rows = starts[:, None] + torch.arange(windows.shape[-1])
    golden.check("windows", windows[:, 0], mel[rows].transpose(1, 2))


@runner("personal", "st_ave_encoder")
def st_ave_encoder(golden: Golden) -> None:
    encoder = build_audio_visual_encoder(state_of(golden), path=golden.path)
    golden.compare("feature", encoder(golden.tensor("mel")))


@runner("personal", "st_audio")
def st_audio(golden: Golden) -> None:
    shapes, features = golden.keys(golden.meta["keys"]), golden.tensor("input")
    convolved = "encoder_conv.0.weight" in shapes["audio_net"]
    first = shapes["audio_net"]["encoder_conv.0.weight" if convolved else "encoder_fc1.0.weight"]
    network = AudioNet(first[1]) if convolved else LinearAudioNet(first[1])
    network.load_state_dict(drawn(golden, golden.meta["weight_prefix"], shapes["audio_net"]))
    attention = AudioAttention()
    attention.load_state_dict(drawn(golden, golden.meta["att_prefix"], shapes["audio_att_net"]))
    codes = network(features)
    golden.compare("audio_net", codes)
    golden.compare("attended", attention(codes[None]))


@runner("personal", "st_audio_window")
def st_audio_window(golden: Golden) -> None:
    features = golden.tensor("features")
    for causal, name in ((False, "w"), (True, "left")):
        for stored, frame in numbered(golden, name):
            golden.compare(stored, speech_windows(features, [frame], causal=causal)[0])


@runner("personal", "sa_pose_syncer")
def sa_pose_syncer(golden: Golden) -> None:
    syncer = build_pose_syncer(state_of(golden), path=golden.path)
    code, previous = golden.tensor("code"), golden.tensor("prev_pose")
    pose = syncer(golden.tensor("audio"), previous, code)
    mean, log_variance = syncer.encode(golden.tensor("pose"))
    golden.compare("vae_recon", syncer.decode(code))
    golden.compare("euler", pose[:, :3])
    golden.compare("translation", pose[:, 3:])
    golden.compare("mu", mean)
    golden.compare("logvar", log_variance)


@runner("personal", "sa_emotion_syncer")
def sa_emotion_syncer(golden: Golden) -> None:
    syncer = build_emotion_syncer(state_of(golden), path=golden.path)
    audio, average, reference, frames = (golden.tensor(name) for name in ("audio", "avg_bs", "bs", "t"))
    golden.compare("blendshapes", syncer(audio, average, reference, frames, golden.tensor("code")))
    mean, log_variance = syncer.encode(audio, average, reference, frames)
    golden.compare("mu", mean)
    golden.compare("logvar", log_variance)


@runner("personal", "sa_labels")
def sa_labels(golden: Golden) -> None:
    poses, expressions = golden.tensor("c2w"), golden.tensor("bs")
    statistics = labels.measure(poses, expressions)
    normalised = statistics.normalise(poses, expressions)
    window = int(golden.matched("notes", r"frames i-(\d+)\.\.i")[1]) + 1
    smooth = labels.smooth_poses(poses, window)
    golden.compare("euler", labels.matrix_to_euler(poses[:, :3, :3]))
    golden.compare("euler_mean", statistics.average_euler)
    golden.compare("label", statistics.offsets(poses, expressions))
    golden.compare("mean", statistics.mean)
    golden.compare("std", statistics.std)
    golden.compare("zscore", normalised)
    golden.compare("prev", labels.previous_labels(normalised))
    golden.compare("smooth_trans", smooth[:, :3, 3])
    golden.compare("smooth_rot", smooth[:, :3, :3])
    golden.check("back", statistics.poses(normalised[:, :6]), poses, **golden.allowed)
    golden.check("expressions", statistics.expressions(normalised[:, 6:]), expressions, **golden.allowed)
