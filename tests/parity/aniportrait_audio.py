"""AniPortrait's networks from sound to face shape and head movement."""

from __future__ import annotations

import torch
from talking_portrait.models.aniportrait.audio2pose import HEADS, distance_bias
from talking_portrait.models.aniportrait.loading import build_audio2mesh, build_audio2pose
from talking_portrait.models.diffusion.motion_module import sinusoidal_table
from talking_portrait.models.speech.encoder import resample_time
from talking_portrait.pipelines.aniportrait.audio_motion import plan_chunks

from .aniportrait_networks import state_of
from .goldens import Golden, runner


@runner("aniportrait", "audio2mesh")
def audio2mesh(golden: Golden) -> None:
    meta = golden.meta
    state = state_of(golden, meta["manifest"], meta["weight_seed"])
    model = build_audio2mesh(state, path=golden.path, encoder=meta["config"]["w2v"])
    wave = model.encoder.prepare(golden.tensor("wave"))
    golden.compare("input_values", wave)
    features = resample_time(model.encoder.convolve(wave), meta["seq_len"])
    golden.compare("features_interp", golden.thinned("features_interp", features))
    states = model.encoder.transform(features, every_layer=True)
    golden.compare("last_hidden", states[-1:])
    golden.compare("offsets", model(states[-1] if meta["config"]["only_last_fetures"] else states.mean(dim=0)))


@runner("aniportrait", "audio2pose")
def audio2pose(golden: Golden) -> None:
    meta = golden.meta
    state = state_of(golden, meta["manifest"], meta["weight_seed"])
    model = build_audio2pose(state, path=golden.path, encoder=meta["config"]["w2v"])
    wave = model.encoder.prepare(golden.tensor("wave"))
    golden.compare("input_values", wave)
    features = resample_time(model.encoder.convolve(wave), meta["seq_len"])
    states = model.encoder.transform(features, every_layer=True)
    states = states[-1] if meta["config"]["only_last_fetures"] else states.mean(dim=0)
    for identity in meta["ids"]:
        golden.compare(f"pose_id{identity}", model(states, identity)[None])

    for name in golden.tensors:
        if name.startswith("biased_mask_"):
            golden.compare(name, bias_mask(int(name.removeprefix("biased_mask_"))))
    rows = [int(row) for row in golden.matched("note", r"pe_rows are rows ([\d,]+)")[1].split(",")]
    golden.compare("pe_rows", sinusoidal_table(max(rows) + 1, meta["config"]["latent_dim"])[0, rows])


def bias_mask(length: int) -> torch.Tensor:
    """What attention to earlier frames is lowered by, (heads, frames, frames); as good as all of it to later ones."""
    mask = torch.full((HEADS, length, length), -1e30)
    for i in range(length):
        mask[:, i, : i + 1] = distance_bias(i)[:, 0]
    return mask


@runner("aniportrait", "a2p_chunk_plan")
def a2p_chunk_plan(golden: Golden) -> None:
    """The published plan where it works; where it fails, a plan that makes every pose."""
    for row in golden.meta["rows"]:
        samples, frames = row["samples"], row["seq_len"]
        chunks = plan_chunks(samples, frames)
        if row.get("projection_ok"):
            golden.check(f"samples of {samples}", [c.samples for c in chunks], row["chunk_samples"])
            golden.check(f"frames of {samples}", [c.frames for c in chunks], row["chunk_frames"])
        else:
            assert "error" in row or row["total"] != frames
            golden.check(f"all samples of {samples}", sum(c.samples for c in chunks), samples)
            golden.check(f"all frames of {samples}", sum(c.frames for c in chunks), frames)
