"""The weights of the mouth network: those that ship with the pack, and a file of one's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ...models.checkpoints import check_file
from ...models.speech import mouth_network
from ...models.speech.mouth_network import MouthConfig, MouthNetwork, OtherVersionError, load_mouth_network
from ...models.weight_files import read_shipped
from ..errors import TalkingPortraitError, one_line, quoted
from ..finite import all_finite

WEIGHTS = {"real lips": "mouth.safetensors", "synthetic speech": "mouth-synthetic.safetensors"}
"""By name, the files that ship: learned on measured speakers, and on synthetic speech alone."""
DEFAULT_WEIGHTS = "real lips"


def open_mouth(weights: str | Path | MouthNetwork) -> MouthNetwork:
    """A network as it is, one of WEIGHTS, or the one in a file.

    Raises TalkingPortraitError for a name that is neither, and for a file that is no mouth network.
    """
    if isinstance(weights, MouthNetwork):
        return weights
    if not isinstance(weights, str | Path):
        raise TalkingPortraitError(f"The weights are {quoted(weights)}, but a name or a file is expected.")
    return _shipped(str(weights)) if str(weights) in WEIGHTS else _read(Path(weights))


@cache
def _shipped(name: str) -> MouthNetwork:
    return read_shipped(Path(mouth_network.__file__).with_name(WEIGHTS[name]), load_mouth_network)


def _read(path: Path) -> MouthNetwork:
    try:
        if not path.is_file():
            raise ValueError(f"it is no file, and none of {', '.join(WEIGHTS)}")
        check_file(path)
        network = load_mouth_network(path)
        if network.config.mels != MouthConfig().mels:
            raise ValueError(f"it takes {network.config.mels} bands")
        if not all(all_finite(tensor) for tensor in network.state_dict().values()):
            raise ValueError("some of its weights are no numbers")
    except TalkingPortraitError:  # no weights at all, or of a file that ships
        raise
    except OtherVersionError as error:
        raise TalkingPortraitError(
            f"{path} can't be used with this version of Talking Portrait ({error}); train it again with this one "
            "(train instant-driver, or the node Train Instant Driver)."
        ) from None
    except LookupError:
        raise _foreign(path, "it has no description of one") from None
    except Exception as error:  # a damaged file can fail anywhere
        raise _foreign(path, one_line(str(error), 120)) from None
    return network


def _foreign(path: Path, reason: str) -> TalkingPortraitError:
    return TalkingPortraitError(
        f"{path} is no mouth network of Instant ({reason}); give a file that train instant-driver or train "
        "instant-mouth wrote."
    )
