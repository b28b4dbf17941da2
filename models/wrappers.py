"""What training programs put around a state dict: dictionaries within dictionaries, prefixes, leftovers of training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch

from .checkpoint_kinds import identify, network_prefix
from .pickle_reader import StoredTensor, Stub, UnreadableTensor

Leaf = torch.Tensor | StoredTensor | UnreadableTensor
T = TypeVar("T")

MAX_DEPTH = 8
"""State dicts within each other."""
AVERAGED = (
    *("params_ema", "g_ema", "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "net_g_ema"),
    *("generator_ema", "ema_params"),
)
"""Names of the averaged copy of the weights, which inference uses, the preferred one first."""
WRAPPERS = (
    *AVERAGED,
    *("state_dict", "model_state_dict", "generator", "module", "params", "model", "net", "gen", "netG", "net_g", "g"),
    *("G", "network", "weights", "unet"),
)
"""Names under which training scripts put a state dict, the preferred one first."""
PREFIXES = ("module.", "model.", "generator.", "gen.", "netG.", "lia.")
"""What stands before every name when a network was a part of another module in training."""
_INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch's own wrappers (compile, FSDP, activation checkpointing) put into names, at any depth."""

_TRAINING_STATE = re.compile(
    r"optim|sched|scaler|loss|discr|^(dis|d|netd|net_d)$|teacher|callback|loops|^rng|random", re.I
)
TRAINING = re.compile(
    r"(.*\.)?("
    r"(num_batches_tracked|n_averaged|num_updates|decay|position_ids|exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer"
    r"|global_step|step|epoch|_extra_state|logvar|inv_freq|betas|alphas_cumprod\w*|sqrt_\w+cumprod|posterior_\w+)$"
    r"|(optimi[sz]ers?|optim|loss(es)?(_\w+)?|\w+_loss|criterion\w*|perceptual\w*|lpips\w*|vgg\w*|discriminators?"
    r"|\w+_discriminator|disc|dis|net_?[dD]|teacher\w*|\w*_teacher|(\w+_)?ema(_\w+)?|metrics?|(train|val|test)_\w+)\.)"
)
"""Names of tensors that only training needs: counters, moments, losses, discriminators, teachers, averaged copies."""


def unwrap(value: Any) -> dict[str, Leaf]:
    """The named tensors of what a file holds, out of the dictionaries around them; {} where there are none.

    An averaged copy of the weights is preferred where it is complete. Networks side by side become one, with names that
    begin with theirs.
    """
    for _ in range(MAX_DEPTH):
        items = _items(value)
        tensors: dict[str, Leaf] = {str(name): leaf for name, leaf in items.items() if isinstance(leaf, Leaf)}
        counts = {name: _count(items[name]) for name in WRAPPERS if name in items}
        wrapped = [name for name, count in counts.items() if count]
        if wrapped:
            most = max(counts.values())
            chosen = next(name for name in wrapped if name not in AVERAGED or counts[name] == most)
            if len(tensors) > counts[chosen]:
                return tensors
            value = items[chosen]
            continue
        networks = {
            str(name): inner
            for name, inner in items.items()
            if not _TRAINING_STATE.search(str(name)) and not isinstance(inner, Leaf) and _count(inner)
        }
        if sum(map(_count, networks.values())) <= len(tensors):
            return tensors
        if len(networks) > 1:
            return dict(_named(networks))
        (value,) = networks.values()
    return {}


def unbuilt_object(value: Any) -> Stub | None:
    """The object in place of a state dict that only its author's program can open, if that is what a file holds."""
    for _ in range(MAX_DEPTH):
        if isinstance(value, Stub):
            return value
        items = _items(value)
        value = next((items[name] for name in WRAPPERS if isinstance(items.get(name), Stub | Mapping)), None)
    return None


def _items(value: Any) -> Mapping[Any, Any]:
    """The content of a mapping, also of one of the author's own kind; of a list, the mappings in it."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Stub):
        return value.items
    if isinstance(value, list | tuple):
        return {number: inner for number, inner in enumerate(value) if isinstance(inner, Mapping)}
    return {}


def _named(value: Any) -> Iterator[tuple[str, Leaf]]:
    """All named tensors below a mapping, each mapping once, however often it is referred to."""
    seen: set[int] = set()
    waiting = [("", value, 0)]
    while waiting:
        prefix, mapping, depth = waiting.pop()
        if id(mapping) in seen or depth > MAX_DEPTH:
            continue
        seen.add(id(mapping))
        for name, inner in _items(mapping).items():
            if isinstance(inner, Leaf):
                yield f"{prefix}{name}", inner
            elif isinstance(inner, Mapping | Stub):
                waiting.append((f"{prefix}{name}.", inner, depth + 1))


def _count(value: Any) -> int:
    return sum(1 for _ in _named(value))


def strip(state: Mapping[str, T]) -> dict[str, T]:
    """Takes off what torch's wrappers insert into names, and prefixes that every name has.

    A prefix stays where a known network's names begin with it.
    """
    found = {_INSERTED.sub("", name): leaf for name, leaf in state.items()}
    found |= {name: leaf for name, leaf in state.items() if name in found}
    while prefix := next((p for p in PREFIXES if found and all(name.startswith(p) for name in found)), None):
        kind = identify(found)
        if kind is not None and not network_prefix(kind, found):
            break
        found = {name.removeprefix(prefix): leaf for name, leaf in found.items()}
    return found
