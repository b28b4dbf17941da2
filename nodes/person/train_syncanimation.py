"""Trains SyncAnimation's networks on a prepared person."""

from __future__ import annotations

from typing import Any

from ...pipelines.person.person import Person
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedSyncAnimation, landmarker
from ..person_nodes import (
    held_out_input,
    minutes_input,
    run_input,
    steps_input,
    trained,
    training_outputs,
    training_seed_input,
    training_size_input,
)
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
                minutes_input(
                    "How long the renderer is trained, about; more minutes than before go on with a finished run."
                ),
                io.Combo.Input(
                    "stage",
                    options=["all", "torso", "face", "lips"],
                    default="all",
                    tooltip="The last stage to train: torso with head pose, face with expression, then the lips. A "
                    "person can be driven from the stage face on.",
                ),
                run_input("syncanimation"),
                host.advanced(
                    training_size_input("Of the training's steps: small for a CPU, published for a graphics card.")
                ),
                steps_input(
                    "Steps of the renderer in all stages in place of minutes; more of them go on with a finished run."
                ),
                held_out_input(),
                training_seed_input(),
                host.advanced(
                    io.Boolean.Input(
                        "joint",
                        default=False,
                        tooltip="Pictures of torso and face train head pose and expression too, as published; slow on "
                        "a CPU.",
                    )
                ),
            ],
            outputs=training_outputs(SyncAnimationSocket, "SyncAnimation"),
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
        model, report = trained(trained_model, person, run, settings, landmarker=landmarker())
        return io.NodeOutput(LoadedSyncAnimation.of(model), report)
