"""What samplers see of a trained network: log-scores of a denoiser, or next-token laws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, CachedBackbone
from graphs.base import Graph, Noise
from samplers.base import Look, NextTokenView, ScoreView
from workbench.kernels.rows import chunk_rows, gather_features, head_rows
from workbench.processes.readouts import Readout
from workbench.processes.totals import Reach


def features(net: Backbone, x_BL: Tensor, sigma_B: Tensor | None) -> Tensor:
    """h_BLD: the call that a Shell makes for training and sampling alike."""
    return net(x_BL, sigma_B)


def _head(net: Backbone, h_RD: Tensor) -> Tensor:
    return head_rows(net.head, h_RD)


def _reach(net: Backbone, vocab: int, rough: bool) -> Reach:
    return Reach.of(net.head, vocab, rough)


def device_of(module: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(module.parameters()).device


class DenoiserView(ScoreView):
    """A diffusion network as a score."""

    def __init__(
        self, shell: nn.Module, graph: Graph, noise: Noise, readout: Readout, length: int, states: int
    ) -> None:
        """``shell``: a Shell (or a wrapper of one) in eval mode."""
        self.shell, self.graph, self.noise, self.readout = shell, graph, noise, readout
        self.device = device_of(shell)
        self.vocab, self.length = graph.vocab, length
        self.chunk = chunk_rows(states, self.device)
        self.calls = 0
        self._reach: dict[bool, Reach] = {}

    def reach(self) -> Reach:
        """What bounds the sums of the scores: measured once, a view's weights stay what they are."""
        kind = self.device.type
        rough = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if rough not in self._reach:
            self._reach[rough] = self.shell(_reach, self.vocab, rough)
        return self._reach[rough]

    def look(self, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None = None) -> Look:
        """A lazy look at ``x_BL``; σ is carried in float64 and told to the network in float32."""
        return DenoiserLook(self, x_BL, sigma_B, told_B)


