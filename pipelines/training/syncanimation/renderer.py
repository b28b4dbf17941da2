"""The trainers of the renderer: the torso on the image's plane, then the head in space.

The head sees the true poses and expressions of the frames that it is trained on, and so do the torso and the lips: in
the public program the torso and the lips see predicted ones, which differ from the picture where the syncers, trained
alone, are wrong. Only a joint training has the predicted ones there and trains the syncers on by the pictures: the pose
syncer with the torso, the emotion syncer with the face.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ....models.lpips import LPIPS
from ....models.syncanimation.labels import Statistics
from ....models.syncanimation.losses import HeadLossWeights, head_loss, jitter_loss, patch_loss, torso_loss
from ....models.syncanimation.rendering.camera import Camera, pixel_coordinates, rays, renderer_pose
from ....models.syncanimation.rendering.renderer import Renderer
from ..core.trainer import Batch, Objective, Trainer, trainable
from .syncers import EmotionTrainer, PoseTrainer

GRID_UPDATES = 16
"""Steps between updates of the grids that say where something is."""
ALPHA_WEIGHT, ALPHA_MARGIN = 0.05, 0.0015
"""Of the torso's alpha; published: 0. It makes the mask right where the torso has the background's colour. By so much
the loss has alphas farther from 0 and 1 than they can be."""
GRID_FACTOR, ATTENTION_FACTOR = 10.0, 5.0
"""Published learning rates of the hash grids and of the audio attention, over that of the networks."""
SYNCER_FACTOR = 0.1
"""The same of a syncer in joint training; published: 0.1 for poses, 10 for expressions, begun untrained."""
SPEECH_CODE = ("head.audio_net.", "head.audio_att_net.")
"""Parameters that turn speech into the code."""


def mask_loss(alpha: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy of alphas (n, 1), which may reach beyond 0..1 by COLOUR_MARGIN, and a mask (n, 1).

    In place of the difference, which a torso that has become transparent everywhere hardly feels: it stayed so.
    """
    shown, hidden = (alpha + ALPHA_MARGIN).log(), (1 - alpha + ALPHA_MARGIN).log()
    return -(mask * shown + (1 - mask) * hidden).mean()


class Joint(nn.Module):
    """A syncer whose prediction for a frame is rendered, so that the picture trains it too."""

    def __init__(self, syncer: PoseTrainer | EmotionTrainer, statistics: Statistics) -> None:
        super().__init__()
        self.syncer, self.statistics = syncer, statistics

    def predicted(self) -> tuple[torch.Tensor, torch.Tensor]:
        # As when it is trained alone: its batch norms want full precision.
        with torch.autocast(self.syncer.audio.device.type, enabled=False):
            return self.syncer.predicted()


class JointPose(Joint):
    def forward(self, frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The renderer's pose (4, 4) that is predicted for a frame, and the pose syncer's own loss."""
        labels, loss = self.predicted()
        poses = self.statistics.to(labels.device).poses(labels[frame][None])
        return renderer_pose(poses)[0], loss


class JointExpression(Joint):
    def forward(self, frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The expression (7,) that is predicted for a frame, and the emotion syncer's own loss."""
        labels, loss = self.predicted()
        return self.statistics.to(labels.device).expressions(labels[frame]), loss


class TorsoTrainer(Trainer):
    """Of neck and torso, by the head's pose."""

    title = "syncanimation-torso"
    steps = 1
    """Nothing here depends on how many there are."""

    def __init__(self, renderer: Renderer, camera: Camera, joint: JointPose | None = None) -> None:
        super().__init__()
        self.torso, self.torso_occupancy, self.camera = renderer.torso, renderer.torso_occupancy, camera
        self._renderer = [renderer]  # not a submodule: the head does not belong to this training
        self.joint = joint

    def objectives(self) -> Sequence[Objective]:
        factors = {"torso.torso_encoder.": GRID_FACTOR, "joint.": SYNCER_FACTOR}
        return [Objective(trainable(self), self.loss, factors=factors)]

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        one = {name: tensor[0] for name, tensor in batch.items()}
        renderer = self._renderer[0]
        pose, extra = one["pose"], torch.zeros((), device=one["pose"].device)
        if self.joint is not None:
            pose, extra = self.joint(one["frame"])
        if step % GRID_UPDATES == 0:
            renderer.update_torso_occupancy(pose.detach())
        coordinates = pixel_coordinates(self.camera, one["pixels"])
        # Where a torso is not rendered it can't be learnt: all of it was lost where the first grid left it out.
        known = one["alpha"][:, 0] > 0
        render = renderer.render_torso(coordinates, pose, one["background"], known=known)
        loss = torso_loss(render.image, one["target"], self.torso.anchor_points) + extra
        return loss + ALPHA_WEIGHT * mask_loss(render.alpha, one["alpha"])

    def picture(self, batch: Batch) -> torch.Tensor:
        """A frame's torso, and beside it what it is to be."""
        one = {name: tensor[0] for name, tensor in batch.items()}
        coordinates = pixel_coordinates(self.camera, device=one["pose"].device)
        behind = one["behind"].flatten(0, 1)
        render = self._renderer[0].render_torso(coordinates, one["pose"], behind)
        return torch.cat([render.image.view_as(one["whole"]), one["whole"]], 1).clamp(0, 1)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"torso": self.state_dict()}


