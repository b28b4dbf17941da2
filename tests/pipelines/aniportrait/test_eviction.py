"""AniPortrait on a host that moves every other network out at each load, and all of them between two frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talking_portrait.pipelines.aniportrait.animate import Settings, animate

from ..evicting_host import EvictingCodec, EvictingHost
from .tiny_aniportrait import SIZE, Codec, Drawings, Encoder, networks, portrait


@pytest.mark.parametrize(("mode", "published_pose"), [("reference", True), ("seamless", False)])
def test_every_network_is_resident_when_it_runs(mode, published_pose: bool) -> None:
    settings = Settings(size=(SIZE, SIZE), steps=2, window=4, overlap=1, segment_windows=2, decode_batch=3)
    settings = replace(settings, mode=mode, published_pose=published_pose)
    expected = torch.cat(list(animate(networks(), Codec(), Encoder(), portrait(), Drawings(20), settings)))
    host = EvictingHost()
    nets = networks(host.manage)
    frames = []
    for part in animate(nets, EvictingCodec(host, Codec()), Encoder(), portrait(), Drawings(20), settings):
        frames.append(part)
        host.evict()
    torch.testing.assert_close(torch.cat(frames), expected, atol=5e-4, rtol=0)
