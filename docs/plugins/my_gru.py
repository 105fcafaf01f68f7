"""A bidirectional GRU as a backbone: a whole plug-in. In a recipe: `plugins: [./my_gru.py]`, `backbone: my_gru`."""

from torch import nn

from backbones.base import Backbone
from workbench.core.bounds import Count


@Backbone.register("my_gru")
class MyGRU(Backbone):
    """A bidirectional GRU that does not hear the noise level.

    Settings:
        hidden: width of each direction.
    """

    def __init__(self, states: int, outputs: int, hidden: Count = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(states, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, x_BL, sigma=None, cache=None):
        return self.gru(self.embed(x_BL))[0]
