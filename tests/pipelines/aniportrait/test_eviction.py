"""AniPortrait on a host that moves every other network out at each load, and all of them between two frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talking_portrait.pipelines.aniportrait.animate import Settings, animate

from ..evicting_host import EvictingHost
from .tiny_aniportrait import SIZE, Codec, Drawings, Encoder, networks, portrait


class HostCodec(Codec):
    """A VAE that the host loads for each call."""

    def __init__(self, host: EvictingHost) -> None:
        super().__init__()
        self.host = host

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        self.host.evict()
        return super().encode(pictures)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.host.evict()
        return super().decode(latents)


@pytest.mark.parametrize("mode", ["reference", "seamless"])
@pytest.mark.parametrize("published_pose", [True, False])
def test_every_network_is_resident_when_it_runs(mode, published_pose: bool) -> None:
    settings = Settings(size=(SIZE, SIZE), steps=2, window=4, overlap=1, segment_windows=2, decode_batch=3)
    settings = replace(settings, mode=mode, published_pose=published_pose)
    expected = torch.cat(list(animate(networks(), Codec(), Encoder(), portrait(), Drawings(20), settings)))
    host = EvictingHost()
    nets = networks(host.manage)
    frames = []
    for part in animate(nets, HostCodec(host), Encoder(), portrait(), Drawings(20), settings):
        frames.append(part)
        host.evict()
    torch.testing.assert_close(torch.cat(frames), expected, atol=5e-4, rtol=0)
