"""APasco on a host that moves every other network out at each load, and all of them between two clips."""

from __future__ import annotations

from dataclasses import replace

import torch
from talking_portrait.models.apasco.loading import build_net
from talking_portrait.pipelines.apasco.animate import animate
from talking_portrait.pipelines.apasco.settings import Networks

from ...tiny_weights.apasco import net_state
from ..evicting_host import EvictingCodec, EvictingHost
from .test_apasco import QUICK, SMALL, PatchCodec, inputs_of, made, networks_of


def test_every_network_is_resident_when_it_runs() -> None:
    host, settings = EvictingHost(), replace(QUICK, steps=2)
    evicted = Networks.of(build_net(net_state(SMALL), path="net.pth", config=SMALL), host.manage)
    host.evict()
    frames = []
    for clip in animate(evicted, EvictingCodec(host, PatchCodec()), inputs_of(12), settings):
        frames.append(clip.frames)
        host.evict()
    torch.testing.assert_close(torch.cat(frames), made(networks_of(), inputs_of(12), settings), atol=5e-4, rtol=0)
