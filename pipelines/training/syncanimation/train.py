"""A person's SyncAnimation: the three stages one after the other, and one file made of them.

RUN/run.json               what the run is set to
RUN/pose/ emotion/ speech/ the syncers, and the start of the speech code: checkpoints, log, networks
RUN/torso/ face/ lips/     the renderer's stages, with pictures
RUN/held_out.json          how good the result is on the part of the video that it was not trained on
RUN/person.safetensors     the model, as far as it is trained
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ....models.checkpoints import read_checkpoint
from ....models.lpips import LPIPS, load_lpips
from ....models.syncanimation.labels import BROWS
from ....models.syncanimation.networks import Networks, NetworksConfig
from ....models.syncanimation.rendering.camera import renderer_pose
from ....models.syncanimation.rendering.fields import HeadConfig
from ....models.syncanimation.rendering.tri_plane import can_compile
from ...errors import TalkingPortraitError
from ...face.face import Landmarker
from ...face.landmarks import open_landmarker
from ...files.output_paths import whole_file
from ...model_files.store import find, list_files
from ...person.person import open_person
from ...progress import shared_out
from ...syncanimation.avatar import Avatar, open_avatar
from ...syncanimation.blinks import measure_blinks
from ...syncanimation.closed_lips import closed_speech_code
from ...syncanimation.conditions import expression_labels
from ...syncanimation.person_model import STAGES, PersonModel, open_model
from ...syncanimation.speech import SpeechScale
from ...types import Progress, no_progress
from ..core.loop import LOG, seed_everything, train
from ..core.loss_curve import with_loss_curve
from ..core.person_settings import split, write_metrics
from ..core.processes import Processes
from ..core.run_settings import begun_settings, read_settings, say_what_stays, write_settings
from ..core.timed_steps import steps_in
from .carving import carve
from .evaluation import evaluate, evaluate_syncers
from .frames import AvatarFrames, HeadFrames, TorsoFrames, with_rare
from .renderer import HeadTrainer, JointExpression, JointPose, TorsoTrainer
from .settings import GRID_UPDATES, SHARES, SPEECH_TRAINED, UPDATED_PART, Settings
from .syncers import EmotionTrainer, PoseTrainer, Speech, SpeechCodeTrainer, Steps, mouth_labels, over_face_height

MODEL = "person.safetensors"
PROGRESS = {"pose": 0.03, "torso": 0.1, "emotion": 0.03, "speech": 0.03, "face": 0.53, "lips": 0.28}
"""What is trained, in order, with its part of the time: the syncers and the speech code before the stage that needs
them."""
Stage = Callable[[str], Progress]
"""From what is trained to what its progress goes to."""
MEASURED_FRAMES = 50
"""Frames of the held-out part, spread over it, that the renderer is measured on."""
TIMED_STEPS = 9
CODES = 2
"""Individual codes; driving uses the first, which all frames are trained with here. Published: one for each frame."""
SEEN_FROM = 20
"""Poses, spread over the training, that say which cells of the head's grid are seen."""


