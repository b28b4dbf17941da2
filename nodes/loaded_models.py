"""Networks on their sockets: read when a node first needs them, and managed in memory by the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import host


@dataclass(frozen=True)
class LoadedSpeechEncoder:
    """SPEECH_ENCODER: the encoder, and the host's patcher that manages its memory."""

    encoder: Any
    memory: host.ManagedModule


@dataclass(frozen=True)
class LoadedAniTalker:
    """ANITALKER: its renderer, and one of its motion models."""

    stage1: host.ManagedModule
    stage2: host.ManagedModule


@dataclass(frozen=True)
class LoadedFaceRestorer:
    """FACE_RESTORER: a GFPGAN."""

    network: host.ManagedModule
