"""A stand-in for torch in TorchServe's workers, not torch.

The worker of TorchServe 0.12.0 imports torch for one reason: `isinstance(value, torch.Tensor)` on a handler's answer
(`ts/protocol/otf_message_handler.py`). Our handler answers bytes and computes with OpenVINO, so this empty class is all the worker
needs; it saves about 325 MB and several seconds per worker. The folder is put first on PYTHONPATH of TorchServe's child processes
and of nothing else; `SLIPWAY_TORCH_STAND_IN=0` turns it off. A test fails when the installed TorchServe asks torch for more.
"""


class Tensor:
    """The type that no answer of ours has."""
