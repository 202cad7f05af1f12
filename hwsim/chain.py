"""How the layers of a workload hang together: views and poolings between them, and smaller ones of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from hwsim.errors import GraphError
from hwsim.workload import ConvShape, GemmShape, LayerSpec, Workload, WorkloadSpec


@dataclass(frozen=True, slots=True)
class Link:
    """What stands between two layers: a maximum over `pool` x `pool` codes, 1 for none, then maybe a flattening."""

    pool: int
    flat: bool


def links(workload: Workload) -> list[Link]:
    """Return what stands in front of each layer but the first, `count` equal ones among them.

    A workload does not list its poolings: where a layer reads a smaller image than the one before it wrote,
    the maximum of f x f positions lies between, f being the factor between them.

    Raises:
        GraphError: some layer cannot read what the one before writes.
    """
    found = []
    for (_, before), (_, after) in pairwise(workload.layers()):
        link = _link(before, after)
        if link is None or before.result != after.activation:
            raise GraphError(
                f"workload {workload.name}: layer {after.name} must read what {before.name} writes,"
                f" {list(before.writes)} of {before.result}, not {list(after.reads)} of {after.activation};"
                " a workload that is not a chain can be costed, not executed"
            )
        found.append(link)
    return found


def _link(before: LayerSpec, after: LayerSpec) -> Link | None:
    writes, reads = before.writes, after.reads
    if before.conv is None:
        return Link(1, False) if writes == reads else None
    flat = after.conv is None
    for pool in range(1, max(writes[:2]) + 1):
        image = tuple(side // pool for side in writes[:2])
        if reads == ((1, prod(image) * writes[2]) if flat else (*image, writes[2])):
            return Link(pool, flat)
    return None


def reduced(workload: Workload, divisor: int) -> Workload:
    """Return a smaller chain of the same kind: kernels, strides, paddings, poolings and formats stay.

    One of `count` equal layers is left. Channels and columns are divided, rounded up. The image gets the
    smallest sides, at least the divided ones, with which every layer still has an output.

    Args:
        workload: a chain of layers.
        divisor: 1 returns the workload itself.

    Raises:
        GraphError: the layers are no chain.
    """
    if divisor < 1:
        raise GraphError(f"a workload can be reduced by 1 or more, not by {divisor}")
    if divisor == 1:
        return workload
    layers = [layer.model_copy(update={"count": 1}) for layer in workload.spec.layers]
    single = Workload(workload.spec.model_copy(update={"layers": layers}))
    between = [Link(1, False), *links(single)]
    sides = [_least_side(layers, between, axis, divisor) for axis in (0, 1)]
    smaller: list[LayerSpec] = []
    for layer, link in zip(layers, between, strict=True):
        smaller.append(_smaller(layer, link, smaller[-1] if smaller else None, sides, divisor))
    spec = WorkloadSpec.model_validate(
        {
            **workload.spec.model_dump(by_alias=True),
            "name": f"{workload.name}_by_{divisor}",
            "description": f"{workload.spec.description}; reduced by {divisor}",
            "layers": [layer.model_dump() for layer in smaller],
        }
    )
    return Workload(spec)


def _smaller(
    layer: LayerSpec, link: Link, before: LayerSpec | None, sides: list[int], divisor: int
) -> LayerSpec:
    """Return a layer with divided channels that reads what the one before it, already smaller, writes."""
    if layer.conv is None:
        m, n, k = (-(-size // divisor) for size in (*layer.writes, layer.reads[1]))
        if before is not None:
            m, k = before.writes[0], before.writes[-1]
        if before is not None and link.flat:
            m, k = 1, prod(side // link.pool for side in before.writes[:2]) * k
        return layer.model_copy(update={"gemm": GemmShape(m=m, n=n, k=k)})
    image, channels = sides, -(-layer.conv.channels // divisor)
    if before is not None:
        image, channels = [side // link.pool for side in before.writes[:2]], before.writes[2]
    values = layer.conv.model_dump() | {
        "image": image,
        "channels": channels,
        "outputs": -(-layer.conv.outputs // divisor),
    }
    return layer.model_copy(update={"conv": ConvShape.model_validate(values)})


def _least_side(layers: list[LayerSpec], between: list[Link], axis: int, divisor: int) -> int:
    """Return the smallest side of the first image with which no later layer is left without an output."""
    first = layers[0].reads[axis]
    for side in range(-(-first // divisor), first):
        left = side
        for layer, link in zip(layers, between, strict=True):
            left //= link.pool
            if layer.conv is None:
                break
            windows = layer.conv.windows
            left = (
                left + 2 * windows.padding[axis] - windows.kernel[axis]
            ) // layer.conv.stride + 1
            if left < 1:
                break
        if left >= 1:
            return side
    return first
