"""Trains SyncAnimation's networks on a prepared person."""

from __future__ import annotations

from typing import Any

import torch

from ...pipelines.person.person import Person
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedSyncAnimation, landmarker
from ..person_folder import run_folder
from ..sockets import PersonSocket, SyncAnimationSocket


class TrainSyncAnimation(io.ComfyNode):
    """PERSON to SYNCANIMATION, and a folder with the run inside the person's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitTrainSyncAnimation",
            display_name="Train SyncAnimation",
            category="Talking Portrait/person",
            description="Trains SyncAnimation on a prepared person: head pose and upper face from speech, the torso, "
            "and the head as a field of density and colour. What is finished is not trained again.",
            search_aliases=["syncanimation", "synctalk", "train person", "nerf", "talking head training"],
            inputs=[
                PersonSocket.Input("person", tooltip="From Prepare Person for SyncAnimation, of a video with speech."),
                io.Float.Input(
                    "minutes",
                    default=20.0,
                    min=0.1,
                    max=10000.0,
                    step=1.0,
                    round=0.1,
                    tooltip="How long the renderer is trained, about; more minutes than before go on with a finished "
                    "run.",
                ),
                io.Combo.Input(
                    "stage",
                    options=["all", "torso", "face", "lips"],
                    default="all",
                    tooltip="The last stage to train: torso with head pose, face with expression, then the lips. A "
                    "person can be driven from the stage face on.",
                ),
                io.String.Input(
                    "run",
                    default="syncanimation",
                    tooltip="A name for this training; a run of the same name and person is gone on with.",
                ),
                host.advanced(
                    io.Combo.Input(
                        "size",
                        options=["auto", "small", "published"],
                        default="auto",
                        tooltip="Of the training's steps: small for a CPU, published for a graphics card.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "steps",
                        default=0,
                        min=0,
                        max=10_000_000,
                        tooltip="Steps of the renderer in all stages in place of minutes; more of them go on with a "
                        "finished run.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "held_out",
                        default=0.1,
                        min=0.0,
                        max=0.5,
                        step=0.05,
                        round=0.01,
                        tooltip="Share of the video, at its end, that is measured and not trained on.",
                    )
                ),
                host.advanced(
                    io.Int.Input(
                        "seed",
                        default=42,
                        min=0,
                        max=2**31 - 1,
                        control_after_generate=True,
                        tooltip="Same seed, same run on the same machine.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "joint",
                        default=False,
                        tooltip="Pictures of torso and face train head pose and expression too, as published; slow on "
                        "a CPU.",
                    )
                ),
            ],
            outputs=[
                SyncAnimationSocket.Output(
                    display_name="model",
                    tooltip="The person's model, for SyncAnimation Drive; its file lies in the run.",
                ),
                io.String.Output(display_name="report", tooltip="How good it is on what it was not trained on."),
            ],
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        person: Person,
        minutes: float,
        stage: Any,
        run: str,
        size: Any = "auto",
        steps: int = 0,
        held_out: float = 0.1,
        seed: int = 42,
        joint: bool = False,
    ) -> io.NodeOutput:
        from ...pipelines.training.syncanimation.train import Settings, trained_model

        settings = Settings(
            size=size, stage=stage, minutes=minutes, steps=steps, held_out=held_out, seed=seed, joint=joint
        )
        report: list[str] = []
        progress = host.progress()
        host.unload_networks()
        # The host runs nodes without gradients.
        with torch.inference_mode(False), torch.enable_grad():
            model, path = trained_model(
                person.folder,
                run_folder(person, run),
                settings,
                landmarker=landmarker(),
                progress=progress,
                say=report.append,
            )
        return io.NodeOutput(LoadedSyncAnimation.of(model), "\n".join([str(path), *report]))
