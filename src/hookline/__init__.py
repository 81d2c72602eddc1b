"""hookline: PyTorch's module call, rebuilt. See what every module of any model does, and change nothing by looking."""

from hookline.engine.attach import Module, everywhere, install, on, uninstall
from hookline.engine.call import Call
from hookline.engine.hook import Handle
from hookline.errors import HooklineError
from hookline.model.select import Selection, select