class DenoiserLook(Look):
    """One network call at most, made when rows are first asked for; of the texts that were told of, if any were.

    Rows of a text that was not told of cost another call, on the host alone: elsewhere that is an error.
    """

    def __init__(self, view: DenoiserView, x_BL: Tensor, sigma_B: Tensor, told_B: Tensor | None) -> None:
        """``sigma_B``: the σ of the law; ``told_B``: what the network hears instead, if given."""
        self.view, self.x_BL, self.sigma_B = view, x_BL, sigma_B
        self._told_B = sigma_B if told_B is None else told_B
        self._h_KLD: Tensor | None = None
        self._texts_K = torch.zeros(0, dtype=torch.long)  # those in _h_KLD, in this order
        self._told_K: Tensor | None = None

    def expect(self, rows_R: Tensor) -> None:
        """See the base."""
        if not self.view.partial:
            return
        texts_K = torch.unique(rows_R // self.x_BL.shape[1])
        self._told_K = texts_K if self._told_K is None else torch.cat([self._told_K, texts_K]).unique()

    def _outputs(self, rows_R: Tensor) -> Tensor:
        return self.view.shell(_head, self._rows(rows_R))

    def _rows(self, rows_R: Tensor) -> Tensor:
        """Features of rows, [R, D]."""
        batch, length = self.x_BL.shape
        wanted_K = torch.arange(batch) if self._told_K is None else self._told_K
        if rows_R.device.type == "cpu" and len(wanted_K) < batch:
            wanted_K = torch.cat([wanted_K, rows_R // length]).unique()
        new_K = wanted_K[~torch.isin(wanted_K, self._texts_K)]
        if self._h_KLD is None or new_K.numel():
            h_KLD = self._features(new_K)
            self._h_KLD = h_KLD if self._h_KLD is None else torch.cat([self._h_KLD, h_KLD])
            self._texts_K = torch.cat([self._texts_K, new_K])
        if not torch.equal(self._texts_K, torch.arange(batch)):
            place_B = torch.full((batch,), batch).index_copy_(0, self._texts_K, torch.arange(len(self._texts_K)))
            place_B = place_B.to(rows_R.device, non_blocking=True)
            rows_R = place_B[rows_R // length] * length + rows_R % length
        return gather_features(self._h_KLD, rows_R)

    def _features(self, texts_K: Tensor) -> Tensor:
        """One network call on some of the texts (int64, host), or on all: h_KLD."""
        x_KL, told_K = self.x_BL, self._told_B
        if len(texts_K) < len(x_KL):
            x_KL, told_K = x_KL[texts_K.to(x_KL.device, non_blocking=True)], told_K[texts_K]
        if bool((told_K == told_K[0]).all()):
            # one σ for all: said once, so that its layers compute the same whatever the batch (σ is on the host)
            told_K = told_K[:1]
        self.view.calls += 1
        return self.view.shell(features, x_KL, told_K.to(self.view.device, torch.float32, non_blocking=True))

    def log_score(self, rows_R: Tensor) -> Tensor:
        """Log-scores of rows, [R, S] float32."""
        x_R, sigma_R = self._at(rows_R)
        return self.view.readout.log_score(self._outputs(rows_R), x_R, sigma_R)

    def log_total(self, rows_R: Tensor, vocab: int) -> Tensor:
        """log Σ over tokens of the score, [R] float64."""
        if self.view.graph.blind:
            _, sigma_R = self._at(rows_R)
            total_R = self.view.readout.total(self._outputs(rows_R), sigma_R, vocab)
            if total_R is not None:
                return total_R
        return super().log_total(rows_R, vocab)

    def bounds_total(self) -> bool:
        """See the base: where the readout adds to the outputs but a number that σ tells."""
        return self.view.graph.blind and self.view.readout.offset(self.sigma_B) is not None

    def log_total_bound(self, rows_R: Tensor, vocab: int, notes_BLK: Tensor | None) -> tuple[Tensor, Tensor]:
        """See the base: notes are a row's features and the log-sum of its outputs there."""
        reach = self.view.reach()
        notes_BLK = reach.blank(self.x_BL.shape) if notes_BLK is None else notes_BLK
        bound_R = reach.bound(self._rows(rows_R), notes_BLK.flatten(0, 1)[rows_R])
        return bound_R + self._offset(rows_R), notes_BLK

    def log_total_noted(self, rows_R: Tensor, vocab: int, notes_BLK: Tensor) -> Tensor:
        """See the base."""
        total_R = self.log_total(rows_R, vocab)
        f_R1 = (total_R - self._offset(rows_R)).unsqueeze(-1)
        notes_BLK.flatten(0, 1)[rows_R] = torch.cat([self._rows(rows_R), f_R1], -1).to(notes_BLK.dtype)
        return total_R

    def _offset(self, rows_R: Tensor) -> Tensor:
        offset_R = self.view.readout.offset(self._at(rows_R)[1])
        assert offset_R is not None
        return offset_R

    def clean(self, rows_R: Tensor) -> Tensor:
        """Log law of the clean token given the rest, [R, V]."""
        x_R, sigma_R = self._at(rows_R)
        return self.view.graph.clean_from_score(self.log_score(rows_R), x_R, sigma_R)

    def others(self, rows_R: Tensor) -> Tensor:
        """The outputs at rows as a law of the token: for networks that do not see the position itself."""
        return self._outputs(rows_R)[:, : self.view.vocab].log_softmax(-1)

    def select(self, parent_B: Tensor) -> Look:
        """This look for a batch descended from it."""
        host_B = parent_B.to(self.sigma_B.device)
        chosen = DenoiserLook(self.view, self.x_BL[parent_B], self.sigma_B[host_B], self._told_B[host_B])
        if self._h_KLD is not None and len(self._texts_K) == len(self.x_BL):
            place_B = torch.argsort(self._texts_K)[host_B]
            chosen._h_KLD = self._h_KLD[place_B.to(self._h_KLD.device)]
            chosen._texts_K = torch.arange(len(host_B))
        return chosen

    def _at(self, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        sigma_B = self.sigma_B.to(self.view.device, non_blocking=True)
        return self.x_BL.reshape(-1)[rows_R], sigma_B[rows_R // self.x_BL.shape[1]]


class LeftToRightView(NextTokenView):
    """A left-sighted network as a next-token law: with its cache, or by reading all again."""

    def __init__(self, shell: nn.Module, backbone: Backbone, vocab: int, start_id: int, length: int) -> None:
        """``start_id``: the id that stands before the first token."""
        self.shell, self.backbone, self.start_id = shell, backbone, start_id
        self.device = device_of(shell)
        self.vocab, self.length = vocab, length
        self.calls = 0

    def start(self, batch: int) -> Any:
        """A cache that holds nothing yet; the start id is read with the first tokens."""
        ids = torch.full((batch, 1), self.start_id, dtype=torch.long, device=self.device)
        if isinstance(self.backbone, CachedBackbone) and self.backbone.has_cache:
            return ids, self.backbone.new_cache(batch)
        return ids, None

    def next(self, x_Bn: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """(log law of the token after ``x_Bn``, [B, V] float32; the longer cache)."""
        pending, kept = cache
        x_Bn = torch.cat([pending, x_Bn.to(self.device)], dim=1)
        self.calls += 1
        if kept is None:
            h_BLD, after = self.shell(features, x_Bn, None), (x_Bn, None)
        else:
            h_BLD, kept = self.shell(_commit, x_Bn, kept)
            after = (x_Bn[:, :0], kept)
        return self.shell(_head, h_BLD[:, -1]).log_softmax(-1), after


def _commit(net: CachedBackbone, x_BL: Tensor, cache: Any) -> tuple[Tensor, Any]:
    return net.commit(x_BL, cache)