class HeadTrainer(Trainer):
    """Of the head. `lips`: the last stage, which weighs no pixel by its uncertainty (published)."""

    title = "syncanimation-face"

    steps = 1
    """Of the whole training, over which some terms of the loss grow."""

    def __init__(
        self,
        renderer: Renderer,
        camera: Camera,
        *,
        lips: bool = False,
        updates: int = GRID_UPDATES,
        part: float = 1.0,
        lpips: LPIPS | None = None,
        joint: JointExpression | None = None,
        speech: bool = True,
    ) -> None:
        """Every so many `updates` steps `part` of the cells' densities are measured.

        `speech`: the speech code is trained too. `joint`: in place of the true expressions.
        """
        super().__init__()
        self.head, self.occupancy, self.camera = renderer.head, renderer.occupancy, camera
        self._renderer = [renderer]
        self.lips, self.updates, self.part = lips, updates, part
        self._lpips = [lpips]  # not a submodule either: checkpoints have no need of it
        self.weights = HeadLossWeights()
        self.joint, self.speech = joint, speech
        if lips:
            self.title = "syncanimation-lips"

    def objectives(self) -> Sequence[Objective]:
        factors = {f"head.encoder_{plane}.": GRID_FACTOR for plane in ("xy", "yz", "xz")}
        factors["head.audio_att_net."] = ATTENTION_FACTOR
        factors["joint."] = SYNCER_FACTOR
        parameters = {
            name: weight for name, weight in trainable(self).items() if self.speech or not name.startswith(SPEECH_CODE)
        }
        return [Objective(parameters, self.loss, factors=factors)]

    def loss(self, batch: Batch, step: int) -> torch.Tensor:
        one = {name: tensor[0] for name, tensor in batch.items()}
        # The gradient of its short convolutions is no number in half precision on some CPUs, and it takes no time.
        with torch.autocast(one["windows"].device.type, enabled=False):
            audio = self.head.encode_audio(one["windows"][None])
        audio = audio if self.speech else audio.detach()
        expression, extra = one["expression"], torch.zeros((), device=audio.device)
        if self.joint is not None:
            expression, extra = self.joint(one["frame"])
        if step % self.updates == 0:
            first = step == 0 and not self.lips
            part = 1.0 if first else self.part
            self._renderer[0].update_occupancy(audio.detach(), expression.detach()[None], part=part)
        progress = min(step / max(self.steps, 1), 1.0)
        noise = torch.rand(len(one["pixels"]), device=audio.device)
        view = rays(self.camera, one["pose"], one["pixels"])
        render = self._renderer[0].render_head(view, audio, expression[None], one["background"], noise=noise)
        loss = extra + head_loss(
            render,
            one["target"],
            one["face"],
            one["outside"],
            progress,
            uncertainty=not self.lips,
            weights=self.weights,
        )
        patches, side = one["patch"].tolist()
        if patches:
            image, target = (
                pixels[: patches * side**2].view(patches, side, side, 3).movedim(-1, 1)
                for pixels in (render.image, one["target"])
            )
            lpips = self._lpips[0]
            different = patch_loss(image, target) if lpips is None else lpips.to(image.device)(image, target).mean()
            loss = loss + self.weights.patch * different
        if step % GRID_UPDATES == 0:
            loss = loss + self.weights.jitter * progress * jitter_loss(self.head, render.points)
        return loss

    def picture(self, batch: Batch) -> torch.Tensor:
        """A frame's head before its torso, and beside it the frame."""
        one = {name: tensor[0] for name, tensor in batch.items()}
        audio = self.head.encode_audio(one["windows"][None])
        frame = self._renderer[0].render_frame(
            self.camera, one["pose"], audio, one["expression"][None], one["behind"], torso=False
        )
        return torch.cat([frame.image, one["whole"]], 1)

    def export(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"head": self.state_dict()}
