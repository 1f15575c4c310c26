"""Chain: settings that turn a sound into an input, or the name of a known set of them."""

from typing import Annotated, Any

from pydantic import BeforeValidator

from offramp.preprocess import SpectrogramPreprocess
from offramp.preprocess.spectrogram import GTZAN, SPEECH_COMMANDS, VGGISH

CHAINS = {"speech_commands": SPEECH_COMMANDS, "gtzan": GTZAN, "vggish": VGGISH}


def _named(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in CHAINS:
        raise ValueError(
            f"there is no chain {given!r}. Use one of {[*CHAINS]}, or write spectrogram settings "
            "of your own"
        )
    return CHAINS[given]


Chain = Annotated[SpectrogramPreprocess, BeforeValidator(_named)]
"""Settings of a spectrogram, or one of the names in `CHAINS`."""