def train_syncanimation(
    person_folder: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    landmarker: Landmarker | None = None,
    stage: Stage = lambda label: no_progress,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Trains a prepared person in the folder `out`, up to the settings' stage; returns the model file.

    A run that was interrupted or killed goes on with `resume` from its last checkpoint, with the settings that it began
    with; only a number of steps that is given, and the stage, take the place of its own. `say` gets a line for each
    figure measured, on landmarks that `landmarker` finds, by default the best engine that is there.

    Raises TalkingPortraitError for a person that is unfinished, not prepared for SyncAnimation or without speech, a
    folder with a run that is not to go on, and as `core.loop.train`.
    """
    person = open_person(person_folder)
    avatar = open_avatar(person)
    speech = person.speech()
    out = Path(out)
    settings = _begin(out, settings or Settings(), resume, person.fingerprint, say)
    lpips = load_lpips(settings.lpips, find(list_files("alexnet")[0])) if settings.lpips else None
    training, held_out = split(person, avatar.usable, settings.held_out, least=2)
    scale = SpeechScale.measure(speech, person.mouth_encoder(), training)
    features = scale.standardised(speech)

    seed_everything(settings.seed, 0)
    networks = Networks(
        NetworksConfig(head=HeadConfig(channels=features.shape[1], codes=CODES), speech=features[0].numel())
    )
    networks.renderer.torso.individual_codes_torso = torch.nn.Parameter(
        networks.renderer.torso.individual_codes_torso[:CODES].detach().clone()
    )
    _fit_speech_map(networks, features.flatten(1)[: training[-1] + 1])
    with torch.no_grad():
        audio = networks.speech_map(features.flatten(1))
    model = PersonModel.untrained(networks, person, avatar, scale, audio, training)
    run = _Run(model, avatar, features, training, out, settings, resume, stage, lpips)
    if not run.train():  # one of several processes, of which the first has written the files
        return out / MODEL
    closed = closed_speech_code(networks.renderer.head, features, avatar.landmarks.float(), training)
    steps = sum(map(run.settings.stage_steps, settings.stages))
    model = replace(run.model, stage=settings.stages[-1], steps=steps, closed_code=closed)
    if len(held_out):
        _measure(model, avatar, features, held_out, landmarker or open_landmarker(), lpips, out, say)
    with whole_file(out / MODEL) as partial:
        model.save(partial)
    return out / MODEL


def trained_model(
    person_folder: str | Path,
    out: str | Path,
    settings: Settings,
    *,
    landmarker: Landmarker | None = None,
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[PersonModel, Path]:
    """The model that is trained in the folder `out`, or was there before, and its file; see `train_syncanimation`.

    More minutes than before go on with a finished run, with more steps of the lips.
    """
    before = read_settings(Path(out), Settings)
    if before is not None and not settings.steps and settings.minutes > before.minutes and before.lips_steps:
        more = (before.face_steps + before.lips_steps) * (settings.minutes / before.minutes - 1)
        settings = replace(settings, lips_steps=round(before.lips_steps + more))
    reports = shared_out(progress, PROGRESS)
    parts = {part: with_loss_curve(report, Path(out) / part / LOG) for part, report in reports.items()}
    path = train_syncanimation(
        person_folder, out, settings, resume=True, landmarker=landmarker, stage=parts.__getitem__, say=say
    )
    return open_model(path), path


class _Run:
    """The trainings one after the other; `model` has the networks as far as they are trained."""

    def __init__(
        self,
        model: PersonModel,
        avatar: Avatar,
        features: torch.Tensor,
        training: np.ndarray,
        out: Path,
        settings: Settings,
        resume: bool,
        stage: Stage,
        lpips: LPIPS | None,
    ) -> None:
        self.lpips = lpips
        self.model, self.avatar, self.features, self.training = model, avatar, features, training
        self.out, self.settings, self.resume, self.stage = out, settings, resume, stage
        self.networks, self.renderer = model.networks, model.networks.renderer
        self.frames = training.tolist()

    def train(self) -> bool:
        """Whether this process has written the files."""
        first = True
        for stage in self.settings.stages:
            first = getattr(self, f"_train_{stage}")()
        self.networks.cpu().eval()
        return first

    def _train_torso(self) -> bool:
        seed_everything(self.settings.seed, 1)
        syncer = PoseTrainer(self.networks.pose_syncer, self._speech())
        self._train_syncer("pose", syncer)
        pixels = 2 * self.settings.rays
        frames = TorsoFrames(self.avatar, self.frames, self.settings.seed, pixels)
        joint = JointPose(syncer, self.model.statistics) if self.settings.joint else None
        first = self._train_stage("torso", TorsoTrainer(self.renderer, self.model.camera, joint), frames)
        if joint is not None:
            self._calibrate(syncer)
        return first

    def _train_face(self) -> bool:
        seed_everything(self.settings.seed, 2)
        syncer = EmotionTrainer(self.networks.emotion_syncer, self._speech())
        self._train_syncer("emotion", syncer)
        rows = slice(0, int(self.training[-1]) + 1)
        usable = self._usable()
        mouth = mouth_labels(self.avatar.blendshapes[rows].float(), self.avatar.landmarks[rows].float(), usable)
        self._train_syncer("speech", SpeechCodeTrainer(self.renderer.head, self.features[rows], mouth, usable))
        poses = renderer_pose(self.avatar.c2w.float())
        seen = self.training[np.linspace(0, len(self.training) - 1, min(SEEN_FROM, len(self.training))).astype(int)]
        self.renderer.mark_unseen(self.model.camera, poses[torch.from_numpy(seen)])
        carve(self.renderer.occupancy, self.avatar, self.model.camera, poses, self.training)
        joint = JointExpression(syncer, self.model.statistics) if self.settings.joint else None
        first = self._train_head("face", joint)
        if joint is not None:
            self._calibrate(syncer)
        self._settle_blinks()
        return first

    def _train_lips(self) -> bool:
        return self._train_head("lips")

    def _train_head(self, stage: str, joint: JointExpression | None = None) -> bool:
        size = self.settings.size
        blinks = self.model.labels.expressions[:, BROWS:].mean(1)
        openings = over_face_height(self.avatar.landmarks, 66, 62)
        frames = HeadFrames(
            self.avatar,
            with_rare(self.training, blinks.numpy(), openings.numpy()).tolist(),
            self.settings.seed,
            self.features,
            self.model.labels.expressions,
            self.settings.pixels(stage),
            lips=stage == "lips",
        )
        trainer = HeadTrainer(
            self.renderer,
            self.model.camera,
            lips=stage == "lips",
            updates=GRID_UPDATES[size],
            part=UPDATED_PART[size],
            lpips=self.lpips,
            joint=joint,
            speech=SPEECH_TRAINED[size],
        )
        with self._compiled_planes():
            return self._train_stage(stage, trainer, frames)

    def _train_stage(self, stage: str, trainer: TorsoTrainer | HeadTrainer, frames: AvatarFrames) -> bool:
        """Whether this process has written the files; the steps are found first where minutes say how many."""
        if not self.settings.stage_steps(stage):
            plan, minutes = self.settings.renderer_plan(stage), self.settings.stage_minutes(stage)
            steps = steps_in(minutes, trainer, frames, plan, TIMED_STEPS)
            self.settings = replace(self.settings, **{f"{stage}_steps": steps})  # type: ignore[arg-type] # a number
            write_settings(self.out, self.settings, self.model.video.fingerprint)
        trainer.steps = self.settings.stage_steps(stage)
        plan = self.settings.renderer_plan(stage)
        files = train(trainer, frames, plan, self.out / stage, resume=self.resume, progress=self.stage(stage))
        return _take_over(trainer, files)

    @contextmanager
    def _compiled_planes(self) -> Iterator[None]:
        """On a graphics card the planes' entries are fetched by compiled kernels, where they can be made."""
        head = self.renderer.head
        head.compiled = can_compile(Processes().device, head.config.grid)
        try:
            yield
        finally:
            head.compiled = False

    def _train_syncer(self, name: str, trainer: PoseTrainer | EmotionTrainer | SpeechCodeTrainer) -> None:
        files = train(
            trainer,
            Steps(),
            self.settings.syncer_plan(name),
            self.out / name,
            resume=self.resume,
            progress=self.stage(name),
        )
        _take_over(trainer if isinstance(trainer, SpeechCodeTrainer) else trainer.network, files)
        self._calibrate(trainer)

    def _calibrate(self, trainer: PoseTrainer | EmotionTrainer | SpeechCodeTrainer) -> None:
        seed_everything(self.settings.seed, 3)
        trainer.cpu()
        trainer.calibrate()

    def _usable(self) -> torch.Tensor:
        usable = torch.zeros(int(self.training[-1]) + 1, dtype=torch.bool)
        usable[torch.from_numpy(self.training)] = True
        return usable

    def _speech(self) -> Speech:
        """The frames up to the last one that is trained on."""
        model, end = self.model, int(self.training[-1]) + 1
        labels = model.statistics.normalise(model.labels.c2w, model.labels.expressions)
        return Speech(
            model.labels.audio[:end], labels[:end], self._usable(), model.first, model.statistics.average_expression
        )

    @torch.no_grad()
    def _settle_blinks(self) -> None:
        """From predictions for the training's speech backwards: the syncer has learnt it by heart, but not so."""
        labels = expression_labels(self.model, self.features[: int(self.training[-1]) + 1].flip(0))
        predicted = self.model.statistics.expressions(labels)[:, BROWS:]
        true = self.model.labels.expressions[self.training, BROWS:]
        self.model = replace(self.model, blinks=measure_blinks(true, predicted, self.model.video.fps))


def _take_over(networks: torch.nn.Module, files: dict[str, Path]) -> bool:
    """Loads what the training wrote, which is the average over its last steps; whether this process wrote any."""
    for path in files.values():
        networks.load_state_dict(read_checkpoint(path))
    return bool(files)


@torch.no_grad()
def _fit_speech_map(networks: Networks, features: torch.Tensor) -> None:
    """Principal components, each as large as it is in the features (N, D); altogether of deviation 1.

    Of deviation 1 each, the smallest, which are noise, would count as much as the others.
    """
    networks.fit_speech_map(features)
    linear = networks.speech_map
    assert isinstance(linear, torch.nn.Linear)
    length = linear.weight.norm(dim=1).clamp(min=1e-12)
    linear.weight.div_(length[:, None])
    linear.bias.div_(length)
    deviation = linear(features).std()
    linear.weight.div_(deviation)
    linear.bias.div_(deviation)


def _begin(out: Path, given: Settings, resume: bool, video: str, say: Callable[[str], None]) -> Settings:
    """The settings of the run in the folder `out`, which are written down where it begins."""
    before = begun_settings(out, Settings, MODEL, video, resume=resume)
    with Processes() as processes:
        device = processes.device
    if before is None:
        settings = given.resolved(device)
    else:
        changing = ("stage", "minutes", "steps", *(f"{stage}_steps" for stage in STAGES))
        say_what_stays(before, given, changing, say)
        settings = replace(before, stage=given.stage)
        steps = _more_steps(out, before, given)
        if any(steps[name] != getattr(before, name) for name in steps):
            settings = replace(settings, minutes=given.minutes, **steps)  # type: ignore[arg-type] # numbers
    write_settings(out, settings, video)
    return settings


def _more_steps(out: Path, before: Settings, given: Settings) -> dict[str, int]:
    """The steps of stages that change where a run goes on with other ones.

    A stage is trained on what the one before it has made, so only the last one that has begun can get more. Raises
    TalkingPortraitError where another one is to.
    """
    begun = [stage for stage in STAGES if (out / stage).is_dir()]
    steps = {stage: given.stage_steps(stage) or before.stage_steps(stage) for stage in STAGES}
    for stage in begun[:-1]:
        if steps[stage] != before.stage_steps(stage):
            raise TalkingPortraitError(
                f"The stage {stage} is to be trained for {steps[stage]} steps, but the stage {begun[-1]} was begun on "
                f"what {before.stage_steps(stage)} steps of it made; give more steps to {begun[-1]}, or train in "
                "another folder."
            )
    if given.steps and begun:
        rest = [stage for stage in STAGES if stage not in begun[:-1] and not given.stage_steps(stage)]
        left = given.steps - sum(steps[stage] for stage in STAGES if stage not in rest)
        whole = sum(SHARES[before.size][stage] for stage in rest)
        steps |= {stage: max(1, round(left * SHARES[before.size][stage] / whole)) for stage in rest}
    elif given.steps:
        fresh = replace(given, size=before.size).resolved(torch.device("cpu"))
        steps = {stage: fresh.stage_steps(stage) for stage in STAGES}
    return {f"{stage}_steps": count for stage, count in steps.items()}


def _measure(
    model: PersonModel,
    avatar: Avatar,
    features: torch.Tensor,
    held_out: np.ndarray,
    landmarker: Landmarker,
    lpips: LPIPS | None,
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Writes the metrics of what is trained on the frames that it was not trained on."""
    metrics = evaluate_syncers(model, features, held_out)
    if model.stage == "torso":
        metrics = {"pose r": metrics["pose r"]}
    else:
        chosen = held_out[np.linspace(0, len(held_out) - 1, min(MEASURED_FRAMES, len(held_out))).astype(int)]
        metrics |= evaluate(model, avatar, features, chosen.tolist(), landmarker, lpips)
    write_metrics(out, metrics, say)
