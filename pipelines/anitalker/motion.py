"""Speech and a portrait to motion codes: AniTalker's stage 2, sampled."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import cast

import torch

from ...models.anitalker.stage2 import Controls, Stage2, Stage2Config
from ..audio.overlapping_windows import blended_windows, window_seconds
from ..diffusion.samplers import StepCallback, no_callback
from ..errors import TalkingPortraitError
from ..memory import Managed, loaded
from ..types import MotionLatents, Progress, SpeechFeatures, no_progress
from .controls import FPS
from .noise import seeded_noise
from .portrait import Portrait, check_numbers
from .sampling import sample, strided_schedule

RATE = Fraction(FPS)
_SAME_MIX = 1e-5


def motion_frames(config: Stage2Config, features: SpeechFeatures) -> int:
    """Frames of motion that these features give.

    Raises TalkingPortraitError for features of another kind than the model takes.
    """
    wanted = f"MFCC with {config.features} columns (Speech MFCC, recipe anitalker)"
    if config.layers:
        wanted = f"HuBERT's {config.layers} states of {config.features} channels (chinese-hubert-large, timing paired)"
    rows, layers, *channels = features.states.shape
    came = f"{features.model}, {layers} x {' x '.join(map(str, channels))}, timing {features.timing}"
    if config.layers:
        mixed = bool(features.mixed)
        fits = features.timing == "paired" and layers == (1 if mixed else config.layers)
    else:
        fits = features.model == "mfcc-anitalker" and layers == 1
    if not fits or channels != [config.features]:
        raise TalkingPortraitError(
            f'The speech features are {came}, but the model "{config.variant}" takes {wanted}; connect those.'
        )
    if rows < config.rows:
        raise TalkingPortraitError(
            f"The speech gives {rows} rows of features, but {config.rows} make one frame; use a longer recording."
        )
    return rows // config.rows


def layer_mix(stage2: Stage2) -> torch.Tensor:
    """(layers,) shares of HuBERT's hidden states that this model takes, for `speech.encode` to mix while it runs.

    Raises TalkingPortraitError for a model that takes MFCC.
    """
    if not stage2.config.layers:
        raise TalkingPortraitError(
            f'The model "{stage2.config.variant}" takes MFCC and mixes no layers; connect Speech MFCC to it.'
        )
    return stage2.mix.cpu()


@torch.no_grad()
def generate_motion(
    stage2: Managed,
    features: SpeechFeatures,
    portrait: Portrait,
    *,
    controls: Controls | None = None,
    steps: int = 50,
    seed: int = 0,
    noise: torch.Tensor | None = None,
    seconds: float | None = None,
    callback: StepCallback = no_callback,
    progress: Progress = no_progress,
) -> MotionLatents:
    """Motion codes at 25 frames a second, each in -1..1.

    Args:
        features: HuBERT's hidden states, two rows a frame, all or already mixed; or AniTalker's MFCC, four rows.
        controls: of (1, F, n), see `controls.py`; None predicts them from the voice. Audio-only models take none.
        steps: of the sampler; see `sampling.possible_steps`.
        seed: of the noise, the same on every device. `noise` (1, F, motion) overrules it.
        seconds: length of windows. By default up to two minutes pass as a whole, as published, and longer speech in
            windows of one minute that share at least five seconds with their neighbours and are blended at every step,
            so that motion stays continuous; an approximation, as a frame then attends to its window alone.
        callback: called after each step, see `sampling.py`; progress: called for each window of each step.

    Raises TalkingPortraitError for features, controls or steps that do not fit, and where the network gives NaN.
    """
    config = cast(Stage2, stage2.module).config
    frames = motion_frames(config, features)
    _check_portrait(config, portrait)
    if controls is not None and not config.pose:
        raise TalkingPortraitError(
            f'The model "{config.variant}" moves the head by the voice alone, but controls were given; set control to '
            "none, or load a stage2_pose_only or stage2_full_control file."
        )
    schedule = strided_schedule(steps)
    if noise is None:
        noise = seeded_noise(frames, config.motion, seed)
    windows = list(blended_windows(frames, window_seconds(seconds, frames, RATE), RATE))
    done, total = 0, len(windows) * (steps + bool(config.speech))

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    network, device = loaded(stage2, Stage2)
    audio = network.encode_audio(_rows(network, features, frames)[None].to(device))
    if config.speech:
        audio = _by_windows(windows, audio, network.encode_sequence, tick)
    if controls is not None:
        controls = Controls(*(signal.to(device) for signal in (controls.pose, controls.location, controls.scale)))
    audio, _ = network.apply_controls(audio, controls)
    condition = network.condition(audio, portrait.start.to(device), portrait.code.to(device))
    lengths = {end - start for start, end, _ in windows}
    places = {length: network.coarse_decoder.place_keys(length) for length in lengths}

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        network, device = loaded(stage2, Stage2)
        time = torch.tensor([timestep], device=device)

        def noise_of(piece: torch.Tensor) -> torch.Tensor:
            conditions, noisy = piece.split([condition.shape[-1], config.motion], dim=-1)
            return network.predict(conditions, noisy, time, places[piece.shape[1]])

        return _by_windows(windows, torch.cat([condition, x], dim=-1), noise_of, tick)

    codes = sample(predict, noise.to(device), schedule, callback=callback)
    check_numbers(codes, "stage 2")
    return MotionLatents(codes[0].float().cpu(), RATE)


def _check_portrait(config: Stage2Config, portrait: Portrait) -> None:
    have, want = (portrait.start.shape[1], portrait.code.shape[1]), (config.style, config.motion)
    if have != want:
        raise TalkingPortraitError(
            f"Stage 1 gives {have[0]} numbers for looks and {have[1]} for motion, but this stage 2 takes {want[0]} and "
            f"{want[1]}; load two files of the same training."
        )


def _rows(network: Stage2, features: SpeechFeatures, frames: int) -> torch.Tensor:
    """One layer (rows, channels) of whole frames: the mixed one, or the only one."""
    config = network.config
    states = features.states[: frames * config.rows]
    if not config.layers:
        return states[:, 0]
    mix = layer_mix(network)
    if features.mixed:
        if not torch.allclose(mix, torch.tensor(features.mixed), atol=_SAME_MIX):
            raise TalkingPortraitError(
                "The speech features were mixed for another AniTalker model; connect the model that is used here to "
                "Encode Speech."
            )
        return states[:, 0]
    return torch.einsum("n,fnc->fc", mix, states)


def _by_windows(
    windows: list[tuple[int, int, torch.Tensor]],
    x: torch.Tensor,
    work: Callable[[torch.Tensor], torch.Tensor],
    tick: Callable[[], None],
) -> torch.Tensor:
    """`work` on each window of x (1, F, n), blended."""
    whole: torch.Tensor | None = None
    for start, end, weight in windows:
        part = work(x[:, start:end])
        if whole is None:
            whole = part.new_zeros(1, x.shape[1], part.shape[-1])
        whole[:, start:end] += part * weight.to(part)[:, None]
        tick()
    assert whole is not None
    return whole
