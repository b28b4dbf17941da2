"""Trains AudioDVP's networks on a prepared person."""

from __future__ import annotations

from typing import Any

from ...pipelines.person.person import Person
from .. import host
from ..checked_node import checked_node
from ..host import io
from ..loaded_models import LoadedAudioDVP
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
from ..sockets import AudioDVPSocket, PersonSocket


class TrainAudioDVP(io.ComfyNode):
    """PERSON to AUDIODVP, and a folder with the run inside the person's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="TalkingPortraitTrainAudioDVP",
            display_name="Train AudioDVP",
            category="Talking Portrait/person",
            description="Trains AudioDVP on a prepared person: from speech to expression, and from a rendered "
            "lower face to a photographic one. What is finished is not trained again.",
            search_aliases=["audiodvp", "train person", "neural face renderer", "fine-tune"],
            inputs=[
                PersonSocket.Input("person", tooltip="From Prepare Person, of a video with speech."),
                minutes_input(
                    "How long the renderer is trained, about. 20 minutes on a CPU give a soft but moving mouth; more "
                    "minutes than before go on with a finished run."
                ),
                training_size_input("The renderer's: small for a CPU, published for a graphics card."),
                run_input("audiodvp"),
                host.advanced(
                    io.Combo.Input(
                        "expression",
                        options=["temporal", "affine"],
                        default="temporal",
                        tooltip="The network from speech to expression: our own, or the published affine map.",
                    )
                ),
                steps_input("Steps of the renderer in place of minutes; more of them go on with a finished run."),
                held_out_input(),
                training_seed_input(),
            ],
            outputs=training_outputs(AudioDVPSocket, "AudioDVP"),
        )

    @classmethod
    @checked_node
    def execute(
        cls,
        person: Person,
        minutes: float,
        size: Any,
        run: str,
        expression: Any = "temporal",
        steps: int = 0,
        held_out: float = 0.1,
        seed: int = 42,
    ) -> io.NodeOutput:
        from ...pipelines.training.audiodvp.train import Settings, trained_model

        settings = Settings(
            size=size, minutes=minutes, steps=steps, expression=expression, held_out=held_out, seed=seed
        )
        model, report = trained(trained_model, person, run, settings)
        return io.NodeOutput(LoadedAudioDVP.of(model), report)
